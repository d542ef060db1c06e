"""Pasting of a painted picture into the picture that its input was cut from."""

from typing import Final

import cv2
import numpy as np

from worker.training.fakes.blending import Blend, alpha_blend
from worker.training.fakes.generators.pictures import resize
from worker.training.fakes.pictures import Mask, Picture

Rectangle = tuple[int, int, int, int]
"""Left, top, width and height in pixels."""
EDGE_SHARE: Final = 0.12
"""Share of a pasted picture's shorter side over which its edges fade."""


def paste_square(target: Picture, painted: Picture, rectangle: Rectangle) -> Blend:
    """
    Paste *painted* into *target* with faded edges, as one-shot swappers paste the square that they painted.

    Args:
        target: (H, W, 3) uint8 RGB.
        painted: Picture of any size, which is resized to that of *rectangle*.
        rectangle: Within *target*.
    """
    width, height = rectangle[2:]
    edge = max(1, round(EDGE_SHARE * min(width, height) / 2))
    inner = np.zeros((height, width), np.float32)
    inner[edge : height - edge, edge : width - edge] = 1.0
    faded = cv2.GaussianBlur(inner, (0, 0), edge / 3)
    # The blur's tail is cut, so that the picture's outermost pixels are the target's.
    mask = np.zeros(target.shape[:2], np.float32)
    mask[_window(rectangle)] = np.clip((faded - 0.01) / 0.98, 0.0, 1.0)
    return Blend(target, alpha_blend(_overwrite(target, painted, rectangle), target, mask), mask)


def paste_exactly(target: Picture, painted: Picture, rectangle: Rectangle) -> Blend:
    """
    Replace *rectangle* of *target* by *painted* without fading; the mask is 1 where a pixel differs.

    Args:
        target: (H, W, 3) uint8 RGB.
        painted: Picture of the size of *rectangle*.
        rectangle: Within *target*.
    """
    fake = _overwrite(target, painted, rectangle)
    return Blend(target, fake, _changed_mask(target, fake))


def _overwrite(target: Picture, painted: Picture, rectangle: Rectangle) -> Picture:
    made = target.copy()
    made[_window(rectangle)] = resize(painted, *rectangle[2:])
    return made


def _window(rectangle: Rectangle) -> tuple[slice, slice]:
    x, y, width, height = rectangle
    return slice(y, y + height), slice(x, x + width)


def _changed_mask(one: Picture, other: Picture) -> Mask:
    """Return a mask that is 1 where two pictures differ, and in gaps between such pixels."""
    differs = np.asarray((cv2.absdiff(one, other).max(axis=2) > 0), np.uint8)
    return np.asarray(cv2.morphologyEx(differs, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8)), np.float32)
