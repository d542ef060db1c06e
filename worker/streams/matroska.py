"""
Matroska as ffmpeg writes it into a pipe: a parser for the stream, and a writer of small files.

The parser takes blocks of bytes and needs no seeking. What it reads is ffmpeg's output, but a hostile sender chooses
much of the content, so every size is checked before memory is used for it. Elements: RFC 9559.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from shared.errors import TooLargeError, UnsupportedCodecError, UnsupportedMediaError

EBML: Final = 0x1A45DFA3
SEGMENT: Final = 0x18538067
INFO: Final = 0x1549A966
TIMESTAMP_SCALE: Final = 0x2AD7B1
DURATION: Final = 0x4489
MUXING_APP: Final = 0x4D80
WRITING_APP: Final = 0x5741
TRACKS: Final = 0x1654AE6B
TRACK_ENTRY: Final = 0xAE
TRACK_NUMBER: Final = 0xD7
TRACK_UID: Final = 0x73C5
TRACK_TYPE: Final = 0x83
FLAG_LACING: Final = 0x9C
CODEC_ID: Final = 0x86
CODEC_PRIVATE: Final = 0x63A2
VIDEO: Final = 0xE0
PIXEL_WIDTH: Final = 0xB0
PIXEL_HEIGHT: Final = 0xBA
DISPLAY_WIDTH: Final = 0x54B0
DISPLAY_HEIGHT: Final = 0x54BA
DISPLAY_UNIT: Final = 0x54B2
CLUSTER: Final = 0x1F43B675
TIMESTAMP: Final = 0xE7
SIMPLE_BLOCK: Final = 0xA3
BLOCK_GROUP: Final = 0xA0
BLOCK: Final = 0xA1
REFERENCE_BLOCK: Final = 0xFB

CODECS: Final = {
    "V_MPEG4/ISO/AVC": "h264",
    "V_MPEGH/ISO/HEVC": "hevc",
    "V_AV1": "av1",
    "V_VP8": "vp8",
    "V_VP9": "vp9",
    "V_MPEG1": "mpeg1video",
    "V_MPEG2": "mpeg2video",
    "V_MPEG4/ISO/ASP": "mpeg4",
    "V_MJPEG": "mjpeg",
}
"""Matroska's name of a codec → ffmpeg's. Live streams with other codecs are refused."""

MAX_HEADER_BYTES: Final = 1024**2
"""Size of one element that is not a picture; the parameter sets of a codec are the largest."""
MAX_TIME_MS: Final = 2**47
CLUSTER_MS: Final = 5000
"""Length of the clusters that are written. The format allows 32 seconds."""
_MASTERS: Final = frozenset({SEGMENT, CLUSTER})


@dataclass(frozen=True, slots=True)
class Track:
    """The video track."""

    codec: str
    codec_id: str
    private: bytes
    """Parameters of the codec, in the form that Matroska prescribes for it."""
    width_px: int
    height_px: int
    shape: bytes = b""
    """The remaining elements that describe the video, such as its colours, as they were read."""
    display: bytes = b""
    """The elements that give the displayed size, which hold for ``width_px`` and ``height_px`` only."""


@dataclass(frozen=True, slots=True)
class Packet:
    """One coded picture."""

    time_ms: int
    """Presentation time."""
    is_key: bool
    data: bytes


class Parser:
    """
    An incremental parser of one stream.

    Args:
        max_picture_bytes: Limit of one coded picture.
    """

    def __init__(self, max_picture_bytes: int) -> None:
        self._max_picture_bytes = max_picture_bytes
        self._buffer = bytearray()
        self._cluster_ms = 0
        self._track_number: int | None = None
        self._began = False

    @property
    def buffered_bytes(self) -> int:
        """Bytes that wait for the rest of their element."""
        return len(self._buffer)

    def feed(self, block: bytes) -> Iterator[Track | Packet]:
        """
        Yield the track and the pictures that are complete with *block*.

        Raises:
            UnsupportedMediaError: The bytes are not such a stream.
            UnsupportedCodecError: The codec is not accepted.
            TooLargeError: A picture exceeds its limit.
        """
        self._buffer += block
        position = 0
        try:
            while (head := _read_head(self._buffer, position)) is not None:
                kind, body, size = head
                if not self._began and kind != EBML:
                    raise _not_matroska()
                self._began = True
                if kind in _MASTERS:
                    position = body
                    continue
                if size is None:
                    raise _not_matroska()
                self._check_size(kind, size)
                if len(self._buffer) < body + size:
                    break
                position = body + size
                yield from self._read(kind, bytes(memoryview(self._buffer)[body:position]))
        finally:
            del self._buffer[:position]

    def _check_size(self, kind: int, size: int) -> None:
        if kind in (SIMPLE_BLOCK, BLOCK_GROUP):
            if size > self._max_picture_bytes:
                raise TooLargeError(f"a picture of the stream has more than {self._max_picture_bytes} bytes")
        elif size > MAX_HEADER_BYTES:
            raise _not_matroska()

    def _read(self, kind: int, data: bytes) -> Iterator[Track | Packet]:
        if kind == TRACKS:
            yield self._read_tracks(data)
        elif kind == INFO:
            for child, value in _children(data):
                if child == TIMESTAMP_SCALE and _unsigned(value) != 1_000_000:
                    raise _not_matroska()
        elif kind == TIMESTAMP:
            self._cluster_ms = _unsigned(data)
            if self._cluster_ms > MAX_TIME_MS:
                raise _not_matroska()
        elif kind == SIMPLE_BLOCK:
            yield from self._read_block(data, None)
        elif kind == BLOCK_GROUP:
            parts = dict(_children(data))
            if BLOCK in parts:
                yield from self._read_block(parts[BLOCK], REFERENCE_BLOCK not in parts)

    def _read_block(self, data: bytes, is_key: bool | None) -> Iterator[Packet]:
        number, start = _read_size(data, 0) or (None, 0)
        if self._track_number is None or number != self._track_number:
            return
        if len(data) < start + 3:
            raise _not_matroska()
        offset_ms, flags = struct.unpack_from(">hB", data, start)
        if flags & 0x06:
            raise _not_matroska()  # Laced blocks hold several pictures; ffmpeg laces sound only.
        if len(data) > start + 3:
            key = bool(flags & 0x80) if is_key is None else is_key
            yield Packet(self._cluster_ms + offset_ms, key, data[start + 3 :])

    def _read_tracks(self, data: bytes) -> Track:
        if self._track_number is not None:
            raise _not_matroska()
        for kind, value in _children(data):
            entry = dict(_children(value)) if kind == TRACK_ENTRY else {}
            if _unsigned(entry.get(TRACK_TYPE, b"")) != 1:
                continue
            codec_id = entry.get(CODEC_ID, b"").rstrip(b"\0").decode("ascii", "replace")
            if codec_id not in CODECS:
                raise UnsupportedCodecError("the stream's video codec is not accepted")
            video = list(_children(entry.get(VIDEO, b"")))
            sizes = {kind: _unsigned(value) for kind, value in video if kind in (PIXEL_WIDTH, PIXEL_HEIGHT)}
            if not all(0 < sizes.get(kind, 0) < 2**16 for kind in (PIXEL_WIDTH, PIXEL_HEIGHT)):
                raise UnsupportedMediaError("the stream does not tell the size of its pictures")
            display = (DISPLAY_WIDTH, DISPLAY_HEIGHT, DISPLAY_UNIT)
            self._track_number = _unsigned(entry.get(TRACK_NUMBER, b""))
            return Track(
                codec=CODECS[codec_id],
                codec_id=codec_id,
                private=entry.get(CODEC_PRIVATE, b""),
                width_px=sizes[PIXEL_WIDTH],
                height_px=sizes[PIXEL_HEIGHT],
                shape=b"".join(_element(k, v) for k, v in video if k not in (PIXEL_WIDTH, PIXEL_HEIGHT, *display)),
                display=b"".join(_element(k, v) for k, v in video if k in display),
            )
        raise _not_matroska()


def write_file(track: Track, packets: Sequence[Packet], *, duration_ms: int) -> bytes:
    """
    Write a file with *packets*, which are in decoding order.

    Args:
        packets: Their times are at least 0; the first one is a key frame.
        duration_ms: End of the last picture.
    """
    header = _element(EBML, _element(0x4282, b"matroska") + _element(0x4287, b"\4") + _element(0x4285, b"\2"))
    info = (
        _element(TIMESTAMP_SCALE, _number(1_000_000))
        + _element(DURATION, struct.pack(">d", duration_ms))
        + _element(MUXING_APP, b"DeepfakeStream")
        + _element(WRITING_APP, b"DeepfakeStream")
    )
    sizes = _element(PIXEL_WIDTH, _number(track.width_px)) + _element(PIXEL_HEIGHT, _number(track.height_px))
    entry = (
        *(_element(TRACK_NUMBER, b"\1"), _element(TRACK_UID, b"\1"), _element(TRACK_TYPE, b"\1")),
        *(_element(FLAG_LACING, b"\0"), _element(CODEC_ID, track.codec_id.encode())),
        _element(CODEC_PRIVATE, track.private) if track.private else b"",
        _element(VIDEO, sizes + track.display + track.shape),
    )
    body = [_element(INFO, info), _element(TRACKS, _element(TRACK_ENTRY, b"".join(entry)))]
    blocks: list[bytes] = []
    base_ms = 0
    for packet in packets:
        if blocks and not -CLUSTER_MS < packet.time_ms - base_ms < CLUSTER_MS:
            body.append(_element(CLUSTER, b"".join(blocks)))
            blocks = []
        if not blocks:
            base_ms = packet.time_ms
            blocks.append(_element(TIMESTAMP, _number(base_ms)))
        head = struct.pack(">BhB", 0x81, packet.time_ms - base_ms, 0x80 if packet.is_key else 0)
        blocks.append(_element(SIMPLE_BLOCK, head + packet.data))
    body.append(_element(CLUSTER, b"".join(blocks)))
    return header + _element(SEGMENT, b"".join(body))


def _not_matroska() -> UnsupportedMediaError:
    return UnsupportedMediaError("the stream could not be read as video")


def _read_head(data: bytes | bytearray, position: int) -> tuple[int, int, int | None] | None:
    """Return id, start of the body and size (None if unknown) of the element at *position*; None if cut off."""
    if position >= len(data):
        return None
    length = 9 - data[position].bit_length()
    if length > 4:
        raise _not_matroska()
    if position + length > len(data):
        return None
    found = _read_size(data, position + length)
    if found is None:
        return None
    return int.from_bytes(data[position : position + length], "big"), found[1], found[0]


def _read_size(data: bytes | bytearray, position: int) -> tuple[int | None, int] | None:
    """Return the variable-size integer at *position* (None if it means "unknown") and its end; None if cut off."""
    if position >= len(data):
        return None
    length = 9 - data[position].bit_length()
    if length > 8:
        raise _not_matroska()
    if position + length > len(data):
        return None
    bits = 7 * length
    value = int.from_bytes(data[position : position + length], "big") & ((1 << bits) - 1)
    return (None if value == (1 << bits) - 1 else value), position + length


def _children(data: bytes) -> Iterator[tuple[int, bytes]]:
    position = 0
    while position < len(data):
        head = _read_head(data, position)
        if head is None or head[2] is None or head[1] + head[2] > len(data):
            raise _not_matroska()
        kind, body, size = head[0], head[1], head[2]
        position = body + size
        yield kind, data[body:position]


def _unsigned(data: bytes) -> int:
    if len(data) > 8:
        raise _not_matroska()
    return int.from_bytes(data, "big")


def _number(value: int) -> bytes:
    return value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big")


def _element(kind: int, data: bytes) -> bytes:
    return _number(kind) + (len(data) | 1 << 56).to_bytes(8, "big") + data
