"""One decoded picture."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Picture:
    """Pixels, and the size of what they were made from."""

    pixels: NDArray[np.uint8]
    """(H, W, 3) RGB, upright; smaller than the picture itself where that has more pixels than are looked at."""
    full_width_px: int
    full_height_px: int

    @property
    def scale(self) -> tuple[float, float]:
        """Pixels of the full size to one of *pixels*, across and down."""
        height_px, width_px = self.pixels.shape[:2]
        return self.full_width_px / width_px, self.full_height_px / height_px
