"""Retries of requests: when a request is sent again, how often, and after which pauses."""

import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Any, Final

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, stop_before_delay
from tenacity.wait import wait_exponential, wait_random

from deepfakestream.errors import DeepfakeStreamError, NotFoundError

MAX_PAUSE_S: Final = 60.0
"""The longest pause between two attempts, even if the service asks for a longer one."""
_BACKOFF: Final = wait_exponential(multiplier=0.25)
_JITTER: Final = wait_random(0.0, 0.5)
"""Random part of a pause, so that clients that were refused together do not return together."""
_SECONDS: Final = re.compile(r"[0-9]{1,9}", re.ASCII)


class RetrySafety(Enum):
    """Whether a request may be sent again after an attempt that the service may have processed."""

    SAFE = "safe"
    """It can be sent again; the outcome is the same."""
    DELETION = "deletion"
    """It can be sent again, and a 404 then means that the earlier attempt has removed the resource."""
    UNSAFE = "unsafe"
    """It would be processed twice, so it is sent again only if the service certainly did not process it."""


class FailedAttemptError(Exception):
    """
    A failed attempt to send a request.

    Attributes:
        error: The error that is raised if this was the last attempt.
        is_transient: Whether another attempt may succeed.
        may_be_processed: Whether the service may have processed the request.
        retry_after_s: The pause in seconds that the service asked for; None if it asked for none.
    """

    def __init__(
        self,
        error: DeepfakeStreamError,
        *,
        is_transient: bool,
        may_be_processed: bool = True,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(str(error))
        self.error = error
        self.is_transient = is_transient
        self.may_be_processed = may_be_processed
        self.retry_after_s = retry_after_s


async def send_with_retries(
    send: Callable[[], Awaitable[Any]],
    sleep: Callable[[float], Awaitable[None]],
    *,
    retries: int,
    safety: RetrySafety = RetrySafety.SAFE,
    within_s: float | None = None,
) -> Any:
    """
    Call *send*, and call it again after transient errors, as far as *safety* allows it.

    Args:
        send: Makes one attempt; raises FailedAttemptError if it fails.
        sleep: Makes the pause between two attempts, in seconds.
        retries: How often it is called again at most.
        safety: Whether it may be called again after an attempt that the service may have processed.
        within_s: No attempt begins later than this many seconds after the first one; no limit by default.

    Returns:
        The result of *send*; None if an earlier attempt, whose answer was lost, had already deleted the resource.

    Raises:
        DeepfakeStreamError: The error of the last attempt.
    """
    may_be_processed = False

    async def attempt() -> Any:
        nonlocal may_be_processed
        try:
            return await send()
        except FailedAttemptError as failed:
            is_gone = may_be_processed and isinstance(failed.error, NotFoundError)
            if is_gone and safety is RetrySafety.DELETION:
                return None
            may_be_processed = may_be_processed or failed.may_be_processed
            raise

    def may_retry(error: BaseException) -> bool:
        is_safe = safety is not RetrySafety.UNSAFE or not may_be_processed
        return isinstance(error, FailedAttemptError) and error.is_transient and is_safe

    stops = [stop_after_attempt(retries + 1), *([] if within_s is None else [stop_before_delay(within_s)])]
    attempts = AsyncRetrying(
        sleep=sleep,
        retry=retry_if_exception(may_retry),
        stop=lambda state: any(stop(state) for stop in stops),
        wait=_pause_s,
        reraise=True,
    )
    try:
        return await attempts(attempt)
    except FailedAttemptError as failed:
        raise failed.error from failed.__cause__


def read_retry_after(value: str) -> float | None:
    """
    Read a ``Retry-After`` header: seconds or a date (RFC 9110, section 10.2.3).

    Returns:
        Seconds from now, at least 0; None if *value* is neither. Libraries were tried, see docs/decisions/0019.
    """
    value = value.strip()
    if _SECONDS.fullmatch(value):
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
        return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def _pause_s(state: RetryCallState) -> float:
    """Return the pause before the next attempt: what the service asked for or twice the last, and a random part."""
    failed = state.outcome.exception() if state.outcome is not None else None
    asked_s = failed.retry_after_s if isinstance(failed, FailedAttemptError) else None
    return min(MAX_PAUSE_S, (_BACKOFF(state) if asked_s is None else asked_s) + _JITTER(state))
