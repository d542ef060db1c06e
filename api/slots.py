"""Slots that limit how many costly answers a process makes at a time."""

from threading import BoundedSemaphore

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
