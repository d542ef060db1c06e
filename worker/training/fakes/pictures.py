"""Types of pictures, of masks over them, and of the landmarks of the face in them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
"""(H, W, 3) RGB."""
Mask = NDArray[np.float32]
"""(H, W) in [0, 1]: 0 where the target stays, 1 where the source is seen."""
Landmarks = Sequence[tuple[float, float]]
"""MTCNN's five in pixels, eyes, nose, corners of the mouth; the one further left in the picture comes first."""
