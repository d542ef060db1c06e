"""Private folders, and changes in them that survive a power cut."""

import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

UNRESTRICTED_MODE_BITS: Final = stat.S_IWGRP | stat.S_IWOTH | stat.S_ISVTX
"""
Mode bits of a folder that is not closed: others can write in it. The sticky bit marks a folder that a process has begun
to close.
"""
LOCK_TIMEOUT_S: Final = 10.0
"""Emptying a folder takes much less time."""


def make_private(folder: Path) -> None:
    """
    Make *folder* and its missing parents, accessible only by this user. Existing folders are not changed.

    Raises:
        OSError: The folder cannot be made, or a file has its name.
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
    Flush *folder*, so that a renamed file keeps its new name and a removed one stays removed.

    Raises:
        OSError: The disk failed.
    """
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    except OSError as error:
        # A few network file systems do not support this for folders.
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.ENOTSUP):
            raise
    finally:
        os.close(opened)


def open_private(path: str, flags: int) -> int:
    """Open a file; if it is created, only this user can read it. An ``opener`` for ``open``."""
    return os.open(path, flags | os.O_CLOEXEC, mode=0o600)


class ForeignFolderError(Exception):
    """Other users control the content of a folder: it is theirs or a link. The message says which."""


def restrict_to_owner(folder: Path, empty: Callable[[int], None]) -> None:
    """
    Ensure that only this user can write in the existing *folder*.

    Others may have access because of an umask of 002, an earlier release, or an orchestrator that gives a volume to a
    group.

    Args:
        empty: Called with the descriptor of the folder if others could write in it until now; it must remove the files
            that they could have replaced. Other processes of this user wait meanwhile.

    Raises:
        ForeignFolderError: The folder belongs to another user, is a symbolic link or not a folder, or its file system
            ignores the mode.
        OSError: The folder cannot be opened or changed.
    """
    _check_owner(folder.lstat())
    # The path may have been replaced since the check; an open descriptor cannot be.
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
    """Lock an open folder until it is closed. Raises BlockingIOError if another process holds the lock for too long."""
    # The wait is limited, since users who can still read the folder can lock it, too.
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
