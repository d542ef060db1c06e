"""Building of crop caches without another process, which would import every library again for seconds."""

from collections.abc import Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager

import cv2
import pytest
import torch

from worker.training.data import cutting


class CallingProcess(Executor):
    """Does each task at once, with the arguments of a pool of processes."""

    def __init__(self, _processes, _context, initializer, initargs):
        self._start = lambda: initializer(*initargs)
        self._is_started = False

    def submit(self, fn, /, *args, **named):
        if not self._is_started:
            self._start()
            self._is_started = True
        future = Future()
        future.set_result(fn(*args, **named))
        return future


@contextmanager
def cut_here() -> Iterator[None]:
    """Let ``build_cache`` cut faces out in this process."""
    threads, cv2_threads = torch.get_num_threads(), cv2.getNumThreads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cutting, "ProcessPoolExecutor", CallingProcess)
        patch.setattr(cutting, "_cutter", None)
        yield
    torch.set_num_threads(threads)
    cv2.setNumThreads(cv2_threads)
