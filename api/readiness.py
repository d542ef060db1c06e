"""Readiness checks of the api's dependencies, at most once every few seconds."""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

from shared.observability import get_logger

log = get_logger(__name__)

OUTCOME_TTL_S: Final = 3.0
"""How long an outcome is reused, success and failure alike."""


class Readiness:
    """
    A cache of check outcomes, shared by all threads of a process.

    Requests need no key and have no rate limit, so they must not load the dependencies or block threads.

    Args:
        checks: Name of a dependency → function that raises if it is unavailable.
        ttl_s: Seconds for which outcomes are reused.
        clock: A monotonic clock in seconds.
    """

    def __init__(
        self,
        checks: Mapping[str, Callable[[], None]],
        *,
        ttl_s: float = OUTCOME_TTL_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._checks = checks
        self._ttl_s = ttl_s
        self._clock = clock
        self._checking = threading.Lock()
        self._known: dict[str, str] | None = None
        self._known_at = 0.0
        self._in_progress: dict[str, str] = {}

    def checks(self) -> dict[str, str]:
        """
        Return the outcome of every check by name, ``ok`` or ``failed``.

        One thread runs the checks. Meanwhile the others get the previous outcomes, or wait if there are none, for as
        long as outcomes are valid. A check that takes longer than that counts as failed.
        """
        wait_s = self._ttl_s if self._known is None else 0.0
        if not self._is_fresh() and self._checking.acquire(timeout=wait_s):
            try:
                return self._refresh()
            finally:
                self._checking.release()
        if self._known is None:
            return dict(self._in_progress)
        is_late = self._clock() - self._known_at >= 2 * self._ttl_s
        return dict(self._in_progress if is_late else self._known)

    def _refresh(self) -> dict[str, str]:
        """Run the checks unless another thread has just done so, and return the outcomes. The lock must be held."""
        if self._known is None or not self._is_fresh():
            self._in_progress = dict.fromkeys(self._checks, "failed")
            for name, check in self._checks.items():
                self._in_progress[name] = _outcome(name, check)
            self._known, self._known_at = self._in_progress, self._clock()
        return dict(self._known)

    def _is_fresh(self) -> bool:
        return self._known is not None and self._clock() - self._known_at < self._ttl_s


def _outcome(name: str, check: Callable[[], None]) -> str:
    try:
        check()
    except Exception:
        log.warning("not ready", check=name, exc_info=True)
        return "failed"
    return "ok"
