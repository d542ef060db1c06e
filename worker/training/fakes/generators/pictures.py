"""Pictures of faces for painting networks: as tensors, at another size, and patches of them."""

from typing import Final

import cv2
import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from worker.training.fakes.pictures import Picture

PATCH_PX: Final = 128
"""Side of the pictures that networks are trained on."""


def to_tensor(pictures: NDArray[np.uint8]) -> Tensor:
    """Convert (B, H, W, 3) uint8 to (B, 3, H, W) in 0..1, channels last in memory."""
    planes = torch.tensor(pictures).permute(0, 3, 1, 2).to(torch.float32) / 255.0
    return planes.contiguous(memory_format=torch.channels_last)


def to_picture(planes: Tensor) -> Picture:
    """Convert (3, H, W) in about 0..1 to (H, W, 3) uint8."""
    return np.asarray(np.clip(planes.permute(1, 2, 0).numpy() * 255.0 + 0.5, 0, 255), np.uint8)


def resize(picture: Picture, width: int, height: int) -> Picture:
    """Resize *picture*: by averaging areas where it becomes smaller, cubic where it becomes larger."""
    if picture.shape[:2] == (height, width):
        return picture
    how = cv2.INTER_AREA if width < picture.shape[1] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(picture, (width, height), interpolation=how), np.uint8)


def draw_patch(picture: Picture, rng: Generator) -> Picture:
    """Draw a square of ``PATCH_PX``, mirrored half the time, from a picture that is at least as large."""
    y, x = (int(rng.integers(side - PATCH_PX + 1)) for side in picture.shape[:2])
    cut = picture[y : y + PATCH_PX, x : x + PATCH_PX]
    return cut[:, ::-1] if rng.random() < 0.5 else cut
