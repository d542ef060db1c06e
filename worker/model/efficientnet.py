"""EfficientNet as a feature extractor, from efficientnet-pytorch, for any number of input planes."""

from efficientnet_pytorch import EfficientNet
from efficientnet_pytorch.utils import get_model_params
from torch import Tensor, nn


class EfficientNetFeatures(nn.Module):
    """
    The convolutional part of an EfficientNet, without its classifier.

    Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019.

    Args:
        name: ``efficientnet-b0`` to ``efficientnet-b4``, or ``efficientnet-lite0``: B0 without its
            squeeze-and-excitation blocks and with ReLU6 for swish, as its authors published it for small devices.
        in_planes: Input planes; the stem is made to fit.
        size_px: Side of the input, which efficientnet-pytorch needs to place its padding as TensorFlow does.

    Attributes:
        out_planes: Planes of the feature map.
    """

    def __init__(self, name: str, in_planes: int, size_px: int) -> None:
        super().__init__()
        overrides = {"image_size": size_px, "include_top": False}
        if name == "efficientnet-lite0":
            blocks, parameters = get_model_params("efficientnet-b0", overrides)
            self.network = EfficientNet([block._replace(se_ratio=None) for block in blocks], parameters)
            self.network._change_in_channels(in_planes)  # noqa: SLF001 - from_name does the same
            for module in (self.network, *self.network._blocks):  # noqa: SLF001 - as set_swish does
                module._swish = nn.ReLU6()  # noqa: SLF001
        else:
            self.network = EfficientNet.from_name(name, in_channels=in_planes, **overrides)
            # The memory-efficient activation is a custom autograd function that saves memory in training alone.
            self.network.set_swish(memory_efficient=False)
        self.out_planes = int(self.network._conv_head.out_channels)  # noqa: SLF001 - it has no public name

    def forward(self, planes: Tensor) -> Tensor:
        """(N, in_planes, S, S) → (N, out_planes, S/32, S/32), rounded up."""
        features: Tensor = self.network.extract_features(planes)
        return features
