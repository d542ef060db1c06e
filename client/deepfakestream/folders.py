"""The folders whose files a program that obeys a language model may read."""

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from deepfakestream.errors import NotMediaError
from deepfakestream.signatures import check_media


def open_permitted(source: str, folders: Sequence[Path]) -> IO[bytes]:
    """
    Open a file in one of *folders* or below.

    Args:
        source: An absolute path, one that begins with ``~``, or one relative to one of *folders*.
        folders: Symbolic links lead out of none of them.

    Raises:
        PermissionError: The file is in none of the folders, or there are none. The error is the same whether it exists
            or not.
        NotMediaError: It is certainly neither an image nor a video, so that no other file can be sent.
        OSError: It does not exist or cannot be read.
    """
    if not folders:
        raise PermissionError(
            "no files may be read: start the server with --folder FOLDER for each folder whose images and videos may be"
            " scanned, or give an address that begins with https://"
        )
    resolved = [folder.resolve() for folder in folders]
    try:
        given = Path(source).expanduser()
        candidates = [given] if given.is_absolute() else [folder / given for folder in resolved]
        inside = [
            path for each in candidates if any((path := each.resolve()).is_relative_to(folder) for folder in resolved)
        ]
    except (RuntimeError, ValueError) as error:
        # The home of nobody, or a zero byte.
        raise PermissionError(f"{source!r} is no path of a file ({error})") from error
    if not inside:
        raise PermissionError(
            f"{source} is in none of the folders whose files may be read: {', '.join(map(str, folders))}"
        )
    path = next((each for each in inside if each.exists()), inside[0])
    check_media(path)
    # The path has no symbolic links; one that has taken its place meanwhile is not followed.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    file = os.fdopen(descriptor, "rb")
    if not stat.S_ISREG(os.fstat(descriptor).st_mode) or path.resolve() != path:
        file.close()
        raise NotMediaError("it is not a regular file: write its content into one first")
    return file
