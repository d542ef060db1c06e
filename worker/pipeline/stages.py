"""How long the stages of scoring take, added up over a segment."""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")


class Stages:
    """Seconds of wall time by stage: ``decode`` is what scoring waits for, since decoding runs ahead of it."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Add the block's time to the stage *name*, however it ends."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - began

    def waiting(self, name: str, items: Iterable[Item]) -> Iterator[Item]:
        """The *items*, with the time that getting each takes added to the stage *name*."""
        iterator = iter(items)
        while True:
            with self.measure(name):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item
