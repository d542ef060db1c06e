"""
The processes that make couples, and the way of their batches to the device.

Loaders are forked, before this process has touched CUDA: they start in an instant, whatever their number, and share
the index of the crops. Where CUDA is in use already, or where forks are not safe, a server that was started afresh
forks them, and each reads the index by itself, all at one time.
"""

import multiprocessing
import sys
from collections.abc import Iterator
from multiprocessing.context import BaseContext
from typing import cast

import cv2
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from worker.training.fakes.couples import Couples
from worker.training.fitting.stopwatch import Watch, unwatched

Batch = tuple[Tensor, Tensor, Tensor]
PREFETCH = 4
"""Batches that each process makes ahead."""


def start_loaders(couples: Couples, processes: int) -> Iterator[Batch]:
    """Start *processes*, or none to make every batch when it is asked for, and give their batches in order."""
    # OpenCV's threads do not survive a fork; a single one is none.
    cv2.setNumThreads(1)
    loader = DataLoader(
        couples,
        batch_size=None,
        num_workers=processes,
        prefetch_factor=PREFETCH if processes else None,
        multiprocessing_context=_context() if processes else None,
    )
    return cast("Iterator[Batch]", iter(loader))


class Feed:
    """
    Batches on their device, the next of them on its way while the device works on the one before.

    Args:
        batches: On CPU; pictures are bytes there and on their way.
    """

    def __init__(self, batches: Iterator[Batch], device: torch.device, watch: Watch = unwatched) -> None:
        self._batches = batches
        self._device = device
        self._watch = watch
        self._ahead: Batch | None = None
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call] # torch has no types there

    def take(self) -> Batch:
        """The next batch."""
        batch = self._ahead or self._sent()
        self._ahead = None
        if self._stream is not None:
            current = torch.cuda.current_stream(self._device)
            current.wait_stream(self._stream)
            for tensor in batch:
                tensor.record_stream(current)
        return batch

    def advance(self) -> None:
        """Send the batch after the one that was taken; to be called once the device has something to do."""
        self._ahead = self._ahead or self._sent()

    def _sent(self) -> Batch:
        with self._watch("loaders"):
            batch = next(self._batches)
        with self._watch("transfer"):
            if self._stream is None:
                return cast("Batch", tuple(tensor.to(self._device) for tensor in batch))
            with torch.cuda.stream(self._stream):
                # Pinned memory is kept by torch, and given out anew when the copy is done.
                return cast("Batch", tuple(tensor.pin_memory().to(self._device, non_blocking=True) for tensor in batch))


def _context() -> BaseContext:
    is_in_use: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call] # torch has no types there
    if sys.platform == "linux" and not is_in_use:
        return multiprocessing.get_context("fork")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", Couples.__module__])
    return context
