"""
Identification of media files by their first bytes and their container's header, without a decoder.

The file's name is never used. The api refuses uploads by these facts; the worker's probe, which decodes, has the last
word. Reading is bounded (a limited number of boxes, a few bytes of each), offsets in the file are checked before use,
and only the documented errors are raised, for any input.

``pictures`` reads the formats of still images and animations, ``iso`` the ISO base media family (mp4, mov, 3gp, HEIC,
AVIF), ``matroska`` EBML, ``riff`` AVI, ``streams`` MPEG-TS, FLV and ASF. ``refusals`` names formats that are refused.
"""

import struct
from collections.abc import Callable
from typing import BinaryIO, Final

from shared.containers import pictures, streams
from shared.containers.facts import (
    PICTURES,
    VIDEO_CODECS,
    HeaderFacts,
    MediaLimits,
    check_limits,
    check_size,
)
from shared.containers.iso import LEADING_BOX_TYPES, inspect_iso
from shared.containers.matroska import inspect_matroska
from shared.containers.reader import EndOfFileError, HeaderReader
from shared.containers.refusals import refusal, unsupported_codec
from shared.containers.riff import inspect_avi
from shared.containers.tracks import select_default_track
from shared.errors import EmptyFileError, TruncatedError

__all__ = [
    "HEAD_BYTES",
    "PICTURES",
    "VIDEO_CODECS",
    "HeaderFacts",
    "MediaLimits",
    "check_head",
    "check_limits",
    "check_size",
    "inspect_header",
    "select_default_track",
    "unsupported_codec",
]

HEAD_BYTES: Final = 2048
"""The first bytes of a file, which identify its format."""

Inspector = Callable[[HeaderReader], HeaderFacts]


def inspect_header(stream: BinaryIO, size_bytes: int) -> HeaderFacts:
    """
    Identify the file in *stream*, which is seekable and *size_bytes* long.

    Raises:
        EmptyFileError: The file has no bytes.
        NotMediaError: The format is unknown.
        UnsupportedMediaError: The format is known, but not accepted.
        NoVideoStreamError: The container is accepted and its header complete, but it has no images.
        UnsupportedCodecError: The header names a video codec that is not accepted.
        TruncatedError: The file ends before its header does.
    """
    if size_bytes == 0:
        raise EmptyFileError("the file is empty")
    reader = HeaderReader(stream, size_bytes)
    try:
        return _select_inspector(reader.peek(0, HEAD_BYTES))(reader)
    except EndOfFileError as error:
        raise TruncatedError("the file ends before its header is complete") from error
    except (struct.error, ValueError, OverflowError, ZeroDivisionError) as error:
        raise TruncatedError("the file's header is damaged") from error


def check_head(head: bytes) -> None:
    """
    Refuse a file by its first HEAD_BYTES bytes alone, or by fewer if it is shorter.

    Raises:
        NotMediaError, UnsupportedMediaError: The format is not accepted.
    """
    if head:
        _select_inspector(head)


def _select_inspector(head: bytes) -> Inspector:
    """Return the function that reads the header of a file that begins with *head*."""
    riff_type = head[8:12] if head[:4] == b"RIFF" else b""
    for magic, inspector in _BY_MAGIC:
        if head.startswith(magic):
            return inspector
    if riff_type == b"WEBP":
        return pictures.inspect_webp
    if riff_type == b"AVI ":
        return inspect_avi
    if pictures.is_bmp(head):
        return pictures.inspect_bmp
    if head[4:8] in LEADING_BOX_TYPES:
        return inspect_iso
    if streams.find_transport_packets(head) is not None:
        return streams.inspect_transport_stream
    raise refusal(head, riff_type)


_BY_MAGIC: Final[tuple[tuple[bytes, Inspector], ...]] = (
    (b"\xff\xd8\xff", pictures.inspect_jpeg),
    (b"\x89PNG\r\n\x1a\n", pictures.inspect_png),
    (b"GIF87a", pictures.inspect_gif),
    (b"GIF89a", pictures.inspect_gif),
    (b"II*\0", pictures.inspect_tiff),
    (b"MM\0*", pictures.inspect_tiff),
    (b"\xff\x4f\xff\x51", pictures.inspect_jpeg2000_codestream),
    (b"\0\0\0\x0cjP  \r\n\x87\n", pictures.inspect_jpeg2000),
    (b"\xff\x0a", pictures.inspect_jxl_codestream),
    (b"\0\0\0\x0cJXL \r\n\x87\n", pictures.inspect_jxl),
    (b"\x1a\x45\xdf\xa3", inspect_matroska),
    (b"FLV\x01", streams.inspect_flv),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c", streams.inspect_asf),
    (b"\x00\x00\x01\xba", streams.inspect_program_stream),
    (b"\x06\x0e\x2b\x34\x02\x05\x01\x01\x0d\x01\x02\x01\x01", streams.inspect_mxf),
)
