"""Folders that belong to this service alone, and changes in them that survive a power cut."""

import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

UNRESTRICTED_MODE_BITS: Final = stat.S_IWGRP | stat.S_IWOTH | stat.S_ISVTX
"""Bits of a folder's mode: others can write in it, or (the last one) a process has only begun to close it."""
LOCK_TIMEOUT_S: Final = 10.0
"""Emptying a folder takes far less."""


def make_private(folder: Path) -> None:
    """
    Make *folder*, and what is missing above it, for this user alone. What is there already stays as it is.

    Raises:
        OSError: It cannot be made, or something else has its name.
    """
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        if not folder.is_dir():
            raise
    except FileNotFoundError:
        make_private(folder.parent)
        make_private(folder)
    else:
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """
    Make the names in *folder* durable: a renamed file keeps its new name, a removed one stays removed.

    Raises:
        OSError: The disk failed.
    """
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    except OSError as error:
        # A few network file systems know no such request for a folder.
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.ENOTSUP):
            raise
    finally:
        os.close(opened)


def open_private(path: str, flags: int) -> int:
    """Open a file that, if it is made now, this user alone may read; an ``opener`` for ``open``."""
    return os.open(path, flags | os.O_CLOEXEC, mode=0o600)


class ForeignFolderError(Exception):
    """A folder is another user's or a link, so that others decide what is in it; the message says which."""


def restrict_to_owner(folder: Path, empty: Callable[[int], None]) -> None:
    """
    Make sure that this user alone can write in *folder*, which exists.

    An umask of 002, an earlier release, or an orchestrator that gives a volume to a group leaves it open to others.

    Args:
        empty: Called with the opened folder if others could write in it until now: it has to remove what they could
            have exchanged. Other processes of this user wait meanwhile.

    Raises:
        ForeignFolderError: It belongs to another user, or is a symbolic link or no folder; or its file system lets
            others write in it whatever its mode.
        OSError: It cannot be looked at or changed.
    """
    _check_owner(folder.lstat())
    # What was looked at may have been exchanged since; what is open cannot be.
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(opened)
        _check_owner(found)
        if not found.st_mode & UNRESTRICTED_MODE_BITS:
            return
        _lock_with_timeout(opened)
        if not os.fstat(opened).st_mode & UNRESTRICTED_MODE_BITS:
            return
        os.fchmod(opened, 0o700 | stat.S_ISVTX)
        empty(opened)
        os.fchmod(opened, 0o700)
        if os.fstat(opened).st_mode & UNRESTRICTED_MODE_BITS:
            raise ForeignFolderError("its file system lets other users write in it")
    finally:
        os.close(opened)


def _check_owner(found: os.stat_result) -> None:
    if stat.S_ISLNK(found.st_mode):
        raise ForeignFolderError("it is a symbolic link")
    if not stat.S_ISDIR(found.st_mode):
        raise ForeignFolderError("it is not a folder")
    if found.st_uid != os.geteuid():
        raise ForeignFolderError("it belongs to another user")


def _lock_with_timeout(opened: int) -> None:
    """Lock what is open, for as long as it is. Raises BlockingIOError if another holds it for too long."""
    # Not for ever: those who can still read in the folder can lock it as well.
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    while True:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return
