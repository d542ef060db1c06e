"""The cost of a step: seconds by part, and the number of synchronisations with the device."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Final, Literal

import torch
from torch.utils._python_dispatch import TorchDispatchMode

Part = Literal["loaders", "transfer", "teacher", "augmentation", "forward", "backward", "optimiser", "average"]
Timer = Callable[[Part], AbstractContextManager[None]]
SYNCHRONISING_OPERATIONS: Final = frozenset({"_local_scalar_dense", "equal", "is_nonzero", "nonzero", "masked_select"})
"""Operations that return a number, or a shape, which only the device knows, to the host."""


def no_timer(_part: Part) -> AbstractContextManager[None]:
    """Measure nothing."""
    return nullcontext()


class PartTimer:
    """Adds up the seconds of each part, with a synchronisation at both ends, so that parts do not overlap."""

    def __init__(self) -> None:
        self.seconds: dict[Part, float] = defaultdict(float)

    @contextmanager
    def __call__(self, part: Part) -> Iterator[None]:
        """Add the time inside the context to *part*."""
        _await_device()
        began = time.perf_counter()
        yield
        _await_device()
        self.seconds[part] += time.perf_counter() - began


# torch has no public name for it, and documents this one.
class SynchronisationCounter(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch has no types there
    """
    Counts, while it is entered, the operations of this thread for which the host would have to wait for a GPU.

    It counts them on CPU too, where nothing waits, so that a test without a GPU sees a step that would stall one.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count *func* if it synchronises, and call it."""
        self.count += func.overloadpacket.__name__ in SYNCHRONISING_OPERATIONS
        return func(*args, **(kwargs or {}))


def _await_device() -> None:
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call] # torch has no types there
        torch.cuda.synchronize()
