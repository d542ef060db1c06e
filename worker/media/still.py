"""One decoded picture."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Picture:
    """Pixels of a picture, and its size before it was scaled down."""

    pixels: NDArray[np.uint8]
    """(H, W, 3) RGB, upright; scaled down if the picture is very large."""
    full_width_px: int
    full_height_px: int

    @property
    def scale(self) -> tuple[float, float]:
        """Ratio of the full size to that of *pixels*, across and down."""
        height_px, width_px = self.pixels.shape[:2]
        return self.full_width_px / width_px, self.full_height_px / height_px
