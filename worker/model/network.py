"""The forgery network: SRM residuals, EfficientNet features, a small CNN head, and one logit per face."""

import torch
from torch import Tensor, nn

from shared.manifests import Architecture
from worker.model.efficientnet import EfficientNetFeatures
from worker.model.srm import SRMFilter

MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet's colours, with which colour planes are normalised."""


class Head(nn.Module):
    """A small CNN on the feature map: reduce planes, convolve, pool, and classify."""

    def __init__(self, in_planes: int, planes: int, dropout: float) -> None:
        super().__init__()
        self.reduce = nn.Sequential(nn.Conv2d(in_planes, planes, 1, bias=False), nn.BatchNorm2d(planes), nn.SiLU())
        self.look = nn.Sequential(
            nn.Conv2d(planes, planes, 3, padding=1, bias=False), nn.BatchNorm2d(planes), nn.SiLU()
        )
        self.dropout = nn.Dropout(dropout)
        self.decide = nn.Linear(planes, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Map (N, in_planes, h, w) to (N,) logits."""
        pooled = self.look(self.reduce(features)).mean(dim=(2, 3))
        logits: Tensor = self.decide(self.dropout(pooled)).squeeze(1)
        return logits


class ForgeryNetwork(nn.Module):
    """
    Network that classifies face crops as real or fake.

    Args:
        architecture: Backbone, input planes and head.
        size_px: Side of the crops.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, architecture: Architecture, size_px: int) -> None:
        super().__init__()
        self.architecture = architecture
        self.size_px = size_px
        self.srm = SRMFilter(own_level=architecture.residual_scale == "own-level")
        planes = 6 if architecture.input_planes == "rgb+srm" else 3
        self.features = EfficientNetFeatures(architecture.backbone, planes, size_px)
        self.head = Head(self.features.out_planes, architecture.head_channels, architecture.dropout)
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(DEVIATION).view(1, 3, 1, 1), persistent=False)

    def forward(self, faces: Tensor) -> Tensor:
        """
        Classify face crops.

        Args:
            faces: (N, 3, S, S) float RGB in [0, 1]; N may be 0.

        Returns:
            (N,) logits; larger means fake. The calibration of a checkpoint converts them to probabilities.
        """
        if faces.shape[0] == 0:
            return faces.new_zeros(0)
        logits: Tensor = self.head(self.features(self.make_input_planes(faces)))
        return logits

    def make_input_planes(self, faces: Tensor) -> Tensor:
        """Return the input of the backbone: normalised colours, SRM residuals, or both; *faces* are in [0, 1]."""
        if self.architecture.input_planes == "srm":
            planes: Tensor = self.srm(faces)
            return planes
        colours = (faces - self.mean) / self.deviation
        if self.architecture.input_planes == "rgb":
            return colours
        return torch.cat([colours, self.srm(faces)], dim=1)
