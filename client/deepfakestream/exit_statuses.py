"""Exit statuses of the command line."""

from collections.abc import Iterable, Sequence
from typing import Final

from deepfakestream.outcomes import ScanResult

FAILED: Final = 1
FOUND: Final = 3
"""A verdict is one of those that ``--fail-on`` names."""
INTERRUPTED: Final = 130
"""Ended by Ctrl-C, as shells count it: 128 and the number of SIGINT."""


def exit_status_of(results: Sequence[ScanResult], fail_on: Iterable[str] = ()) -> int:
    """
    Return the exit status of a command that scanned files.

    Args:
        fail_on: Verdicts for which the status is FOUND, even if a file failed.

    Returns:
        FOUND, FAILED if a file could not be scanned, or 0.
    """
    verdicts = frozenset(fail_on)
    if any(result.verdict in verdicts for result in results):
        return FOUND
    has_failed = any(result.job is None or result.job.status in ("failed", "cancelled") for result in results)
    return FAILED if has_failed else 0
