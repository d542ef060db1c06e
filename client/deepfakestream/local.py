"""Functions of an installed server that run in this process: a scan without a service, and its checkpoints."""

from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from deepfakestream.errors import DeepfakeStreamError, MissingPartError

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
    raise MissingPartError("this needs the server's pipeline: run pip install '.[worker]' in a checkout of the project")


def scan_local_file(scan: Callable[..., dict[str, Any]], file: Path, **options: Any) -> dict[str, Any]:
    """
    Scan *file* in this process.

    Args:
        scan: The server's function ``scan``, from ``load_local_function``.
        options: Further arguments of *scan*.

    Returns:
        The document of the job.

    Raises:
        DeepfakeStreamError: The file cannot be read or scanned; ``code`` is that of the pipeline if it has one. Any
            other error is a defect and is passed on with its traceback.
    """
    try:
        return scan(file, **options)
    except Exception as error:
        # The errors of the server are not those of this package, which may be installed alone.
        code = getattr(error, "code", None)
        if code is None and not isinstance(error, OSError):
            raise
        # The text of an OSError repeats the name of the file, which the caller shows already.
        failed = DeepfakeStreamError(getattr(error, "strerror", None) or str(error))
        failed.code = str(code or failed.code)
        raise failed from error
