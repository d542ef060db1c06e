"""EfficientNet as a feature extractor, from efficientnet-pytorch, for any number of input planes."""

import math
from typing import Any, Final

from efficientnet_pytorch import EfficientNet
from efficientnet_pytorch.utils import get_model_params
from torch import Tensor, nn

LITE_SCALES: Final = {
    "efficientnet-lite0": (1.0, 1.0),
    "efficientnet-lite1": (1.0, 1.1),
    "efficientnet-lite2": (1.1, 1.2),
}
"""Width and depth of the Lite networks as multiples of B0's, as their authors published them."""


class EfficientNetFeatures(nn.Module):
    """
    The convolutional part of an EfficientNet, without its classifier.

    Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019.

    Args:
        name: ``efficientnet-b0`` to ``efficientnet-b4``, or ``efficientnet-lite0`` to ``efficientnet-lite2``: without
            squeeze-and-excitation blocks and with ReLU6 for swish, as their authors published them for small devices.
        in_planes: Number of input planes.
        size_px: Side of the input, from which efficientnet-pytorch computes padding as in TensorFlow.

    Attributes:
        out_planes: Planes of the feature map.
    """

    def __init__(self, name: str, in_planes: int, size_px: int) -> None:
        super().__init__()
        overrides = {"image_size": size_px, "include_top": False}
        if name in LITE_SCALES:
            blocks, parameters = get_model_params("efficientnet-b0", overrides)
            self.network = EfficientNet(_lite_blocks(blocks, *LITE_SCALES[name]), parameters)
            self.network._change_in_channels(in_planes)  # noqa: SLF001 - from_name does the same
            for module in (self.network, *self.network._blocks):  # noqa: SLF001 - as set_swish does
                module._swish = nn.ReLU6()  # noqa: SLF001
        else:
            self.network = EfficientNet.from_name(name, in_channels=in_planes, **overrides)
            # The memory-efficient activation is a custom autograd function that only saves memory in training.
            self.network.set_swish(memory_efficient=False)
        self.out_planes = int(self.network._conv_head.out_channels)  # noqa: SLF001 - it has no public name

    def forward(self, planes: Tensor) -> Tensor:
        """Map (N, in_planes, S, S) to (N, out_planes, S/32, S/32), rounded up."""
        features: Tensor = self.network.extract_features(planes)
        return features


def _lite_blocks(blocks: list[Any], width: float, depth: float) -> list[Any]:
    """
    Scale B0's stages to those of a Lite network.

    Unlike in the B networks of the same scale, stem and head keep B0's width, and the first and the last stage its
    depth.
    """
    last = len(blocks) - 1
    return [
        block._replace(
            se_ratio=None,
            # The first stage reads the stem, which is not scaled.
            input_filters=block.input_filters if number == 0 else _scaled_planes(block.input_filters, width),
            output_filters=_scaled_planes(block.output_filters, width),
            num_repeat=block.num_repeat if number in {0, last} else math.ceil(depth * block.num_repeat),
        )
        for number, block in enumerate(blocks)
    ]


def _scaled_planes(count: int, width: float) -> int:
    """Return *count* times *width*, rounded to a multiple of 8 that is not more than a tenth below it."""
    scaled = count * width
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * scaled else rounded + 8
