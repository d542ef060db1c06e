"""
facenet-pytorch's networks as the cascade runs them: the same numbers, in another order where that is quicker.

What is written here for the processor is measured in docs/performance.md.
"""

import torch
from facenet_pytorch.models.mtcnn import PNet
from torch import Tensor, nn

from worker.inference import ChannelsLastInput


class Proposals(nn.Module):
    """
    P-Net with one convolution for its two answers.

    The softmax of two values is the logistic function of their difference, and the difference of two linear layers is
    a linear layer: what tells a face from its absence is one number, of which the cascade needs the probability only
    where it is high.
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
        """Pictures in [-1, 1) → (N, 5, h, w) log-odds of a face in each window, and how to move its four edges."""
        answer: Tensor = self.answer(self.rest(self.conv1(pictures)))
        return answer


class RowConvolution(nn.Module):
    """
    A convolution over pictures as they lie in memory, with their channels last: each row is one of the colours in turn.

    A window's part of a row is one stretch of numbers then, which processors multiply faster than three at a time.

    Args:
        convolution: Over (N, C, H, W), one pixel a step and without padding.
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
        """(N, H, W, C) → (N, O, H', W')."""
        count, height, width, channels = pictures.shape
        planes: Tensor = self.over_rows(pictures.reshape(count, 1, height, width * channels))
        return planes


def from_channels_last(network: nn.Module, device: torch.device) -> nn.Module:
    """*network*, which begins with a convolution ``conv1``, for (N, H, W, 3) pictures on *device*."""
    if device.type != "cpu":
        return ChannelsLastInput(network, divisor=1.0)
    network.conv1 = RowConvolution(network.conv1)  # type: ignore[arg-type]
    return network
