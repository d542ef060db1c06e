"""
What a cascade sees of its frames: the whole of them at several scales, and candidates at the size of a network.

Both are made from tables of sums (Crow, "Summed-area tables for texture mapping", SIGGRAPH 1984): the mean over any
rectangle of a frame comes from four places of its table, however large it is. The pictures are those that
facenet-pytorch's area interpolation makes; each pixel is the mean of the whole pixels that it touches. In main memory
threads work through the frames, on a device all are worked on at once.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, Final, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

PIXEL_OFFSET: Final = 127.5
PIXEL_SCALE: Final = 128.0
"""The networks see grey levels less the one, by the other."""

BLOCK_PIXELS: Final = 16 * 1024
MAX_CACHED_PIXELS: Final = 3840 * 2160
"""Of frames up to this it is kept where the pyramid's pixels come from: 25 MB at a smallest face of 40 px."""
MAX_REMAP_SIDE_PX: Final = 32766
"""Sides of tables up to this fit the short whole numbers by which OpenCV finds pixels."""

Picture = NDArray[np.uint8]
Table = NDArray[np.int32]
PixelIndexes = NDArray[np.int16] | NDArray[np.int64]
IntOrArray = int | NDArray[np.int64]
MapFunction = Callable[..., Iterable[Any]]
"""Like ``map``: does one thing after the other, or several at once."""


class Resampler(Protocol):
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


class CPUResampler:
    """
    Resampler in main memory.

    Args:
        frames: (H, W, 3) uint8 RGB each, of one size, one at least.
        run: How frames are worked through.
        tables: Of earlier views that are not used any more. Their memory is used again where it fits, since getting
            some takes longer than filling it, and those of these views are put in their place.
    """

    def __init__(self, frames: Sequence[Picture], run: MapFunction = map, tables: list[Table] | None = None) -> None:
        self.height_px, self.width_px = frames[0].shape[:2]
        earlier = [] if tables is None else tables
        # (H + 1, W + 1, 3) each. 32 bits wrap around in large frames, and differences do back.
        self._tables: list[Table] = list(run(_integrate, frames, [*earlier, *[None] * len(frames)][: len(frames)]))
        if tables is not None:
            tables[:] = self._tables
        self._run = run

    def pyramid(self, scales: Sequence[float]) -> list[NDArray[np.float32]]:
        """See ``Resampler``."""
        sizes = _level_sizes(self.height_px, self.width_px, scales)
        make = _make_grids if self.height_px * self.width_px <= MAX_CACHED_PIXELS else _make_grids.__wrapped__
        grids = make(self.height_px, self.width_px, tuple(sizes))
        levels = [np.empty((len(self._tables), *size, 3), np.float32) for size in sizes]

        def shrink(index: int) -> None:
            for grid, level in zip(grids, levels, strict=True):
                grid.average(self._tables[index], level[index : index + 1])

        list(self._run(shrink, range(len(self._tables))))
        return levels

    def crops(self, edges: NDArray[np.int64], owners: NDArray[np.int64], side_px: int) -> NDArray[np.float32]:
        """See ``Resampler``."""
        crops = np.empty((len(edges), side_px, side_px, 3), np.float32)

        left, top, right, bottom = edges.T[..., None]
        rows, columns = split_into_windows(top, bottom, side_px), split_into_windows(left, right, side_px)

        def cut(owner: int) -> None:
            mine = np.flatnonzero(owners == owner)
            cut_out = np.empty((len(mine), side_px, side_px, 3), np.float32)
            _WindowGrid(*(place[mine] for place in (*rows, *columns))).average(self._tables[owner], cut_out)
            crops[mine] = cut_out

        list(self._run(cut, np.unique(owners)))
        return crops


class TorchResampler:
    """
    Resampler on a device.

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
        """See ``Resampler``."""
        levels = []
        for rows, columns in _level_sizes(self.height_px, self.width_px, scales):
            (top, bottom), (left, right) = (
                self._windows(0, length, count) for length, count in ((self.height_px, rows), (self.width_px, columns))
            )
            bands = self._table[:, bottom] - self._table[:, top]
            sums = bands[:, :, right] - bands[:, :, left]
            means = sums / ((bottom - top)[:, None] * (right - left)).unsqueeze(-1)
            levels.append((means - PIXEL_OFFSET) / PIXEL_SCALE)
        return levels

    def crops(self, edges: NDArray[np.int64], owners: NDArray[np.int64], side_px: int) -> Tensor:
        """See ``Resampler``."""
        left, top, right, bottom = edges.T[..., None]
        above, below = self._windows(top, bottom, side_px)
        before, after = self._windows(left, right, side_px)
        frame = torch.from_numpy(owners).to(self._device)[:, None, None]

        def sums(rows: Tensor, columns: Tensor) -> Tensor:
            return self._table[frame, rows[:, :, None], columns[:, None, :]]

        total = sums(below, after) - sums(above, after) - sums(below, before) + sums(above, before)
        areas = (below - above)[:, :, None] * (after - before)[:, None, :]
        return (total / areas.unsqueeze(-1) - PIXEL_OFFSET) / PIXEL_SCALE

    def _windows(self, begin: IntOrArray, end: IntOrArray, count: int) -> tuple[Tensor, Tensor]:
        begins, ends = split_into_windows(begin, end, count)
        return torch.from_numpy(begins).to(self._device), torch.from_numpy(ends).to(self._device)


def split_into_windows(begin: IntOrArray, end: IntOrArray, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
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


def _integrate(frame: Picture, memory: Table | None) -> Table:
    return np.asarray(cv2.integral(frame, memory), np.int32)


class _WindowGrid:
    """
    Rectangles of a frame, one for each pixel of one or several smaller pictures.

    Args:
        top: (M, R) first row of each row of rectangles of each picture.
        bottom: Likewise, the row after the last.
        left: (M, C) first columns.
        right: Likewise, the columns after the last.
    """

    def __init__(
        self, top: NDArray[np.int64], bottom: NDArray[np.int64], left: NDArray[np.int64], right: NDArray[np.int64]
    ) -> None:
        self._corners = [_corner_pixels(rows, columns) for columns in (right, left) for rows in (bottom, top)]
        # (M, R, 1) and (M, 1, 3 * C): what each sum is multiplied by, to be a mean in the networks' range.
        self._by_row = (1 / PIXEL_SCALE / (bottom - top)).astype(np.float32)[:, :, None]
        self._by_column = np.repeat((1 / (right - left)).astype(np.float32), 3, axis=1)[:, None, :]

    def average(self, table: Table, out: NDArray[np.float32]) -> None:
        """Write the mean of each rectangle, in [-1, 1), into *out*, (M, R, C, 3)."""
        count, height, width = out.shape[:3]
        # A few rows of one picture, or a few pictures, at a time stay in the processor's cache.
        rows_step = min(height, max(1, BLOCK_PIXELS // width))
        step = max(1, BLOCK_PIXELS // (width * height))
        memory = [np.empty((min(step, count), rows_step, width, 3), np.int32) for _ in self._corners]
        for begin in range(0, count, step):
            for first in range(0, height, rows_step):
                place = slice(begin, begin + step), slice(first, first + rows_step)
                part = out[place]
                sums = [whole[: part.shape[0], : part.shape[1]] for whole in memory]
                for corner, taken in zip(self._corners, sums, strict=True):
                    _gather_pixels(table, corner[place], taken)
                below_right, above_right, below_left, above_left = sums
                below_right -= above_right
                below_right -= below_left
                below_right += above_left
                np.copyto(part, below_right, casting="unsafe")
                flat = part.reshape(*part.shape[:2], -1)
                flat *= self._by_row[place]
                flat *= self._by_column[place[0]]
                flat -= np.float32(PIXEL_OFFSET / PIXEL_SCALE)


@lru_cache(maxsize=1)
def _make_grids(height_px: int, width_px: int, sizes: tuple[tuple[int, int], ...]) -> list[_WindowGrid]:
    """Of whole frames: those of a video are all alike."""
    return [
        _WindowGrid(
            *(
                whole[None]
                for whole in (*split_into_windows(0, height_px, rows), *split_into_windows(0, width_px, columns))
            )
        )
        for rows, columns in sizes
    ]


def _corner_pixels(rows: NDArray[np.int64], columns: NDArray[np.int64]) -> PixelIndexes:
    """Column and row for each pixel of M pictures: (M, R, C, 2)."""
    fits = max(rows.max(initial=0), columns.max(initial=0)) <= MAX_REMAP_SIDE_PX
    places = np.empty((*rows.shape, columns.shape[-1], 2), np.int16 if fits else np.int64)
    places[..., 0], places[..., 1] = columns[:, None, :], rows[:, :, None]
    return places


def _gather_pixels(table: Table, places: PixelIndexes, out: NDArray[np.int32]) -> None:
    """Pixels of the table at *places*, (M, R, C, 2), into *out*, (M, R, C, 3)."""
    if places.dtype == np.int16 and max(table.shape) <= MAX_REMAP_SIDE_PX:
        # OpenCV copies pixels of twelve bytes several times as fast as numpy. It knows no whole numbers of 32 bits,
        # but nothing is reckoned with them here. Pictures stand below each other, since it knows one at a time.
        # Its types do not tell that short whole numbers need no second map.
        cv2.remap(  # type: ignore[call-overload]
            table.view(np.float32),
            places.reshape(-1, *places.shape[2:]),
            None,
            cv2.INTER_NEAREST,
            dst=out.reshape(-1, *out.shape[2:]).view(np.float32),
        )
    else:
        rows, columns = places[..., 1].astype(np.int64), places[..., 0]
        np.take(table.reshape(-1, 3), rows * table.shape[1] + columns, axis=0, out=out, mode="clip")
