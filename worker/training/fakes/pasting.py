"""Pasting of a picture that a network painted back into the picture that it was cut from."""

from typing import Final

import cv2
import numpy as np

from worker.training.fakes.blending import Blend, mixed
from worker.training.fakes.generators.pictures import resized
from worker.training.fakes.pictures import Mask, Picture

Place = tuple[int, int, int, int]
"""Left, top, width and height in pixels."""
SOFT: Final = 0.12
"""Share of a pasted picture's shorter side over which its edges fade."""


def paste(target: Picture, painted: Picture, place: Place) -> Blend:
    """
    Paste *painted* into *target* with faded edges, as one-shot swappers paste the square that they painted.

    Args:
        target: (H, W, 3) uint8 RGB.
        painted: Picture of any size, which is resized to that of *place*.
        place: Within *target*.
    """
    width, height = place[2:]
    edge = max(1, round(SOFT * min(width, height) / 2))
    inner = np.zeros((height, width), np.float32)
    inner[edge : height - edge, edge : width - edge] = 1.0
    faded = cv2.GaussianBlur(inner, (0, 0), edge / 3)
    # The blur's tail is cut, so that the picture's outermost pixels are the target's.
    mask = np.zeros(target.shape[:2], np.float32)
    mask[_window(place)] = np.clip((faded - 0.01) / 0.98, 0.0, 1.0)
    return Blend(target, mixed(_laid_over(target, painted, place), target, mask), mask)


def lay_over(target: Picture, painted: Picture, place: Place) -> Blend:
    """
    Put *painted*, which equals *target* except for a part, in its place as it is; the mask is 1 where a pixel differs.

    Args:
        target: (H, W, 3) uint8 RGB.
        painted: Picture of the size of *place*.
        place: Within *target*.
    """
    fake = _laid_over(target, painted, place)
    return Blend(target, fake, _changed(target, fake))


def _laid_over(target: Picture, painted: Picture, place: Place) -> Picture:
    made = target.copy()
    made[_window(place)] = resized(painted, *place[2:])
    return made


def _window(place: Place) -> tuple[slice, slice]:
    x, y, width, height = place
    return slice(y, y + height), slice(x, x + width)


def _changed(one: Picture, other: Picture) -> Mask:
    """Return a mask that is 1 where two pictures differ, and in gaps between such pixels."""
    differs = np.asarray((cv2.absdiff(one, other).max(axis=2) > 0), np.uint8)
    return np.asarray(cv2.morphologyEx(differs, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8)), np.float32)
