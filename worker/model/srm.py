"""
Spatial-rich-model residuals: what is left of a picture after its content has been predicted and subtracted.

The kernels are three of Fridrich and Kodovský, "Rich Models for Steganalysis of Digital Images", IEEE TIFS 2012,
in the choice and normalisation of Zhou, Han, Morariu and Davis, "Learning Rich Features for Image Manipulation
Detection", CVPR 2018: a second-order residual over 3 × 3 with 1/4, one over 5 × 5 with 1/12, and a horizontal
second-order line with 1/2. Where Zhou et al. sum the residual over the three colour channels, we take their mean,
which keeps residuals in grey levels; and residuals are truncated, as Fridrich and Kodovský do.
"""

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

KERNELS: Final = (
    (
        (0, 0, 0, 0, 0),
        (0, -1, 2, -1, 0),
        (0, 2, -4, 2, 0),
        (0, -1, 2, -1, 0),
        (0, 0, 0, 0, 0),
    ),
    (
        (-1, 2, -2, 2, -1),
        (2, -6, 8, -6, 2),
        (-2, 8, -12, 8, -2),
        (2, -6, 8, -6, 2),
        (-1, 2, -2, 2, -1),
    ),
    (
        (0, 0, 0, 0, 0),
        (0, 0, 0, 0, 0),
        (0, 1, -2, 1, 0),
        (0, 0, 0, 0, 0),
        (0, 0, 0, 0, 0),
    ),
)
DIVISORS: Final = (4.0, 12.0, 2.0)
TRUNCATION: Final = 4.0
"""Residuals beyond this many grey levels are edges of the content, not traces of manipulation."""
OWN_LEVEL_TRUNCATION: Final = 4.0
"""The same limit in multiples of the crop's mean absolute residual, its level."""
MIN_LEVEL: Final = 0.1
"""Lowest level, in grey levels, that residuals are divided by, so that a flat picture does not become noise."""


class SRMFilter(nn.Module):
    """
    Constant high-pass filters: they are not parameters, so they are neither trained nor saved.

    Args:
        own_level: Divide each plane by its own mean absolute residual over the crop before it is truncated.
    """

    kernels: Tensor

    def __init__(self, *, own_level: bool = False) -> None:
        super().__init__()
        self.own_level = own_level
        kernels = torch.tensor(KERNELS, dtype=torch.float32) / torch.tensor(DIVISORS).view(3, 1, 1)
        self.register_buffer("kernels", kernels.unsqueeze(1), persistent=False)  # (3, 1, 5, 5)

    def forward(self, faces: Tensor) -> Tensor:
        """
        Compute the residual planes of face crops.

        Args:
            faces: (N, 3, S, S) float RGB in [0, 1].

        Returns:
            (N, 3, S, S) residuals in [-1, 1]: grey levels, or multiples of the crop's own level, truncated at ±4 and
            divided by that. The border is reflected, so that it leaves no residual of its own.
        """
        grey = faces.mean(dim=1, keepdim=True) * 255.0
        residuals = functional.conv2d(functional.pad(grey, (2, 2, 2, 2), mode="reflect"), self.kernels)
        if self.own_level:
            # Truncate first, since edges would dominate the level of a smooth picture.
            level = residuals.clamp(-TRUNCATION, TRUNCATION).abs().mean(dim=(2, 3), keepdim=True)
            relative = residuals / (level.clamp(min=MIN_LEVEL) * OWN_LEVEL_TRUNCATION)
            return relative.clamp(-1.0, 1.0)
        return residuals.clamp(-TRUNCATION, TRUNCATION) / TRUNCATION
