"""Detected faces: their quality, and the crops for the network. Training uses the same crops."""

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from shared.manifests import Preprocessing

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels of the displayed frame; parts may lie outside it."""

SHARPNESS_SIDE_PX: Final = 96
"""Faces are scaled to this size before their sharpness is measured, so that it does not depend on their size."""


@dataclass(frozen=True, slots=True)
class DetectedFace:
    """One face in one frame."""

    box_px: Box
    landmarks_px: tuple[tuple[float, float], ...]
    """Eyes, nose and corners of the mouth as (x, y); of each pair, the one on the left of the picture comes first."""
    confidence: float
    """O-Net's probability, in [0, 1]."""

    @property
    def area_px(self) -> float:
        """Area of the box, in square pixels."""
        left, top, right, bottom = self.box_px
        return max(0.0, right - left) * max(0.0, bottom - top)


@dataclass(frozen=True, slots=True)
class FaceQuality:
    """Measures that decide whether a face can be scored."""

    size_px: float
    """The smaller side of the box, clipped to the frame."""
    sharpness: float
    """Variance of the Laplacian of the face's luma at 96 px; 0 for a flat picture."""
    luma: float
    """Mean luma of the face, in [0, 255]."""


def measure_quality(frame: NDArray[np.uint8], face: DetectedFace) -> FaceQuality:
    """
    Measure the quality of a face.

    Args:
        frame: The (H, W, 3) uint8 RGB frame in which *face* was found.
    """
    left, top, right, bottom = _clip_to_frame(face.box_px, frame.shape[1], frame.shape[0])
    if right <= left or bottom <= top:
        return FaceQuality(0.0, 0.0, 0.0)
    grey = cv2.cvtColor(frame[top:bottom, left:right], cv2.COLOR_RGB2GRAY)
    luma = _resize(np.asarray(grey, np.uint8), SHARPNESS_SIDE_PX)
    return FaceQuality(
        size_px=float(min(right - left, bottom - top)),
        sharpness=float(cv2.Laplacian(luma, cv2.CV_32F).var()),
        luma=float(luma.mean()),
    )


def quality_problem(size_px: float, sharpness: float, preprocessing: Preprocessing) -> str | None:
    """Return why a face cannot be scored, as ``FaceResult.problem`` names it; None if it can."""
    if size_px < preprocessing.min_face_px:
        return "face_too_small"
    if sharpness < preprocessing.min_sharpness:
        return "face_too_blurred"
    return None


def square_around(box: Box, margin: float) -> tuple[int, int, int]:
    """Return left, top and side in pixels of the square that ``crop_face`` cuts out; it may exceed the frame."""
    left, top, right, bottom = box
    half = max(right - left, bottom - top) * (0.5 + margin)
    side = max(1, round(2 * half))
    return round((left + right) / 2 - half), round((top + bottom) / 2 - half), side


def crop_face(frame: NDArray[np.uint8], box: Box, *, size_px: int, margin: float) -> NDArray[np.uint8]:
    """
    Cut a square around a face out of its frame.

    Args:
        frame: (H, W, 3) uint8 RGB.
        margin: Margin on each side, as a share of the box's larger side.

    Returns:
        (size_px, size_px, 3) uint8 RGB. Outside the frame its edge pixels are repeated.
    """
    x, y, side = square_around(box, margin)
    height, width = frame.shape[:2]
    part = frame[max(0, y) : max(0, min(y + side, height)), max(0, x) : max(0, min(x + side, width))]
    if part.size == 0:
        return np.zeros((size_px, size_px, 3), np.uint8)
    before_y, before_x = max(0, -y), max(0, -x)
    after_y, after_x = side - before_y - part.shape[0], side - before_x - part.shape[1]
    if before_y or before_x or after_y or after_x:
        bordered = cv2.copyMakeBorder(part, before_y, after_y, before_x, after_x, cv2.BORDER_REPLICATE)
        part = np.asarray(bordered, np.uint8)
    return _resize(part, size_px)


def _resize(picture: NDArray[np.uint8], side_px: int) -> NDArray[np.uint8]:
    # Area interpolation avoids aliasing when a picture is shrunk; to enlarge one, it would only repeat pixels.
    how = cv2.INTER_AREA if min(picture.shape[:2]) >= side_px else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, (side_px, side_px), interpolation=how), np.uint8)


def _clip_to_frame(box: Box, width: int, height: int) -> tuple[int, int, int, int]:
    left, top, right, bottom = box
    return max(0, round(left)), max(0, round(top)), min(width, round(right)), min(height, round(bottom))
