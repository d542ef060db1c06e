"""Folders that belong to this service alone, and changes in them that survive a power cut."""

import errno
import os
import stat
from pathlib import Path


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


def why_not_private(folder: Path) -> str | None:
    """
    Say why other users of this machine could change what lies in *folder*; None if they cannot.

    Raises:
        OSError: It cannot be looked at.
    """
    found = folder.lstat()
    if stat.S_ISLNK(found.st_mode):
        return "it is a symbolic link"
    if not stat.S_ISDIR(found.st_mode):
        return "it is not a folder"
    if found.st_uid != os.geteuid():
        return "it belongs to another user"
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return "other users may write in it"
    return None
