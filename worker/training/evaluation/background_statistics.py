"""Statistics of a picture outside the face, and of how it was cut and encoded."""

import struct
from collections.abc import Mapping
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from worker.detection.faces import Box
from worker.model.srm import DIVISORS, KERNELS
from worker.training.data.cache import CachedFace, CropCache
from worker.training.fakes.pictures import Landmarks, Picture

Background = NDArray[np.bool_]
Features = NDArray[np.float64]
ELLIPSE_SCALE: Final = 1.1
"""Scale of the blanked ellipses relative to those of the face's box and landmarks."""
SPREADING_PX: Final = 8
"""Distance, also blanked, over which blocks and filters spread the change of a swap."""
MIN_BACKGROUND_PX: Final = 400
"""Smallest background of a picture that is measured, in pixels."""
BLOCK_PX: Final = 8
"""Side of the blocks of JPEG and, mostly, H.264."""
PADDING: Final = 1
"""Largest difference of rows, in grey levels, where a crop repeats the edge of its frame beyond it."""
RESIDUALS: Final = [np.array(kernel, np.float32) / divisor for kernel, divisor in zip(KERNELS, DIVISORS, strict=True)]
PIXELS: Final[Mapping[str, tuple[str, ...]]] = {
    "colour": (
        *(f"{how} {plane}" for how in ("mean", "spread") for plane in ("red", "green", "blue")),
        *(f"luma {low}-{low + 31}" for low in range(0, 256, 32)),
    ),
    "residual": tuple(
        f"SRM {kernel} {what}" for kernel in ("3x3", "5x5", "line") for what in ("mean", "spread", "share above 3")
    ),
    "blocks": (
        *(f"{what} {way}" for way in ("rows", "columns") for what in ("8x8 grid", "step")),
        *(f"DCT {band}" for band in ("low", "middle", "high")),
    ),
}
"""Families of statistics of pixels outside the face."""
CLUES: Final[Mapping[str, tuple[str, ...]]] = {
    "cut": ("picture side", "face size", "box width", "box height", "box x", "box y", "beyond the frame"),
    "file": ("bytes a pixel", "header bytes", "luma quantisation", "chroma quantisation", "chroma sampling"),
}
"""Families of statistics that do not depend on pixels outside the face: how it was cut, and how the cache's file is
encoded, whose length depends on the face as well."""
NAMES: Final = tuple(name for family in (*PIXELS.values(), *CLUES.values()) for name in family)
PIXEL_NAMES: Final = tuple(name for family in PIXELS.values() for name in family)


def find_background(shape: tuple[int, ...], box: Box, landmarks: Landmarks) -> Background:
    """
    Find where a picture shows no face: outside an ellipse around the box, and outside one around the landmarks.

    Args:
        shape: Shape of the picture, (H, W, …).
        landmarks: Eyes, nose and corners of the mouth.

    Returns:
        (H, W), ``SPREADING_PX`` short of the face on every side.
    """
    marks = np.array(landmarks, np.float64)
    eyes, mouth = marks[:2].mean(axis=0), marks[3:5].mean(axis=0)
    down = mouth - eyes
    height = float(np.hypot(*down))
    angle = float(np.degrees(np.arctan2(down[1], down[0]))) - 90.0
    left, top, right, bottom = box
    face = np.zeros(shape[:2], np.uint8)
    # Above the eyes a forehead is about as high as it is from them to the mouth, and below that the chin three quarters
    # of it. A face is about three quarters as wide as high.
    half = 1.4 * height * ELLIPSE_SCALE
    _fill_ellipse(face, eyes + 0.35 * down, (0.75 * half, half), angle)
    sides = ((right - left) / 2 * ELLIPSE_SCALE, (bottom - top) / 2 * ELLIPSE_SCALE)
    _fill_ellipse(face, np.array([(left + right) / 2, (top + bottom) / 2]), sides, 0.0)
    return find_pixels_away_from(face, SPREADING_PX)


def pixel_statistics(picture: Picture, background: Background) -> Features | None:
    """
    Compute statistics of the pixels in *background* alone.

    Returns:
        Values of ``PIXEL_NAMES``: colours, residuals whose window is inside, steps across 8x8 grids, and the energy of
        the cosine transform of blocks that are inside; None where the background is too small.
    """
    inner = find_pixels_away_from(~background, 2)
    corners = _block_corners(background)
    if background.sum() < MIN_BACKGROUND_PX or inner.sum() < MIN_BACKGROUND_PX // 4 or len(corners) == 0:
        return None
    pixels = picture[background].astype(np.float64)
    luma = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    histogram = np.histogram(luma[background], bins=8, range=(0, 256))[0] / background.sum()
    values = [*pixels.mean(axis=0), *pixels.std(axis=0), *histogram]
    for kernel in RESIDUALS:
        residual = np.abs(cv2.filter2D(luma, cv2.CV_32F, kernel))[inner]
        values += [residual.mean(), residual.std(), (residual > 3).mean()]
    for axis in (0, 1):
        steps = np.abs(np.diff(luma, axis=axis))
        place = np.indices(steps.shape)[axis] % BLOCK_PX
        both = inner[tuple(slice(length) for length in steps.shape)]
        # By phase, since the offset of the grid of blocks in a crop is unknown.
        phases = [steps[both & (place == phase)] for phase in range(BLOCK_PX)]
        if min(len(phase) for phase in phases) == 0:
            return None
        means = [phase.mean() for phase in phases]
        values += [max(means) - np.mean(means), np.mean(means)]
    energy = np.mean([np.abs(cv2.dct(luma[y : y + BLOCK_PX, x : x + BLOCK_PX])) for y, x in corners], axis=0)
    order = np.indices((BLOCK_PX, BLOCK_PX)).sum(axis=0)
    values += [np.log1p(energy[(order >= low) & (order <= high)].mean()) for low, high in ((1, 3), (4, 7), (8, 14))]
    return np.array(values, np.float64)


def _fill_ellipse(face: Picture, middle: NDArray[np.float64], half: tuple[float, float], angle: float) -> None:
    centre = (float(middle[0]), float(middle[1]))
    cv2.ellipse(face, (centre, (2 * half[0], 2 * half[1]), angle), 1, -1)


def find_pixels_away_from(excluded: NDArray[Any], distance_px: int) -> Background:
    """Find the pixels without *excluded* ones within *distance_px*."""
    reach = np.ones((2 * distance_px + 1,) * 2, np.uint8)
    return np.asarray(cv2.dilate(excluded.astype(np.uint8), reach) == 0)


def _block_corners(background: Background) -> list[tuple[int, int]]:
    height, width = (side // BLOCK_PX for side in background.shape)
    blocks = background[: height * BLOCK_PX, : width * BLOCK_PX].reshape(height, BLOCK_PX, width, BLOCK_PX)
    return [(int(y) * BLOCK_PX, int(x) * BLOCK_PX) for y, x in np.argwhere(blocks.all(axis=(1, 3)))]


def find_shown_part(picture: Picture) -> Background:
    """Find where a picture shows its frame, and not the frame's edge repeated beyond it."""
    shown = np.ones(picture.shape[:2], np.bool_)
    for axis in (0, 1):
        lines = picture.astype(np.int16).swapaxes(0, axis)
        same = np.abs(np.diff(lines, axis=0)).max(axis=(1, 2)) <= PADDING
        differing = np.flatnonzero(~same)
        if len(differing):
            kept = np.zeros(picture.shape[axis], np.bool_)
            kept[differing[0] : differing[-1] + 2] = True
            shown &= kept[:, None] if axis == 0 else kept
    return shown


def measure_clues(cache: CropCache, face: CachedFace, picture: Picture, shown: Background) -> Features:
    """Compute the values of ``CLUES``."""
    side = picture.shape[0]
    left, top, right, bottom = face.box_px
    cut = [
        side,
        face.size_px,
        (right - left) / side,
        (bottom - top) / side,
        (left + right) / 2 / side,
        (top + bottom) / 2 / side,
        1.0 - float(shown.mean()),
    ]
    with (cache.folder / f"{face.shard}.tar").open("rb") as file:
        file.seek(face.offset)
        data = file.read(face.length)
    return np.array([*cut, len(data) / side**2, *_jpeg_clues(data)], np.float64)


def _jpeg_clues(data: bytes) -> list[float]:
    """Read bytes before the scan, means of two quantisation tables and sampling factors; zeros unless JPEG."""
    if not data.startswith(b"\xff\xd8"):
        return [0.0] * 4
    place, means, sampling = 2, [0.0, 0.0], 0.0
    while place + 4 <= len(data) and data[place] == 0xFF and data[place + 1] != 0xDA:
        marker, length = data[place + 1], struct.unpack_from(">H", data, place + 2)[0]
        segment = data[place + 4 : place + 2 + length]
        if marker == 0xDB:
            while len(segment) > 1:
                wide, number = 1 + (segment[0] >> 4), segment[0] & 15
                values = np.frombuffer(segment[1 : 1 + 64 * wide], ">u2" if wide == 2 else np.uint8)
                if number < 2:
                    means[number] = float(values.mean())
                segment = segment[1 + 64 * wide :]
        elif marker in {0xC0, 0xC1, 0xC2} and len(segment) > 7:
            sampling = float(segment[7])
        place += 2 + length
    return [float(place), *means, sampling]
