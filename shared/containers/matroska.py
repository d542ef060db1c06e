"""EBML: Matroska and WebM, by RFC 8794 and RFC 9559."""

import struct
from collections.abc import Iterator
from dataclasses import replace

from shared.containers.facts import HeaderFacts
from shared.containers.reader import EndOfFileError, HeaderReader
from shared.containers.refusals import ACCEPTED, unsupported_codec
from shared.containers.tracks import Track, select_video_track
from shared.errors import NotMediaError

_MATROSKA_CODECS = {
    "V_MPEG4/ISO/AVC": "h264",
    "V_MPEGH/ISO/HEVC": "hevc",
    "V_VP8": "vp8",
    "V_VP9": "vp9",
    "V_AV1": "av1",
    "V_MPEG4/ISO/SP": "mpeg4",
    "V_MPEG4/ISO/ASP": "mpeg4",
    "V_MPEG4/ISO/AP": "mpeg4",
    "V_MPEG4/MS/V3": "msmpeg4v3",
    "V_MPEG1": "mpeg1video",
    "V_MPEG2": "mpeg2video",
    "V_MJPEG": "mjpeg",
    "V_PRORES": "prores",
}
# In this wrapper the codec is an AVI code inside private data, which only the worker's probe reads.
_MATROSKA_WRAPPED = "V_MS/VFW/FOURCC"
_UNKNOWN_SIZE = -1


def inspect_matroska(reader: HeaderReader) -> HeaderFacts:
    """Inspect a Matroska or WebM video."""
    elements = _ebml_elements(reader, 0, reader.size)
    _, start, end = next(elements)
    document = b"matroska"
    for code, at, until in _ebml_elements(reader, start, end):
        if code == 0x4282:
            document = reader.read(at, min(until - at, 16)).rstrip(b"\0")
    if document not in (b"matroska", b"webm"):
        raise NotMediaError(f"the file is an EBML document, but not a video; {ACCEPTED}")
    facts = HeaderFacts("video", document.decode())
    for code, start, end in elements:
        if code == 0x18538067:
            return _inspect_segment(reader, start, end, facts)
    raise EndOfFileError


def _inspect_segment(reader: HeaderReader, start: int, end: int, facts: HeaderFacts) -> HeaderFacts:
    scale, duration, tracks = 1_000_000, None, None
    for code, at, until in _ebml_elements(reader, start, min(end, reader.size)):
        if code == 0x1549A966:
            info = dict(_ebml_values(reader, at, until, {0x2AD7B1, 0x4489}))
            scale = int.from_bytes(info.get(0x2AD7B1, b"")) or scale
            duration = _ebml_float(info.get(0x4489, b""))
        elif code == 0x1654AE6B:
            tracks = [_ebml_track(reader, *span) for kind, *span in _ebml_elements(reader, at, until) if kind == 0xAE]
        elif code == 0x1F43B675:
            break
    if tracks is None:
        raise EndOfFileError
    track = select_video_track(tracks)
    if track.codec is None and track.coding != _MATROSKA_WRAPPED:
        raise unsupported_codec(track.coding)
    return replace(
        facts,
        codec=track.codec,
        width_px=track.width_px or None,
        height_px=track.height_px or None,
        duration_s=duration * scale / 1e9 if duration else None,
        frame_rate=1 / track.frame_s if track.frame_s else None,
    )


def _ebml_track(reader: HeaderReader, start: int, end: int) -> Track:
    wanted = {0x83, 0x86, 0x88, 0x23E383}
    values = dict(_ebml_values(reader, start, end, wanted))
    # FlagDefault is set if the element is missing.
    track = Track(is_video=values.get(0x83) == b"\x01", is_default=bool(int.from_bytes(values.get(0x88, b"\x01"))))
    track.coding = values.get(0x86, b"").rstrip(b"\0").decode("latin-1")
    track.codec = _MATROSKA_CODECS.get(track.coding)
    # DefaultDuration: nanoseconds a frame.
    track.frame_s = int.from_bytes(values.get(0x23E383, b"")) / 1e9
    for code, at, until in _ebml_elements(reader, start, end):
        if code == 0xE0:
            size = dict(_ebml_values(reader, at, until, {0xB0, 0xBA}))
            track.width_px = int.from_bytes(size.get(0xB0, b""))
            track.height_px = int.from_bytes(size.get(0xBA, b""))
    return track


def _ebml_elements(reader: HeaderReader, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield the id of each element, and where its content starts and ends; one of unknown size ends at *end*."""
    while start < end:
        reader.count_box()
        code, start = _ebml_number(reader, start, keep_marker=True)
        size, start = _ebml_number(reader, start, keep_marker=False)
        stop = end if size == _UNKNOWN_SIZE else start + size
        yield code, start, stop
        start = stop


def _ebml_values(reader: HeaderReader, start: int, end: int, wanted: set[int]) -> Iterator[tuple[int, bytes]]:
    for code, at, until in _ebml_elements(reader, start, end):
        if code in wanted:
            yield code, reader.read(at, min(until - at, 256))


def _ebml_number(reader: HeaderReader, start: int, *, keep_marker: bool) -> tuple[int, int]:
    first = reader.read(start, 1)[0]
    length = 9 - first.bit_length()
    if length > 8:
        raise ValueError("not an EBML number")
    value = int.from_bytes(reader.read(start, length))
    if not keep_marker:
        value &= (1 << 7 * length) - 1
        if value == (1 << 7 * length) - 1:
            value = _UNKNOWN_SIZE
    return value, start + length


def _ebml_float(data: bytes) -> float | None:
    if len(data) not in (4, 8):
        return None
    value = float(struct.unpack(">f" if len(data) == 4 else ">d", data)[0])
    return value if 0 < value < 1e15 else None
