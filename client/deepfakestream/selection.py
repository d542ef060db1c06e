"""What the arguments of ``scan`` stand for: files, folders, addresses, standard input and named pipes."""

import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from deepfakestream.errors import AddressError, DeepfakeStreamError, EmptyFileError
from deepfakestream.signatures import HEADER_BYTES, check_head, is_media
from deepfakestream.sources import check_scheme, false_if_unreadable, is_url
from deepfakestream.terminal import pluralize

STANDARD_INPUT: Final = "-"
"""The argument that stands for standard input."""
MAX_EXAMPLES = 3
"""How many names of skipped files are printed."""
_HOST_AND_PATH = re.compile(r"(www\.)?[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}(:\d+)?/\S+")

Copies = dict[str, Path | Exception]
"""Standard input or named pipe → the file into which it was copied, or the error that prevented it."""


@dataclass(slots=True)
class Selection:
    """The files and URLs that a command scans, and the files of its folders that it skips."""

    sources: list[str] = field(default_factory=list)
    """Files and URLs without duplicates, in the order of the arguments, and by name within a folder."""
    not_media: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)

    def describe_skipped(self) -> str:
        """Say how many files were skipped, with examples; empty if none was."""
        parts = [
            _describe_paths(self.not_media, "unrecognised"),
            _describe_paths(self.hidden, "hidden"),
        ]
        said = ", and ".join(part for part in parts if part)
        return f"left out {said}; --all sends every file" if said else ""


def _describe_paths(paths: list[str], kind: str) -> str:
    if not paths:
        return ""
    examples = ", ".join(Path(path).name for path in paths[:MAX_EXAMPLES])
    more = ", …" if len(paths) > MAX_EXAMPLES else ""
    return f"{pluralize(len(paths), f'{kind} file')} ({examples}{more})"


def select_sources(sources: Iterable[str], *, all_files: bool = False) -> Selection:
    """
    Select what to scan: files, URLs and pipes as given, and the images and videos in folders.

    Args:
        sources: Files, folders, URLs, and ``-`` for standard input.
        all_files: Select every file of a folder, including hidden ones and those that are not media.
    """
    found = Selection()
    for source in map(normalize_url, sources):
        path = Path(source)
        if source == STANDARD_INPUT or is_url(source) or not false_if_unreadable(path.is_dir):
            found.sources.append(source)
            continue
        for inside in sorted(path.rglob("*")):
            if not false_if_unreadable(inside.is_file):
                continue
            is_hidden = any(part.startswith(".") for part in inside.relative_to(path).parts)
            if all_files or not (is_hidden or not is_media(inside)):
                found.sources.append(str(inside))
            else:
                (found.hidden if is_hidden else found.not_media).append(str(inside))
    found.sources = list(dict.fromkeys(found.sources))
    return found


def normalize_url(source: str) -> str:
    """Return an address with its scheme in small letters, the only form that every service accepts."""
    scheme, separator, rest = source.partition("://")
    return f"{scheme.lower()}{separator}{rest}" if is_url(f"{scheme.lower()}{separator}") else source


def check_name(source: str) -> None:
    """
    Refuse an address that no service fetches, unless a file has this name.

    Raises:
        AddressError: It has a scheme other than http and https, or looks like an address and has none.
    """
    check_scheme(source)
    if _HOST_AND_PATH.fullmatch(source) and not false_if_unreadable(Path(source).exists):
        raise AddressError(f"no such file; if it is an address, write it as https://{source}")


@contextmanager
def copied_pipes(sources: Iterable[str], *, check_first: bool = True) -> Iterator[Copies]:
    """
    Copy standard input and named pipes into temporary files, since an upload needs a size and can be repeated.

    Pipes are read one after the other, here and not beside uploads: a thread that waits for a pipe cannot be ended.

    Args:
        sources: Files, URLs and ``-``; all others than pipes are left alone.
        check_first: Read no more than the beginning of what is certainly neither an image nor a video, such as a pipe
            that never ends.
    """
    pipes = [source for source in sources if source == STANDARD_INPUT or _is_pipe(source)]
    if not pipes:
        yield {}
        return
    with tempfile.TemporaryDirectory(prefix="deepfakestream-") as folder:
        copies: Copies = {}
        for number, source in enumerate(pipes):
            target = Path(folder, str(number))
            try:
                with _opened(source) as pipe, target.open("wb") as copy:
                    _copy_media(pipe, copy, check_first=check_first)
            except (DeepfakeStreamError, OSError) as error:
                copies[source] = error
            else:
                copies[source] = target
        yield copies


def _is_pipe(source: str) -> bool:
    return not is_url(source) and false_if_unreadable(lambda: stat.S_ISFIFO(Path(source).stat().st_mode))


@contextmanager
def _opened(source: str) -> Iterator[IO[bytes]]:
    if source == STANDARD_INPUT:
        yield sys.stdin.buffer
        return
    with Path(source).open("rb") as pipe:
        yield pipe


def _copy_media(pipe: IO[bytes], copy: IO[bytes], *, check_first: bool) -> None:
    head = pipe.read(HEADER_BYTES)
    if not head:
        raise EmptyFileError("it is empty")
    if check_first:
        check_head(head)
    copy.write(head)
    shutil.copyfileobj(pipe, copy)
