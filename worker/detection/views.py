"""
What a cascade sees of its frames: the whole of them at several scales, and candidates at the size of a network.

Both are made from tables of sums (Crow, "Summed-area tables for texture mapping", SIGGRAPH 1984): the mean over any
rectangle of a frame comes from four places of its table, however large it is. The pictures are those that
facenet-pytorch's area interpolation makes; each pixel is the mean of the whole pixels that it touches. In main memory
threads work through the frames, on a device all are worked on at once.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

PIXEL_MIDDLE: Final = 127.5
PIXEL_RANGE: Final = 128.0
"""The networks see grey levels less the one, by the other."""

Picture = NDArray[np.uint8]
Table = NDArray[np.int32]
Whole = int | NDArray[np.int64]
Map = Callable[..., Iterable[Any]]
"""Like ``map``: does one thing after the other, or several at once."""


class Views(Protocol):
    """Frames of one size."""

    height_px: int
    width_px: int

    def pyramid(self, scales: Sequence[float]) -> "Sequence[NDArray[np.float32] | Tensor]":
        """The frames at each scale: (N, h, w, 3) in [-1, 1)."""

    def crops(
        self, edges: NDArray[np.int64], owners: NDArray[np.int64], side_px: int
    ) -> "NDArray[np.float32] | Tensor":
        """
        Parts of frames, brought to one size.

        Args:
            edges: (M, 4) left, top, right and bottom of each, inside the frame and not empty.
            owners: (M,) the frame of each.

        Returns:
            (M, S, S, 3) in [-1, 1).
        """


class HostViews:
    """
    Views in main memory.

    Args:
        frames: (H, W, 3) uint8 RGB each, of one size, one at least.
        run: How frames are worked through.
        tables: Of earlier views that are not used any more. Their memory is used again where it fits, since getting
            some takes longer than filling it, and those of these views are put in their place.
    """

    def __init__(self, frames: Sequence[Picture], run: Map = map, tables: list[Table] | None = None) -> None:
        self.height_px, self.width_px = frames[0].shape[:2]
        earlier = [] if tables is None else tables
        # (H + 1, W + 1, 3) each. 32 bits wrap around in large frames, and differences do back.
        self._tables: list[Table] = list(run(_sum_up, frames, [*earlier, *[None] * len(frames)][: len(frames)]))
        if tables is not None:
            tables[:] = self._tables
        self._run = run

    def pyramid(self, scales: Sequence[float]) -> list[NDArray[np.float32]]:
        """See ``Views``."""
        sizes = _level_sizes(self.height_px, self.width_px, scales)
        levels = [np.empty((len(self._tables), *size, 3), np.float32) for size in sizes]
        if levels:
            list(self._run(_shrink, self._tables, zip(*levels, strict=True)))
        return levels

    def crops(self, edges: NDArray[np.int64], owners: NDArray[np.int64], side_px: int) -> NDArray[np.float32]:
        """See ``Views``."""
        crops = np.empty((len(edges), side_px, side_px, 3), np.float32)

        def cut(owner: int) -> None:
            rows = np.flatnonzero(owners == owner)
            crops[rows] = _cut(self._tables[owner], edges[rows], side_px)

        list(self._run(cut, np.unique(owners)))
        return crops


class DeviceViews:
    """
    Views on a device.

    Args:
        frames: (H, W, 3) uint8 RGB each, of one size, one at least.
    """

    def __init__(self, frames: Sequence[Picture], device: torch.device) -> None:
        self.height_px, self.width_px = frames[0].shape[:2]
        self._device = device
        given = torch.from_numpy(np.stack(frames))
        if device.type == "cuda":
            given = given.pin_memory().to(device, non_blocking=True)
        sums = given.cumsum(1, dtype=torch.int32).cumsum(2, dtype=torch.int32)
        # (N, H + 1, W + 1, 3); wraps around as in main memory.
        self._table = torch.nn.functional.pad(sums, (0, 0, 1, 0, 1, 0))

    def pyramid(self, scales: Sequence[float]) -> list[Tensor]:
        """See ``Views``."""
        levels = []
        for rows, columns in _level_sizes(self.height_px, self.width_px, scales):
            (top, bottom), (left, right) = (
                self._windows(0, length, count) for length, count in ((self.height_px, rows), (self.width_px, columns))
            )
            bands = self._table[:, bottom] - self._table[:, top]
            sums = bands[:, :, right] - bands[:, :, left]
            means = sums / ((bottom - top)[:, None] * (right - left)).unsqueeze(-1)
            levels.append((means - PIXEL_MIDDLE) / PIXEL_RANGE)
        return levels

    def crops(self, edges: NDArray[np.int64], owners: NDArray[np.int64], side_px: int) -> Tensor:
        """See ``Views``."""
        left, top, right, bottom = edges.T[..., None]
        above, below = self._windows(top, bottom, side_px)
        before, after = self._windows(left, right, side_px)
        frame = torch.from_numpy(owners).to(self._device)[:, None, None]

        def sums(rows: Tensor, columns: Tensor) -> Tensor:
            return self._table[frame, rows[:, :, None], columns[:, None, :]]

        total = sums(below, after) - sums(above, after) - sums(below, before) + sums(above, before)
        areas = (below - above)[:, :, None] * (after - before)[:, None, :]
        return (total / areas.unsqueeze(-1) - PIXEL_MIDDLE) / PIXEL_RANGE

    def _windows(self, begin: Whole, end: Whole, count: int) -> tuple[Tensor, Tensor]:
        begins, ends = windows_over(begin, end, count)
        return torch.from_numpy(begins).to(self._device), torch.from_numpy(ends).to(self._device)


def windows_over(begin: Whole, end: Whole, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """
    *count* windows of whole pixels that cover those from *begin* to before *end*; neighbours may share one.

    Returns:
        Begins and ends, (count,); (M, count) each if *begin* and *end* are (M, 1).
    """
    steps = np.arange(count)
    length = end - begin
    return begin + steps * length // count, begin - (-(steps + 1) * length // count)


def _level_sizes(height_px: int, width_px: int, scales: Sequence[float]) -> list[tuple[int, int]]:
    return [(int(height_px * scale + 1), int(width_px * scale + 1)) for scale in scales]


def _sum_up(frame: Picture, memory: Table | None) -> Table:
    return np.asarray(cv2.integral(frame, memory), np.int32)


def _shrink(table: Table, levels: Sequence[NDArray[np.float32]]) -> None:
    """Write a frame in the sizes of *levels*, (h, w, 3) each, into them; a level costs what it has rows."""
    height, width = (side - 1 for side in table.shape[:2])
    table = table.reshape(height + 1, -1)
    for level in levels:
        rows, columns = level.shape[:2]
        (top, bottom), (left, right) = windows_over(0, height, rows), windows_over(0, width, columns)
        bands = np.take(table, bottom, axis=0)
        bands -= np.take(table, top, axis=0)
        bands = bands.reshape(rows, width + 1, 3)
        sums = np.take(bands, right, axis=1)
        sums -= np.take(bands, left, axis=1)
        areas = np.outer(bottom - top, right - left)[..., None]
        np.multiply(sums, (1 / PIXEL_RANGE / areas).astype(np.float32), out=level)
        np.subtract(level, PIXEL_MIDDLE / PIXEL_RANGE, out=level)


def _cut(table: Table, edges: NDArray[np.int64], side_px: int) -> NDArray[np.float32]:
    """The (M, 4) parts of a frame as (M, S, S, 3) pictures."""
    pixels = table.reshape(-1, 3)
    left, top, right, bottom = edges.T[..., None]
    above, below = windows_over(top, bottom, side_px)
    before, after = windows_over(left, right, side_px)

    def sums(rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Table:
        places = rows[:, :, None] * table.shape[1] + columns[:, None, :]
        taken: Table = np.take(pixels, places, axis=0)
        return taken

    total = sums(below, after)
    total -= sums(above, after)
    total -= sums(below, before)
    total += sums(above, before)
    areas = (below - above)[:, :, None] * (after - before)[:, None, :]
    pictures = total * (1 / PIXEL_RANGE / areas).astype(np.float32)[..., None]
    pictures -= PIXEL_MIDDLE / PIXEL_RANGE
    return pictures
