"""
Recognition of files that are certainly neither images nor videos, by their first kilobytes.

The service decides which files it accepts. This module refuses only files that no service of this kind could accept, so
that they are not uploaded first; every file that might be an image or a video passes.
"""

import codecs
import stat
from pathlib import Path
from typing import Final

from deepfakestream.errors import EmptyFileError, NotMediaError

HEADER_BYTES: Final = 4096
"""How many bytes at the beginning of a file are examined."""

_MEDIA_SIGNATURES: Final[tuple[tuple[int, bytes], ...]] = (
    (0, b"\xff\xd8\xff"),
    (0, b"\x89PNG\r\n\x1a\n"),
    (0, b"GIF8"),
    (0, b"II*\0"),
    (0, b"MM\0*"),
    (0, b"II+\0"),
    (0, b"MM\0+"),
    (0, b"RIFF"),
    (0, b"\x1a\x45\xdf\xa3"),
    (0, b"FLV\x01"),
    (0, b"OggS"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),
    (0, b"\x00\x00\x01\xba"),
    (0, b"\x00\x00\x01\xb3"),
    (0, b"\x06\x0e\x2b\x34\x02\x05\x01\x01\x0d\x01\x02\x01\x01"),
    (0, b"\xff\x4f\xff\x51"),
    (0, b"\xff\x0a"),
    (0, b"\0\0\0\x0cJXL "),
    (0, b"\0\0\0\x0cjP  "),
    (4, b"ftyp"),
    (4, b"moov"),
    (4, b"mdat"),
    (4, b"wide"),
    (4, b"free"),
    (4, b"skip"),
    (4, b"pnot"),
)
"""Offset and bytes of the formats of images and videos, whether the service accepts them or not."""

_NON_MEDIA_SIGNATURES: Final[tuple[tuple[int, bytes, str], ...]] = (
    (0, b"%PDF", "a PDF document"),
    (0, b"PK\x03\x04", "a ZIP archive or an office document"),
    (0, b"PK\x05\x06", "an empty ZIP archive"),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an office document"),
    (0, b"\x7fELF", "a program"),
    (0, b"MZ\x90\0", "a program"),
    (0, b"\xcf\xfa\xed\xfe", "a program"),
    (0, b"\xca\xfe\xba\xbe", "a program"),
    (0, b"\x1f\x8b\x08", "a gzip archive"),
    (0, b"BZh", "a bzip2 archive"),
    (0, b"\xfd7zXZ\0", "an xz archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (0, b"Rar!\x1a\x07", "a RAR archive"),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard archive"),
    (257, b"ustar", "a tar archive"),
    (0, b"SQLite format 3\0", "a database"),
    (0, b"ID3", "a sound file"),
    (0, b"fLaC", "a sound file"),
    (8, b"WAVE", "a sound file"),
)
_MEDIA_SUFFIXES: Final = (
    *(".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".jxl"),
    *(
        ".mp4",
        ".m4v",
        ".mov",
        ".3gp",
        ".mkv",
        ".webm",
        ".avi",
        ".m2ts",
        ".mpg",
        ".mpeg",
        ".mxf",
        ".flv",
        ".wmv",
        ".asf",
    ),
)
_TEXT_CONTROL_CHARACTERS: Final = frozenset("\t\n\v\f\r\x1b")


def check_regular_file(path: Path) -> None:
    """
    Refuse a pipe or a device at *path*: it may never end, and cannot be read a second time.

    Raises:
        NotMediaError: It is not a regular file.
        OSError: It cannot be examined.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise NotMediaError("it is not a regular file: write its content into one first")


def check_media(path: Path) -> None:
    """
    Refuse the file at *path* if it is certainly neither an image nor a video.

    Raises:
        NotMediaError: It is neither; the sentence says what it is.
        EmptyFileError: It has no bytes.
        OSError: It cannot be read.
    """
    check_regular_file(path)
    with path.open("rb") as file:
        head = file.read(HEADER_BYTES)
    if not head:
        raise EmptyFileError("it is empty")
    check_head(head)


def check_head(head: bytes) -> None:
    """
    Refuse a file that is certainly neither an image nor a video.

    Args:
        head: The beginning of the file, HEADER_BYTES or all of it.

    Raises:
        NotMediaError: It is neither; the sentence says what it is.
    """
    found = _name_non_media_format(head)
    if found is not None:
        raise NotMediaError(f"it is {found}, neither an image nor a video, so it was not sent")


def is_media(path: Path) -> bool:
    """
    Whether the file at *path* has the signature or the suffix of an image or a video.

    Also true if it cannot be read, or is damaged and has such a suffix: its scan then reports the error.
    """
    if path.suffix.lower() in _MEDIA_SUFFIXES:
        return True
    try:
        with path.open("rb") as file:
            return _begins_like_media(file.read(HEADER_BYTES))
    except OSError:
        return True


def _begins_like_media(head: bytes) -> bool:
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        return False
    # Texts may also begin with "BM"; a bitmap has the size of its header at offset 14.
    is_bitmap = head[:2] == b"BM" and 12 <= int.from_bytes(head[14:18], "little") <= 256
    # In the transport stream of a camera each packet of 188 bytes may follow a timestamp of four.
    is_stream = any(head[at :: 188 + at][:3] == b"GGG" for at in (0, 4))
    return is_bitmap or is_stream or any(head[at : at + len(magic)] == magic for at, magic in _MEDIA_SIGNATURES)


def _name_non_media_format(head: bytes) -> str | None:
    """Name the format of a file that is certainly neither an image nor a video; None if it may be one."""
    if _begins_like_media(head):
        return None
    for at, magic, name in _NON_MEDIA_SIGNATURES:
        if head[at : at + len(magic)] == magic:
            return name
    if not any(head):
        return "a file of zeros"
    return "text" if _is_text(head) else None


def _is_text(head: bytes) -> bool:
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        # UTF-16: no image or video begins with its byte order mark.
        return all(_is_text_character(character) for character in head[: len(head) & ~1].decode("utf-16", "ignore"))
    try:
        # The last character may be incomplete at the end of the header.
        text = codecs.getincrementaldecoder("utf-8")().decode(head, final=len(head) < HEADER_BYTES)
    except UnicodeDecodeError:
        return False
    return all(map(_is_text_character, text))


def _is_text_character(character: str) -> bool:
    return character >= " " or character in _TEXT_CONTROL_CHARACTERS
