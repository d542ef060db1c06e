"""Wall time of the stages of scoring, summed over a segment."""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")


class Stages:
    """Seconds of wall time by stage. ``decode`` is only the time that scoring waits, since decoding runs ahead."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Add the block's time to the stage *name*, also if it raises."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - began

    def measure_iteration(self, name: str, items: Iterable[Item]) -> Iterator[Item]:
        """Yield *items*; add the time that getting each takes to the stage *name*."""
        iterator = iter(items)
        while True:
            with self.measure(name):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item
