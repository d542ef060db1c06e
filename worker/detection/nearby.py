"""
Detection near known places: MTCNN's whole cascade, but only around faces that a neighbouring frame shows.

The pixels, windows and thresholds are those of detection in the whole frame. Around a known place, P-Net therefore
sees the same pyramid, proposes the same candidates, and R-Net and O-Net give the same box and landmarks.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worker.detection.faces import Box
from worker.detection.resampling import Picture, Table, WindowGrid, level_size, split_into_windows

SEARCHED_SIDES: Final = 3.0
"""Side of the square in which a face is searched, as a multiple of its own side."""
MARGIN_SIDES: Final = 1.0
"""Margin of pixels around that square for candidates that extend beyond it, as a multiple of the face's side."""
WINDOW_SIDES: Final = (0.35, 2.8)
"""Smallest and largest side of P-Net's windows, as multiples of the face's side."""
TILE_STEP_PX: Final = 12
"""Tiles of the pyramid have sides of multiples of this, so that P-Net gets few shapes."""
CELL_PX: Final = 12
STRIDE_PX: Final = 2
SAME_PLACE_SHIFT: Final = 0.2
SAME_PLACE_GROWTH: Final = 1.25
"""Two places are searched as one if they are closer than this share of a side and differ less than this in size."""


@dataclass(frozen=True, slots=True)
class Tile:
    """A rectangle of one level of a patch's pyramid."""

    patch: int
    scale: float
    row: int
    column: int
    rows: int
    columns: int
    """First row and column in the level, even, and the numbers of both."""


class Patches:
    """
    Parts of frames of one size around known places, which can be resampled as the whole frames would be.

    Args:
        frames: (H, W, 3) uint8 RGB each, of one size.
        places: Boxes around which each frame is searched.
        run: Maps a function, possibly with threads.
    """

    def __init__(
        self,
        frames: Sequence[Picture],
        places: Sequence[Sequence[Box]],
        run: Callable[..., Iterable[Any]] = map,
    ) -> None:
        self.height_px, self.width_px = frames[0].shape[:2]
        self._run = run
        owners: list[int] = []
        self._places: list[tuple[float, float, float]] = []
        self._regions: list[tuple[int, int, int, int]] = []
        for owner, boxes in enumerate(places):
            for x, y, side in _merge(boxes):
                half = side * (SEARCHED_SIDES / 2.0 + MARGIN_SIDES)
                left, top = max(0, math.floor(x - half)), max(0, math.floor(y - half))
                right, bottom = min(self.width_px, math.ceil(x + half)), min(self.height_px, math.ceil(y + half))
                if right > left and bottom > top:
                    owners.append(owner)
                    self._places.append((x, y, side))
                    self._regions.append((left, top, right, bottom))
        parts = [
            frames[owner][top:bottom, left:right]
            for owner, (left, top, right, bottom) in zip(owners, self._regions, strict=True)
        ]
        self._tables: list[Table] = list(run(lambda part: np.asarray(cv2.integral(part), np.int32), parts))
        self._bounds = np.array(self._regions, np.int64).reshape(-1, 4)
        self._frame_of = np.array(owners, np.int64)

    def tiles(self, scales: Sequence[float]) -> Iterator[tuple[list[Tile], NDArray[np.float32]]]:
        """Yield the tiles around all places at the fitting *scales*, grouped by shape: (N, rows, columns, 3)."""
        by_shape: dict[tuple[int, int], list[Tile]] = defaultdict(list)
        for patch, (x, y, side) in enumerate(self._places):
            for scale in scales:
                if WINDOW_SIDES[0] <= CELL_PX / scale / side <= WINDOW_SIDES[1]:
                    tile = self._place_tile(patch, x, y, side * SEARCHED_SIDES, scale)
                    if min(tile.rows, tile.columns) >= CELL_PX - 1:
                        by_shape[tile.rows, tile.columns].append(tile)
        for (rows, columns), tiles in by_shape.items():
            pictures = np.empty((len(tiles), rows, columns, 3), np.float32)

            def fill(number: int, tiles: list[Tile] = tiles, pictures: NDArray[np.float32] = pictures) -> None:
                self._cut_tile(tiles[number], pictures[number : number + 1])

            list(self._run(fill, range(len(tiles))))
            yield tiles, pictures

    def _place_tile(self, patch: int, x: float, y: float, extent: float, scale: float) -> Tile:
        height, width = level_size(self.height_px, self.width_px, scale)
        left, top, right, bottom = self._regions[patch]
        row, rows = _place(y, extent, top, bottom, self.height_px, height)
        column, columns = _place(x, extent, left, right, self.width_px, width)
        return Tile(patch, scale, row, column, rows, columns)

    def _cut_tile(self, tile: Tile, out: NDArray[np.float32]) -> None:
        height, width = level_size(self.height_px, self.width_px, tile.scale)
        left, top, _, _ = self._regions[tile.patch]
        above, below = (
            edges[None, tile.row : tile.row + tile.rows] - top
            for edges in split_into_windows(0, self.height_px, height)
        )
        before, after = (
            edges[None, tile.column : tile.column + tile.columns] - left
            for edges in split_into_windows(0, self.width_px, width)
        )
        WindowGrid(above, below, before, after).average(self._tables[tile.patch], out)

    def frames_of(self, owners: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the frame of each patch of *owners*."""
        return self._frame_of[owners]

    def keep_inside(self, boxes: Tensor, owners: Tensor) -> tuple[Tensor, Tensor]:
        """Drop the boxes that extend beyond their patch within the frame; (N, 5) boxes, and the (N,) patch of each."""
        edges = boxes[:, :4].trunc().to(torch.int64).numpy()
        size = (self.width_px, self.height_px)
        regions = self._bounds[owners.numpy()]
        begins, ends = np.maximum(edges[:, :2], 1) - 1, np.minimum(edges[:, 2:], size)
        kept = torch.from_numpy(((begins >= regions[:, :2]) & (ends <= regions[:, 2:])).all(axis=1))
        return boxes[kept], owners[kept]

    def crops(self, edges: NDArray[np.int64], owners: NDArray[np.int64], side_px: int) -> NDArray[np.float32]:
        """Cut rectangles out of the patches *owners*, as ``Resampler.crops``; *edges* are in pixels of the frame."""
        crops = np.empty((len(edges), side_px, side_px, 3), np.float32)
        offsets = self._bounds[owners][:, [0, 1, 0, 1]]
        left, top, right, bottom = (edges - offsets).T[..., None]
        rows, columns = split_into_windows(top, bottom, side_px), split_into_windows(left, right, side_px)

        def cut(patch: int) -> None:
            indexes = np.flatnonzero(owners == patch)
            part = np.empty((len(indexes), side_px, side_px, 3), np.float32)
            WindowGrid(*(bounds[indexes] for bounds in (*rows, *columns))).average(self._tables[patch], part)
            crops[indexes] = part

        list(self._run(cut, np.unique(owners)))
        return crops


def _merge(boxes: Sequence[Box]) -> list[tuple[float, float, float]]:
    """Return centre and side of the square around each box, without those in the same place as an earlier one."""
    kept: list[tuple[float, float, float]] = []
    for left, top, right, bottom in boxes:
        x, y, side = (left + right) / 2.0, (top + bottom) / 2.0, max(right - left, bottom - top, 1.0)
        if not any(
            math.hypot(x - other_x, y - other_y) < SAME_PLACE_SHIFT * min(side, other)
            and max(side, other) < SAME_PLACE_GROWTH * min(side, other)
            for other_x, other_y, other in kept
        ):
            kept.append((x, y, side))
    return kept


def _place(
    centre_px: float, extent_px: float, begin_px: int, end_px: int, frame_px: int, level_px: int
) -> tuple[int, int]:
    """
    Place a tile along one axis.

    Args:
        centre_px: Centre of the searched part of the frame.
        extent_px: Its length.
        begin_px: Begin of the patch.
        end_px: End of the patch.
        frame_px: Length of the frame.
        level_px: Length of the pyramid's level.

    Returns:
        First pixel of the tile in the level, and their number. P-Net looks at every second pixel, so the first is even;
        the number is odd only at the end of a level, where P-Net's pooling handles the last pixel as in the whole level.
    """
    ratio = level_px / frame_px
    length = math.ceil(max(extent_px * ratio, CELL_PX) / TILE_STEP_PX) * TILE_STEP_PX
    # Pixels of the level that are wholly within the patch.
    first = math.ceil(begin_px * ratio)
    first += first % 2
    beyond = level_px if end_px == frame_px else math.floor(end_px * ratio)
    begin = max(first, STRIDE_PX * round((centre_px * ratio - length / 2) / STRIDE_PX))
    if begin + length >= beyond:
        begin = max(first, (beyond - length + 1) // STRIDE_PX * STRIDE_PX)
        length = beyond - begin
        if beyond != level_px:
            length -= length % 2
    return begin, length
