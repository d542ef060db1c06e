"""List of checkpoints: those of a service, or those that are installed here if no service answers."""

from collections.abc import Callable
from typing import Any

from deepfakestream.errors import ConnectionFailedError, MissingPartError
from deepfakestream.local import load_local_function

Documents = list[dict[str, Any]]


def find_checkpoints(
    request: Callable[[], tuple[dict[str, Any], ...]], *, may_be_local: bool
) -> tuple[Documents, bool]:
    """
    Find the checkpoints that a job can name.

    Args:
        request: Requests them from the service.
        may_be_local: Fall back to the installed ones. Not for a service that a person named, which may have others.

    Returns:
        The documents of the checkpoints, the default one first, and whether they are the installed ones.

    Raises:
        MissingPartError: No service runs, and no server is installed.
        ConnectionFailedError: The service does not answer, and the installed checkpoints may not or cannot be used.
    """
    is_local = False
    try:
        found = request()
    except (MissingPartError, ConnectionFailedError):
        if not may_be_local:
            raise
        try:
            describe = load_local_function("models")
        except MissingPartError:
            describe = None
        if describe is None:
            raise
        found, is_local = tuple(describe()), True
    return sorted(found, key=lambda model: not model.get("is_default")), is_local
