"""
facenet-pytorch's networks, rewritten for speed: the results are the same.

The gains on CPUs are measured in docs/performance.md.
"""

import torch
from facenet_pytorch.models.mtcnn import PNet
from torch import Tensor, nn

from worker.inference import ChannelsLastInput


class Proposals(nn.Module):
    """
    P-Net with a single convolution for both of its outputs.

    The softmax of two values is the logistic function of their difference, and the difference of two linear layers is
    a linear layer. The presence of a face is therefore one logit, and the cascade computes probabilities only of high
    ones.
    """

    def __init__(self) -> None:
        super().__init__()
        network = PNet()
        self.conv1 = network.conv1
        self.rest = nn.Sequential(
            *(network.prelu1, network.pool1, network.conv2, network.prelu2, network.conv3, network.prelu3)
        )
        absent_present, offsets = network.conv4_1, network.conv4_2
        self.answer = nn.Conv2d(absent_present.in_channels, 1 + offsets.out_channels, 1)
        with torch.no_grad():
            for name in ("weight", "bias"):
                absent, present = getattr(absent_present, name).split(1)
                getattr(self.answer, name).copy_(torch.cat([present - absent, getattr(offsets, name)]))

    def forward(self, pictures: Tensor) -> Tensor:
        """Map pictures in [-1, 1) to (N, 5, h, w): the logit of a face in each window, and offsets of its edges."""
        answer: Tensor = self.answer(self.rest(self.conv1(pictures)))
        return answer


class RowConvolution(nn.Module):
    """
    A convolution over pictures with channels last, without a copy to channels first.

    The window's part of a row, colours interleaved, is contiguous in memory, which CPUs multiply faster than three
    values at a time.

    Args:
        convolution: A convolution over (N, C, H, W) with a stride of 1 and no padding.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        planes, channels, height, width = convolution.weight.shape
        with torch.no_grad():
            # (O, C, h, w) → (O, 1, h, w × C)
            rows = convolution.weight.permute(0, 2, 3, 1).reshape(planes, 1, height, width * channels)
            size, stride = (height, width * channels), (1, channels)
            self.over_rows = nn.Conv2d(1, planes, size, stride=stride, bias=convolution.bias is not None)
            self.over_rows.weight.copy_(rows)
            if convolution.bias is not None and self.over_rows.bias is not None:
                self.over_rows.bias.copy_(convolution.bias)

    def forward(self, pictures: Tensor) -> Tensor:
        """Map (N, H, W, C) to (N, O, H', W')."""
        count, height, width, channels = pictures.shape
        planes: Tensor = self.over_rows(pictures.reshape(count, 1, height, width * channels))
        return planes


def from_channels_last(network: nn.Module, device: torch.device) -> nn.Module:
    """Adapt *network*, which begins with a convolution ``conv1``, to (N, H, W, 3) pictures on *device*."""
    if device.type != "cpu":
        return ChannelsLastInput(network, divisor=1.0)
    network.conv1 = RowConvolution(network.conv1)  # type: ignore[arg-type]
    return network
