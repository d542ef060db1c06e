"""Preparation of the state folder: its subfolders, its lock and its files with secrets."""

import fcntl
import os
import tempfile
from pathlib import Path
from typing import IO

from deepfakestream.embedded_state import LOCK_FILE
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_fixed

from api.embedded.errors import StackError

MAX_LOCK_ATTEMPTS = 10
LOCK_PAUSE_S = 0.02


def prepare_folder(path: Path, *, mode: int = 0o777) -> Path:
    """
    Create the folder at *path*, with those above it, unless it exists.

    Raises:
        StackError: It cannot be a folder, or nothing can be written into it.
    """
    try:
        path.mkdir(parents=True, exist_ok=True, mode=mode)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise _unusable_state_error(path, error) from error
    return path


def lock_state(state: Path) -> IO[str]:
    """
    Take the lock of the folder *state*, which at most one stack holds.

    Returns:
        The open lock file; closing it releases the lock.

    Raises:
        StackError: Another stack holds the lock, or the lock file cannot be opened.
    """
    try:
        lock = (state / LOCK_FILE).open("w")
    except OSError as error:
        raise _unusable_state_error(state / LOCK_FILE, error) from error
    # Commands that check whether a stack runs hold the lock for a moment.
    attempts = Retrying(
        retry=retry_if_exception_type(BlockingIOError),
        stop=stop_after_attempt(MAX_LOCK_ATTEMPTS),
        wait=wait_fixed(LOCK_PAUSE_S),
        reraise=True,
    )
    try:
        attempts(fcntl.flock, lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise StackError(f"a stack is running already with its state in {state}") from error
    return lock


def write_secret(path: Path, value: str) -> None:
    """Write *value* to a file that its owner alone can read. Whatever ends the process, it is whole or not there."""
    part = path.with_name(f"{path.name}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(value + "\n")
            file.flush()
            os.fsync(descriptor)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _unusable_state_error(path: Path, error: OSError) -> StackError:
    is_file = isinstance(error, (FileExistsError, NotADirectoryError))
    reason = "it is not a directory" if is_file else error.strerror or str(error)
    return StackError(
        f"{path} cannot be used for the state of the service ({reason}): choose another folder with --state"
    )
