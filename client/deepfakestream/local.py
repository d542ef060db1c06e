"""What an installed server does in this process: scan without a service, and describe its checkpoints."""

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

from deepfakestream.errors import MissingPartError

LOCAL_GROUP = "deepfakestream.local"


def local_entry(name: str) -> Callable[..., Any]:
    """
    The function *name* of the server that is installed beside this package.

    Raises:
        MissingPartError: None is.
    """
    for found in entry_points(group=LOCAL_GROUP, name=name):
        function: Callable[..., Any] = found.load()
        return function
    raise MissingPartError("this needs the pipeline: install deepfakestream-server[worker] beside this package")
