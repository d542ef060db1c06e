"""
Reading the zip file of a bundle that anybody may have made.

Nothing is written to a disk, sizes are checked before anything is inflated, and the file has to consist of its entries
and nothing else, so that no other program can find in it what is not checked here.
"""

import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from deepfakestream.errors import BundleError
from deepfakestream.terminal import printable
from deepfakestream.verification.files import MAX_ENTRIES

MAX_BYTES: Final = 4 * 1024**3
"""All files together, inflated. A two-hour video sampled at 30 frames a second has about a hundred megabytes."""
MAX_SMALL_BYTES: Final = 64 * 1024**2
"""A file that is read as a whole."""
MAX_LINE_BYTES: Final = 64 * 1024**2
MAX_DIRECTORY_BYTES: Final = 64 * 1024
"""The list of the files at the end, which is read as a whole before anything else."""
BLOCK_BYTES: Final = 1024**2

MAX_EXTRA_BYTES: Final = 64
"""Of further attributes of an entry, such as sizes of 64 bits and times, which could hold anything."""

_LOCAL_HEADER: Final = struct.Struct("<4s5H3L2H")
_END: Final = struct.Struct("<4s4H2LH")
_LARGE_END_BYTES: Final = 20
"""Of what precedes the end of a zip file whose numbers are too large for it: it says where they are."""
_DESCRIPTOR_BYTES: Final = frozenset({12, 16, 20, 24})
"""After the data of an entry whose sizes were not known before it: with or without signature, 32 or 64 bits."""
_ENCRYPTED: Final = 0x1
_SIZES_FOLLOW: Final = 0x8


class Archive:
    """
    The files of a bundle.

    Args:
        path: The zip file.

    Raises:
        BundleError: It cannot be read, is no zip file, or is one that no deployment makes.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file: IO[bytes] = path.open("rb")
        except OSError as error:
            raise BundleError(f"{path} cannot be read ({error.strerror})") from error
        try:
            _check_end(self._file)
            self._zip = ZipFile(self._file)
            self._entries = self._check()
        except (BadZipFile, struct.error, ValueError, NotImplementedError, UnicodeError, OSError) as error:
            self._file.close()
            raise BundleError("the bundle is no zip file, or it is damaged") from error
        except BundleError:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._zip.close()
        self._file.close()

    @property
    def names(self) -> list[str]:
        """The names of the files, in order."""
        return list(self._entries)

    def read(self, name: str, *, limit: int | None = None) -> bytes:
        """
        Return the content of a small file.

        Args:
            limit: Of its bytes; by default ``MAX_SMALL_BYTES``.

        Raises:
            BundleError: There is no such file, it is too large, or its data are damaged.
        """
        most = MAX_SMALL_BYTES if limit is None else limit
        entry = self._entry(name)
        if entry.file_size > most:
            raise BundleError(f"{name} has {entry.file_size} bytes; the limit is {most}")
        return b"".join(self.blocks(name))

    def blocks(self, name: str) -> Iterator[bytes]:
        """Give the content of a file block by block. Raises BundleError as ``read`` does."""
        left = self._entry(name).file_size
        with self._opened(name) as file:
            while block := self._guarded(name, file, BLOCK_BYTES):
                left -= len(block)
                yield block
        if left:
            raise BundleError(f"{printable(name)} has another size than the zip file says")

    def lines(self, name: str, *, limit: int) -> Iterator[bytes]:
        """
        Give the lines of a file without their ends.

        Raises:
            BundleError: As ``read`` does, for more than *limit* lines, and for endless ones.
        """
        rest, count = b"", 0
        for block in self.blocks(name):
            *whole, rest = (rest + block).split(b"\n")
            count += len(whole)
            if count > limit:
                raise BundleError(f"{name} has more than {limit} lines")
            yield from whole
            if len(rest) > MAX_LINE_BYTES:
                raise BundleError(f"{name} has a line of more than {MAX_LINE_BYTES} bytes")
        if rest:
            raise BundleError(f"{name} breaks off within a line")

    def _entry(self, name: str) -> ZipInfo:
        try:
            return self._entries[name]
        except KeyError:
            raise BundleError(f"the file {printable(name)} is missing") from None

    def _opened(self, name: str) -> IO[bytes]:
        entry = self._entry(name)
        try:
            return self._zip.open(entry)
        except (BadZipFile, NotImplementedError, RuntimeError, OSError) as error:
            raise BundleError(f"{printable(name)} cannot be read ({error})") from error

    def _guarded(self, name: str, file: IO[bytes], size: int) -> bytes:
        try:
            return file.read(size)
        except Exception as error:
            # zlib.error, EOFError, BadZipFile for a checksum: whatever damaged data can bring about.
            raise BundleError(f"the data of {printable(name)} are damaged ({error})") from error

    def _check(self) -> dict[str, ZipInfo]:
        found = self._zip.infolist()
        entries: dict[str, ZipInfo] = {}
        for entry in found:
            _check_entry(entry)
            if entry.filename in entries:
                raise BundleError(f"the bundle has two files called {entry.filename}")
            entries[entry.filename] = entry
        total = sum(entry.file_size for entry in found)
        if total > MAX_BYTES:
            raise BundleError(f"the files of the bundle have {total} bytes; the limit is {MAX_BYTES}")
        self._check_layout(found)
        return entries

    def _check_layout(self, entries: list[ZipInfo]) -> None:
        """Refuse bytes before, between and after the entries: other programs may take them for further files."""
        position, may_describe = 0, False
        for entry in sorted(entries, key=lambda one: one.header_offset):
            _check_gap(entry.header_offset - position, may_describe=may_describe)
            self._file.seek(entry.header_offset)
            header = _LOCAL_HEADER.unpack(self._file.read(_LOCAL_HEADER.size))
            _, _, flags, method, _, _, _, _, _, name_bytes, extra_bytes = header
            if max(extra_bytes, len(entry.extra)) > MAX_EXTRA_BYTES or entry.comment:
                raise BundleError(f"the entry of {entry.filename} has more than its attributes")
            if (flags, method) != (entry.flag_bits, entry.compress_type):
                raise BundleError(f"the headers of {entry.filename} disagree")
            position = entry.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes + entry.compress_size
            may_describe = bool(flags & _SIZES_FOLLOW)
        _check_gap(self._zip.start_dir - position, may_describe=may_describe)


def _check_end(file: IO[bytes]) -> None:
    """Check the last bytes of a zip file, before the list of files that they announce is read into memory."""
    last = file.seek(0, 2)
    file.seek(max(0, last - _END.size - _LARGE_END_BYTES))
    tail = file.read()
    signature, _, _, _, count, directory_bytes, _, comment_bytes = _END.unpack(tail[-_END.size :])
    if signature != b"PK\x05\x06" or comment_bytes:
        raise BundleError("the bundle is no zip file, is incomplete, or has bytes after its end")
    if count > MAX_ENTRIES:
        raise BundleError(f"the bundle has {count} files; the limit is {MAX_ENTRIES}")
    if directory_bytes > MAX_DIRECTORY_BYTES or tail[: -_END.size].startswith(b"PK\x06\x07"):
        raise BundleError("the list of files of the bundle is larger than that of any bundle")


def _check_gap(gap: int, *, may_describe: bool) -> None:
    """Refuse bytes after the data of an entry, other than a descriptor of it where there may be one."""
    if gap and not (may_describe and gap in _DESCRIPTOR_BYTES):
        raise BundleError("the bundle has bytes that belong to none of its files")


def _check_entry(entry: ZipInfo) -> None:
    # ``filename`` ends at a NUL, and other programs may read on.
    name = entry.orig_filename
    shown = printable(name)
    if not name or name != entry.filename or not name.isascii() or not name.isprintable():
        raise BundleError(f"the bundle has a file with the unusual name {shown!r}")
    if name.startswith(("/", "\\")) or "\\" in name or ":" in name or ".." in name.split("/"):
        raise BundleError(f"the file {shown} would lie outside of the bundle")
    mode = entry.external_attr >> 16
    if entry.is_dir() or (stat.S_IFMT(mode) and not stat.S_ISREG(mode)):
        raise BundleError(f"{shown} is no ordinary file")
    if entry.flag_bits & _ENCRYPTED:
        raise BundleError(f"{shown} is encrypted")
    if entry.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        raise BundleError(f"{shown} is compressed in another way than deflate")
