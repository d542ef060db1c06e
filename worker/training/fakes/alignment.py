"""Alignment and comparison of two pictures of one scene, in one of which the face was swapped."""

from typing import Final

import cv2
import numpy as np

from worker.training.data.cache import CachedFace
from worker.training.fakes.pictures import Mask, Picture

NOISE: Final = 3.0
"""Mean difference, in grey levels, that compression alone makes between the halves of a pair."""
CHANGE: Final = 6.0
"""Grey levels beyond that at which a pixel counts as changed altogether."""


def align_real_to_fake(real: Picture, real_face: CachedFace, fake: Picture, fake_face: CachedFace) -> Picture:
    """Return *real* as if it had been cut out around the box of *fake*, which shows the same scene."""
    scales, offsets = [], []
    for face in (fake_face, real_face):
        scales.append(face.scale)
        offsets.append([face.box_px[place] - face.frame_box_px[place] * scales[-1] for place in (0, 1)])
    factor = scales[1] / scales[0]
    shift = [there - here * factor for here, there in zip(*offsets, strict=True)]
    if factor == 1.0:
        shift = [float(round(value)) for value in shift]  # Whole pixels: nothing is interpolated.
    matrix = np.array([[factor, 0.0, shift[0]], [0.0, factor, shift[1]]])
    height, width = fake.shape[:2]
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    moved = cv2.warpAffine(real, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(moved, np.uint8)


def measure_visible_difference(real: Picture, fake: Picture) -> Mask:
    """Return (H, W) in [0, 1]: where two pictures of one scene differ by more than compression explains."""
    levels = cv2.absdiff(real, fake).mean(axis=2).astype(np.float32)
    levels = cv2.GaussianBlur(levels, (0, 0), 0.02 * fake.shape[1])
    return np.asarray(np.clip((levels - NOISE) / CHANGE, 0.0, 1.0), np.float32)
