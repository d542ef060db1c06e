"""The threads with which PyTorch computes on a processor."""

import torch

from worker.cores import available_cores


def usable_threads() -> int:
    """Return the number of PyTorch's threads now, or of the cores that this process may use if those are fewer."""
    return min(torch.get_num_threads(), available_cores())


def bound_threads(threads: int | None = None) -> None:
    """
    Let PyTorch compute with *threads*; without a number, with as many as this process may use.

    PyTorch itself starts threads for all cores of the machine, whatever the limit of the container, and they would stop
    each other.
    """
    torch.set_num_threads(threads or usable_threads())
