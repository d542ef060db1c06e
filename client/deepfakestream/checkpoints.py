"""Checkpoints that can be asked for: as a service tells, or as they are installed here where none answers."""

from collections.abc import Callable
from typing import Any

from deepfakestream.errors import ConnectionFailedError, MissingPartError
from deepfakestream.local import local_entry

Documents = list[dict[str, Any]]


def find_checkpoints(ask: Callable[[], tuple[dict[str, Any], ...]], *, may_be_local: bool) -> tuple[Documents, bool]:
    """
    The checkpoints, the default one first, and whether they are those that are installed here.

    Args:
        ask: Asks the service.
        may_be_local: Fall back to what is installed; not where a person named a service, which may have others.

    Raises:
        MissingPartError: No service runs, and no server is installed.
        ConnectionFailedError: The service does not answer, and nothing may or can stand in for it.
    """
    is_local = False
    try:
        found = ask()
    except (MissingPartError, ConnectionFailedError):
        if not may_be_local:
            raise
        try:
            describe = local_entry("models")
        except MissingPartError:
            describe = None
        if describe is None:
            raise
        found, is_local = tuple(describe()), True
    return sorted(found, key=lambda model: not model.get("is_default")), is_local
