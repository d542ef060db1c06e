"""Functions of an installed server that run in this process: a scan without a service, and its checkpoints."""

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

from deepfakestream.errors import MissingPartError

LOCAL_GROUP = "deepfakestream.local"


def load_local_function(name: str) -> Callable[..., Any]:
    """
    Return the function *name* of the server that is installed beside this package.

    Raises:
        MissingPartError: No server is installed.
    """
    for found in entry_points(group=LOCAL_GROUP, name=name):
        function: Callable[..., Any] = found.load()
        return function
    raise MissingPartError(
        "this needs the server's pipeline: install deepfakestream-server[worker] beside this package"
    )
