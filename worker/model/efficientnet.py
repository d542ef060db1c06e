"""EfficientNet as a feature extractor, from efficientnet-pytorch, for any number of input planes."""

from efficientnet_pytorch import EfficientNet
from torch import Tensor, nn


class EfficientNetFeatures(nn.Module):
    """
    The convolutional part of an EfficientNet, without its classifier.

    Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019.

    Args:
        name: ``efficientnet-b0`` to ``efficientnet-b4``.
        in_planes: Input planes; the stem is made to fit.
        size_px: Side of the input, which efficientnet-pytorch needs to place its padding as TensorFlow does.

    Attributes:
        out_planes: Planes of the feature map.
    """

    def __init__(self, name: str, in_planes: int, size_px: int) -> None:
        super().__init__()
        self.network = EfficientNet.from_name(name, in_channels=in_planes, image_size=size_px, include_top=False)
        # The memory-efficient activation is a custom autograd function that saves memory in training alone.
        self.network.set_swish(memory_efficient=False)
        self.out_planes = int(self.network._conv_head.out_channels)  # noqa: SLF001 - it has no public name

    def forward(self, planes: Tensor) -> Tensor:
        """(N, in_planes, S, S) → (N, out_planes, S/32, S/32), rounded up."""
        features: Tensor = self.network.extract_features(planes)
        return features
