"""
MTCNN's three networks with the weights of facenet-pytorch, rewritten for speed: the results are the same.

The weights are read from the files of that package. It is not imported, since it imports torchvision, and both take as
long as PyTorch. The gains on CPUs are measured in docs/performance.md.
"""

from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from shared.errors import ModelError
from worker.inference import ChannelsLastInput


def load_weights(name: str) -> dict[str, Tensor]:
    """
    Return the weights of facenet-pytorch's network *name*: ``pnet``, ``rnet`` or ``onet``.

    Raises:
        ModelError: The package is not installed, or has no such file.
    """
    package = find_spec("facenet_pytorch")
    folders = (package.submodule_search_locations or ()) if package is not None else ()
    for folder in folders:
        file = Path(folder) / "data" / f"{name}.pt"
        if file.exists():
            weights: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
            return weights
    raise ModelError(f"the weights of the face detector ({name}.pt) are missing: install facenet-pytorch")


class Proposals(nn.Module):
    """
    P-Net with a single convolution for both of its outputs.

    The softmax of two values is the logistic function of their difference, and the difference of two linear layers is
    a linear layer. The presence of a face is therefore one logit, and the cascade computes probabilities only of high
    ones.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 10, 3)
        self.rest = nn.Sequential(
            nn.PReLU(10),
            nn.MaxPool2d(2, 2, ceil_mode=True),
            nn.Conv2d(10, 16, 3),
            nn.PReLU(16),
            nn.Conv2d(16, 32, 3),
            nn.PReLU(32),
        )
        self.answer = nn.Conv2d(32, 5, 1)
        weights = load_weights("pnet")
        names = ("prelu1", "pool1", "conv2", "prelu2", "conv3", "prelu3")
        state = {key: value for key, value in weights.items() if key.startswith("conv1.")}
        for number, name in enumerate(names):
            own = {key: value for key, value in weights.items() if key.startswith(f"{name}.")}
            state |= {f"rest.{number}.{key.partition('.')[2]}": value for key, value in own.items()}
        for kind in ("weight", "bias"):
            absent_present = weights[f"conv4_1.{kind}"]
            presence = absent_present[1:] - absent_present[:1]
            state[f"answer.{kind}"] = torch.cat([presence, weights[f"conv4_2.{kind}"]])
        self.load_state_dict(state)

    def forward(self, pictures: Tensor) -> Tensor:
        """Map pictures in [-1, 1) to (N, 5, h, w): the logit of a face in each window, and offsets of its edges."""
        answer: Tensor = self.answer(self.rest(self.conv1(pictures)))
        return answer


class RNet(nn.Module):
    """The second network, which rejects candidates and moves the edges of the others."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 28, 3)
        self.prelu1 = nn.PReLU(28)
        self.pool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv2 = nn.Conv2d(28, 48, 3)
        self.prelu2 = nn.PReLU(48)
        self.pool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv3 = nn.Conv2d(48, 64, 2)
        self.prelu3 = nn.PReLU(64)
        self.dense4 = nn.Linear(576, 128)
        self.prelu4 = nn.PReLU(128)
        self.dense5_1 = nn.Linear(128, 2)
        self.dense5_2 = nn.Linear(128, 4)
        self.load_state_dict(load_weights("rnet"))

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """
        Map pictures to the answers of the second stage.

        Args:
            pictures: (N, 3, 24, 24) float32 in [-1, 1).

        Returns:
            (N, 4) offsets of edges and (N, 2) probabilities, of no face first.
        """
        planes = self.pool1(self.prelu1(self.conv1(pictures)))
        planes = self.pool2(self.prelu2(self.conv2(planes)))
        planes = self.prelu3(self.conv3(planes))
        values = self.prelu4(self.dense4(_flatten(planes)))
        return self.dense5_2(values), self.dense5_1(values).softmax(dim=1)


class ONet(nn.Module):
    """The third network, which also locates five landmarks."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 3)
        self.prelu1 = nn.PReLU(32)
        self.pool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv2 = nn.Conv2d(32, 64, 3)
        self.prelu2 = nn.PReLU(64)
        self.pool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv3 = nn.Conv2d(64, 64, 3)
        self.prelu3 = nn.PReLU(64)
        self.pool3 = nn.MaxPool2d(2, 2, ceil_mode=True)
        self.conv4 = nn.Conv2d(64, 128, 2)
        self.prelu4 = nn.PReLU(128)
        self.dense5 = nn.Linear(1152, 256)
        self.prelu5 = nn.PReLU(256)
        self.dense6_1 = nn.Linear(256, 2)
        self.dense6_2 = nn.Linear(256, 4)
        self.dense6_3 = nn.Linear(256, 10)
        self.load_state_dict(load_weights("onet"))

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """
        Map pictures to the answers of the last stage.

        Args:
            pictures: (N, 3, 48, 48) float32 in [-1, 1).

        Returns:
            (N, 4) offsets of edges, (N, 10) landmarks as shares of the box, five across before five down, and (N, 2)
            probabilities, of no face first.
        """
        planes = self.pool1(self.prelu1(self.conv1(pictures)))
        planes = self.pool2(self.prelu2(self.conv2(planes)))
        planes = self.pool3(self.prelu3(self.conv3(planes)))
        planes = self.prelu4(self.conv4(planes))
        values = self.prelu5(self.dense5(_flatten(planes)))
        return self.dense6_2(values), self.dense6_3(values), self.dense6_1(values).softmax(dim=1)


def _flatten(planes: Tensor) -> Tensor:
    """Flatten (N, C, H, W) by columns, in which order the weights were trained."""
    return planes.permute(0, 3, 2, 1).flatten(1)


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
