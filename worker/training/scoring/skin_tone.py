"""
An estimate of the lightness of skin in a picture, from two patches of the cheeks, for slicing results.

It is the individual typology angle, ``arctan((L* - 50) / b*)``, of Chardon, Cretois and Hourseau, "Skin colour
typology and suntanning pathways", International Journal of Cosmetic Science 13, 1991. There it is measured on skin
in a known light. Exposure, white balance, make-up and compression of a picture all change it, so it describes how
light a recording looks, not a person, and only three coarse buckets are made of it.
"""

import math
from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

LIGHT_DEG: Final = 41.0
"""Above it Chardon's classes are light and very light."""
DARK_DEG: Final = 10.0
"""Below it they are brown and dark; between the two, intermediate and tan."""
MIN_CHROMA: Final = 4.0
"""Smallest b*: with less yellow a picture is grey, or its white balance hides the colour of skin."""
MIN_EYE_DISTANCE: Final = 0.6
"""Smallest distance of the eyes relative to that from eyes to mouth: in a face turned further a cheek is hidden."""


def skin_tone_deg(picture: NDArray[np.uint8], landmarks_px: Sequence[tuple[float, float]]) -> float | None:
    """
    Measure the individual typology angle of a face.

    Args:
        picture: (H, W, 3) uint8 RGB.
        landmarks_px: Eyes, nose and corners of the mouth in it, the picture's left before its right.

    Returns:
        Degrees in (-90, 90), larger for lighter skin; None where the face is turned away or small, or where the
        cheeks are clipped, outside the picture or without colour.
    """
    eyes, mouth = np.array(landmarks_px[:2]), np.array(landmarks_px[3:5])
    height = float(np.linalg.norm(mouth.mean(0) - eyes.mean(0)))
    width = float(np.linalg.norm(eyes[1] - eyes[0]))
    side = round(0.3 * height)
    if side < 4 or width < MIN_EYE_DISTANCE * height:
        return None
    # Halfway down from eye to mouth, and outwards from there, past the nose and its shadow.
    outwards = (eyes[1] - eyes[0]) * 0.1
    centres = (eyes + mouth) / 2 + np.array([-outwards, outwards])
    patches = [_patch(picture, centre, side) for centre in centres]
    pixels = np.concatenate([patch.reshape(-1, 3) for patch in patches])
    if min(patch.size for patch in patches) == 0 or np.mean((pixels.min(1) < 4) | (pixels.max(1) > 251)) > 0.2:
        return None
    colours = cv2.cvtColor(pixels[None].astype(np.float32) / 255.0, cv2.COLOR_RGB2LAB)[0]
    lightness, _, yellow = np.median(colours, axis=0).tolist()
    return math.degrees(math.atan2(lightness - 50.0, yellow)) if yellow >= MIN_CHROMA else None


def _patch(picture: NDArray[np.uint8], centre: NDArray[np.float64], side: int) -> NDArray[np.uint8]:
    left, top = np.round(centre - side / 2).astype(int).tolist()
    if left < 0 or top < 0 or left + side > picture.shape[1] or top + side > picture.shape[0]:
        return picture[:0]
    return picture[top : top + side, left : left + side]
