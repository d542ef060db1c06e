"""
The processes that make pairs, and the transfer of their batches to the device.

Loaders are forked before this process uses CUDA: they start at once, whatever their number, and share the index of
the crops. Where CUDA is in use already, or where forks are not safe, a fork server starts them, and each reads the
index itself.
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

from worker.training.fakes.pair_stream import RealFakePairStream
from worker.training.fitting.timing import Timer, no_timer

Batch = tuple[Tensor, Tensor, Tensor]
PREFETCH = 4
"""Batches that each process prepares in advance."""


def start_loaders(pairs: RealFakePairStream, processes: int) -> Iterator[Batch]:
    """Start *processes* and yield their batches in order; with 0, make every batch in this process on demand."""
    # OpenCV's threads do not survive a fork; with a count of 1 it starts none.
    cv2.setNumThreads(1)
    loader = DataLoader(
        pairs,
        batch_size=None,
        num_workers=processes,
        prefetch_factor=PREFETCH if processes else None,
        multiprocessing_context=choose_context() if processes else None,
    )
    return cast("Iterator[Batch]", iter(loader))


class DeviceBatches:
    """
    Batches on the device, of which the next is transferred while the device works on the current one.

    Args:
        batches: Batches on CPU; pictures are bytes.
    """

    def __init__(self, batches: Iterator[Batch], device: torch.device, timer: Timer = no_timer) -> None:
        self._batches = batches
        self._device = device
        self._timer = timer
        self._prefetched: Batch | None = None
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call] # torch has no types there

    def next_batch(self) -> Batch:
        """Return the next batch on the device."""
        batch = self._prefetched or self._send_next()
        self._prefetched = None
        if self._stream is not None:
            current = torch.cuda.current_stream(self._device)
            current.wait_stream(self._stream)
            for tensor in batch:
                tensor.record_stream(current)
        return batch

    def prefetch(self) -> None:
        """Start the transfer of the next batch; call this while the device has queued work."""
        self._prefetched = self._prefetched or self._send_next()

    def _send_next(self) -> Batch:
        with self._timer("loaders"):
            batch = next(self._batches)
        with self._timer("transfer"):
            if self._stream is None:
                return cast("Batch", tuple(tensor.to(self._device) for tensor in batch))
            with torch.cuda.stream(self._stream):
                # torch keeps pinned memory, and reuses it when the copy is done.
                return cast("Batch", tuple(tensor.pin_memory().to(self._device, non_blocking=True) for tensor in batch))


def choose_context() -> BaseContext:
    """Return how loader processes start: forked, or by a fork server where CUDA is in use or it is not Linux."""
    is_in_use: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call] # torch has no types there
    if sys.platform == "linux" and not is_in_use:
        return multiprocessing.get_context("fork")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", RealFakePairStream.__module__])
    return context
