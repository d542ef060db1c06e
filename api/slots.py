"""Slots that limit how many costly answers a process makes at a time."""

from threading import BoundedSemaphore
from typing import Final

from api.errors import APIError
from shared.errors import Code

BUSY_RETRY_S: Final = 2


def take_slot(slots: BoundedSemaphore, what: str) -> BoundedSemaphore:
    """
    Take one of *slots*, for its caller to release.

    Args:
        what: What is being made or sent, in the plural, for the sentence of the refusal.

    Raises:
        APIError: ``overloaded``: all are taken. Clients that read slowly must not take every thread.
    """
    if not slots.acquire(blocking=False):
        raise APIError(
            Code.OVERLOADED, f"too many {what} are being sent; retry later", headers={"Retry-After": str(BUSY_RETRY_S)}
        )
    return slots
