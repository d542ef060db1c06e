"""What can be submitted: a path, bytes, a file, or an address; told apart by type."""

import inspect
import io
import os
import re
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO, Any

from deepfakestream.errors import AddressError
from deepfakestream.signatures import check_regular_file

Source = str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes]
"""An address (text that begins with ``http://`` or ``https://``), a path, the content of a file, or a file."""

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def is_url(source: str) -> bool:
    """Whether *source* is an address, which the service fetches."""
    return source.startswith(("http://", "https://"))


def check_scheme(source: str) -> None:
    """
    Refuse an address that no service fetches, unless a file has this name.

    Raises:
        AddressError: It has a scheme other than http and https.
    """
    if not is_url(source) and _SCHEME.match(source) and not false_if_unreadable(Path(source).exists):
        raise AddressError(
            "only addresses that begin with http:// or https:// are fetched; download it and scan the file"
        )


def check_source(source: Any) -> None:
    """
    Refuse what cannot be submitted.

    Raises:
        TypeError: It is none of the types of ``Source``, or a file that is opened as text or read by coroutines.
        ValueError: It is a file that cannot be read a second time, as the repetition of a request needs it.
        AddressError: It is an address with a scheme other than http and https.
    """
    if isinstance(source, str):
        check_scheme(source)
    elif isinstance(source, io.TextIOBase):
        raise TypeError("the file is opened as text: open it with mode 'rb'")
    elif not isinstance(source, os.PathLike | bytes | bytearray | memoryview):
        if not callable(getattr(source, "read", None)):
            raise TypeError(
                "give a path, bytes, a file that is opened with mode 'rb', or an address that begins with http:// or"
                f" https://, and not a value of the type {type(source).__name__}"
            )
        if inspect.iscoroutinefunction(source.read):
            raise TypeError("the file is read by coroutines: give the file below it, or its content as bytes")
        seekable = getattr(source, "seekable", lambda: hasattr(source, "seek") and hasattr(source, "tell"))
        if not seekable():
            raise ValueError(
                "the file cannot be read a second time, which the repetition of a request needs: give its content as"
                " bytes, or a path"
            )


def open_source(source: Source) -> AbstractContextManager[IO[bytes]]:
    """
    Open what is to be sent, which is not an address; a file is neither opened nor closed.

    Raises:
        OSError: There is no such file, or it cannot be read.
        NotMediaError: The path is that of a pipe or a device.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        return io.BytesIO(source)
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        if not path.is_dir():
            # The error for a folder is that of opening it.
            check_regular_file(path)
        return path.open("rb")
    return nullcontext(source)


def false_if_unreadable(check: Callable[[], bool]) -> bool:
    """Return the result of *check* on a path; False if it fails, since opening the file then reports the error."""
    try:
        return check()
    except (OSError, ValueError):
        return False
