"""Slots that limit how many costly answers a process makes at a time."""

from collections import Counter
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore, Lock

from api.errors import APIError
from shared.errors import Code


def take_slot(slots: BoundedSemaphore, *, refusal: str, retry_after_s: int, wait_s: float = 0.0) -> BoundedSemaphore:
    """
    Take one of *slots*, for its caller to release: clients that read slowly must not take every thread.

    Args:
        refusal: The sentence of the refusal, without the advice to retry.
        retry_after_s: When to retry.
        wait_s: How long to wait for a slot.

    Raises:
        APIError: ``overloaded``: all are taken.
    """
    if not slots.acquire(timeout=wait_s):
        headers = {"Retry-After": str(retry_after_s)}
        raise APIError(Code.OVERLOADED, f"{refusal}; retry later", headers=headers)
    return slots


class KeyedSlots:
    """
    The same number of slots for each of any number of keys; only slots that are held take memory.

    Args:
        each: Number of slots of a key.
    """

    def __init__(self, each: int) -> None:
        self._each = each
        self._held: Counter[Hashable] = Counter()
        self._lock = Lock()

    @contextmanager
    def hold(self, key: Hashable, refusal: APIError) -> Iterator[None]:
        """Hold a slot of *key* while the block runs. Raises *refusal* if all of them are held."""
        with self._lock:
            if self._held[key] >= self._each:
                raise refusal
            self._held[key] += 1
        try:
            yield
        finally:
            with self._lock:
                self._held[key] -= 1
                if not self._held[key]:
                    del self._held[key]
