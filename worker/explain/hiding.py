"""Hiding parts of a crop, to see what the score does without them."""

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

BLUR: Final = 1 / 16
"""Standard deviation of the blur behind which parts are hidden, as a share of the crop's side: features are gone, while
brightness and colour stay."""
FEATHER: Final = 1 / 112
"""Standard deviation of the soft edge of a hidden part, as a share of the crop's side: a hard edge would be a trace."""

Crop = NDArray[np.uint8]
Area = NDArray[np.bool_]


def hottest_area(values: NDArray[np.float32], share: float) -> Area:
    """
    Return where the highest *share* of a map's values is.

    Args:
        values: (H, W). Of equal values the first ones count, row by row.
        share: In [0, 1].

    Returns:
        (H, W), true for exactly ``round(share * H * W)`` pixels.
    """
    area = np.zeros(values.size, np.bool_)
    area[np.argsort(-values, axis=None, kind="stable")[: round(share * values.size)]] = True
    return area.reshape(values.shape)


def hide(crop: Crop, area: Area, fill: NDArray[np.float32] | None = None) -> Crop:
    """
    Hide an area of a crop.

    Args:
        crop: (S, S, 3) uint8 RGB.
        area: (S, S), true where the crop is hidden.
        fill: (S, S, 3) RGB in [0, 255] to show there; the blurred crop by default.

    Returns:
        (S, S, 3) uint8 RGB.
    """
    side = crop.shape[0]
    shown = blurred(crop) if fill is None else fill
    weight = cv2.GaussianBlur(area.astype(np.float32), (0, 0), FEATHER * side)[:, :, None]
    return np.asarray(np.clip(np.rint(crop * (1.0 - weight) + shown * weight), 0, 255), np.uint8)


def blurred(crop: Crop) -> NDArray[np.float32]:
    """Return *crop*, (S, S, 3) uint8 RGB, without its features, as float32 in [0, 255]."""
    return np.asarray(cv2.GaussianBlur(crop.astype(np.float32), (0, 0), BLUR * crop.shape[0]), np.float32)
