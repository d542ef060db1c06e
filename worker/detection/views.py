"""
What a cascade sees of its frames: the whole of them at several scales, and candidates at the size of a network.

There are two ways to the same pictures. In main memory OpenCV cuts and shrinks, one frame a thread. On a device tables
of sums (Crow, "Summed-area tables for texture mapping", SIGGRAPH 1984) give every mean over a rectangle from four of
their places, so that all candidates of all frames are cut at once.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

PIXEL_MIDDLE: Final = 127.5
PIXEL_RANGE: Final = 128.0
"""The networks see grey levels less the one, by the other."""

Picture = NDArray[np.uint8]
Map = Callable[..., Iterable[None]]
"""Like ``map``: does one thing after the other, or several at once."""


class Views(Protocol):
    """Frames of one size."""

    height_px: int
    width_px: int

    def pyramid(self, scales: Sequence[float]) -> "Sequence[NDArray[np.float32] | Tensor]":
        """The frames at each scale: (N, h, w, 3) in [-1, 1)."""

    def crops(
        self, edges: NDArray[np.int64], owners: NDArray[np.int64], side_px: int
    ) -> "NDArray[np.float32] | NDArray[np.uint8] | Tensor":
        """
        Parts of frames, brought to one size.

        Args:
            edges: (M, 4) left, top, right and bottom of each, inside the frame and not empty.
            owners: (M,) the frame of each.

        Returns:
            (M, S, S, 3) grey levels.
        """


class HostViews:
    """
    Views in main memory.

    Args:
        frames: (H, W, 3) uint8 RGB each, of one size, one at least.
        run: How frames are worked through.
    """

    def __init__(self, frames: Sequence[Picture], run: Map = map) -> None:
        self.height_px, self.width_px = frames[0].shape[:2]
        self._frames = [Halves(frame) for frame in frames]
        self._run = run

    def pyramid(self, scales: Sequence[float]) -> list[NDArray[np.float32]]:
        """See ``Views``; as facenet-pytorch's, each pixel is the mean of the whole pixels that it touches."""
        sizes = _level_sizes(self.height_px, self.width_px, scales)
        levels = [np.empty((len(self._frames), *size, 3), np.float32) for size in sizes]
        if levels:
            list(self._run(_shrink, [frame.whole for frame in self._frames], zip(*levels, strict=True)))
        return levels

    def crops(self, edges: NDArray[np.int64], owners: NDArray[np.int64], side_px: int) -> NDArray[np.uint8]:
        """See ``Views``; they are cut from the frame or from a halved view of it, and rounded."""
        crops = np.empty((len(edges), side_px, side_px, 3), np.uint8)

        def cut(owner: int) -> None:
            # A thread has a frame to itself, so that none is halved twice.
            for row in np.flatnonzero(owners == owner):
                left, top, right, bottom = edges[row]
                part = self._frames[owner].part(left, top, right, bottom, side_px)
                cv2.resize(part, (side_px, side_px), dst=crops[row], interpolation=_interpolation(part, side_px))

        list(self._run(cut, np.unique(owners)))
        return crops


class DeviceViews:
    """
    Views on a device; what they show is exactly what facenet-pytorch's area interpolation shows.

    Args:
        frames: (H, W, 3) uint8 RGB each, of one size, one at least.
    """

    def __init__(self, frames: Sequence[Picture], device: torch.device) -> None:
        self.height_px, self.width_px = frames[0].shape[:2]
        self._device = device
        given = torch.from_numpy(np.stack(frames))
        if device.type == "cuda":
            given = given.pin_memory().to(device, non_blocking=True)
        # 32 bits wrap around in large frames, and differences do back.
        sums = given.cumsum(1, dtype=torch.int32).cumsum(2, dtype=torch.int32)
        self._table = torch.nn.functional.pad(sums, (0, 0, 1, 0, 1, 0))  # (N, H + 1, W + 1, 3)

    def pyramid(self, scales: Sequence[float]) -> list[Tensor]:
        """See ``Views``."""
        levels = []
        for rows, columns in _level_sizes(self.height_px, self.width_px, scales):
            (top, bottom), (left, right) = (
                (torch.from_numpy(edge).to(self._device) for edge in windows_over(length, count))
                for length, count in ((self.height_px, rows), (self.width_px, columns))
            )
            bands = self._table[:, bottom] - self._table[:, top]
            sums = bands[:, :, right] - bands[:, :, left]
            means = sums / ((bottom - top)[:, None] * (right - left)).unsqueeze(-1)
            levels.append((means - PIXEL_MIDDLE) / PIXEL_RANGE)
        return levels

    def crops(self, edges: NDArray[np.int64], owners: NDArray[np.int64], side_px: int) -> Tensor:
        """See ``Views``."""
        left, top, right, bottom = torch.from_numpy(edges).to(self._device).T
        frame = torch.from_numpy(owners).to(self._device)[:, None, None]
        steps = torch.arange(side_px, device=self._device)

        def windows(begin: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
            lengths = (end - begin)[:, None]
            return begin[:, None] + steps * lengths // side_px, begin[:, None] - (-(steps + 1) * lengths // side_px)

        (above, below), (before, after) = windows(top, bottom), windows(left, right)

        def sums(rows: Tensor, columns: Tensor) -> Tensor:
            return self._table[frame, rows[:, :, None], columns[:, None, :]]

        total = sums(below, after) - sums(above, after) - sums(below, before) + sums(above, before)
        areas = (below - above)[:, :, None] * (after - before)[:, None, :]
        return total / areas.unsqueeze(-1)


class Halves:
    """
    A frame, and the same at a half, a quarter and so on of its size, each made when it is first asked for.

    Candidates are cut out of the smallest that will do. Halving is the one way of shrinking by area that OpenCV does
    quickly.
    """

    def __init__(self, frame: Picture) -> None:
        self._height_px, self._width_px = frame.shape[:2]
        self._views = [frame]

    @property
    def whole(self) -> Picture:
        """The frame itself."""
        return self._views[0]

    def part(self, left: int, top: int, right: int, bottom: int, side_px: int) -> Picture:
        """What lies within these edges, at least twice as large as *side_px* if it is so in the frame."""
        side = min(right - left, bottom - top)
        halvings = int(math.log2(side / (2 * side_px))) if side > 2 * side_px else 0
        view = self._halved(halvings)
        across, down = view.shape[1] / self._width_px, view.shape[0] / self._height_px
        return view[int(top * down) : math.ceil(bottom * down), int(left * across) : math.ceil(right * across)]

    def _halved(self, times: int) -> Picture:
        while len(self._views) <= times:
            last = self._views[-1]
            # An odd side is not halved exactly, so that the view still shows the whole frame.
            size = ((last.shape[1] + 1) // 2, (last.shape[0] + 1) // 2)
            self._views.append(np.asarray(cv2.resize(last, size, interpolation=cv2.INTER_AREA), np.uint8))
        return self._views[times]


def windows_over(length: int, count: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Begins and ends of *count* windows of whole pixels that cover *length* pixels, neighbours overlapping by one."""
    steps = np.arange(count)
    return steps * length // count, -(-(steps + 1) * length // count)


def _level_sizes(height_px: int, width_px: int, scales: Sequence[float]) -> list[tuple[int, int]]:
    return [(int(height_px * scale + 1), int(width_px * scale + 1)) for scale in scales]


def _shrink(frame: Picture, levels: Sequence[NDArray[np.float32]]) -> None:
    """Write *frame* in the sizes of *levels*, (h, w, 3) each, into them; a level costs what it has rows."""
    height, width = frame.shape[:2]
    table = cv2.integral(frame).reshape(height + 1, -1)  # Wraps around in large frames, and differences do back.
    for level in levels:
        rows, columns = level.shape[:2]
        (top, bottom), (left, right) = windows_over(height, rows), windows_over(width, columns)
        bands = np.take(table, bottom, axis=0)
        bands -= np.take(table, top, axis=0)
        bands = bands.reshape(rows, width + 1, 3)
        sums = np.take(bands, right, axis=1)
        sums -= np.take(bands, left, axis=1)
        areas = np.outer(bottom - top, right - left)[..., None]
        np.multiply(sums, (1 / PIXEL_RANGE / areas).astype(np.float32), out=level)
        np.subtract(level, PIXEL_MIDDLE / PIXEL_RANGE, out=level)


def _interpolation(picture: Picture, side_px: int) -> int:
    # Area interpolation degenerates to nearest neighbour when it enlarges.
    return cv2.INTER_AREA if min(picture.shape[:2]) >= side_px else cv2.INTER_LINEAR
