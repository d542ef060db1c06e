"""
What a file is, told by its first bytes and its container's header: never by its name, and without a decoder.

The api refuses on upload what these facts already rule out; the worker's probe, which decodes, has the last word.
Everything here reads little (a bounded number of boxes, some bytes of each), follows no pointer blindly, and
raises only the errors it names, whatever the bytes are.

Formats: ISO/IEC 14496-12 (mp4, mov, heic), RFC 8794 and RFC 9559 (EBML, Matroska, WebM), Microsoft's AVI RIFF
reference, ITU-T T.81 (JPEG), RFC 2083 (PNG), RFC 9649 (WebP), TIFF 6.0, and the BITMAPINFOHEADER of BMP.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import BinaryIO, Final, Literal

from shared.errors import (
    EmptyFileError,
    FrameRateTooHighError,
    MediaError,
    NotMediaError,
    NoVideoStreamError,
    TooLargeError,
    TooLongError,
    TooManyPixelsError,
    TruncatedError,
    UnsupportedCodecError,
    UnsupportedMediaError,
)

VIDEO_CODECS: Final = ("h264", "hevc", "vp8", "vp9", "av1", "mpeg4")

MAX_BOXES = 20_000
"""Boxes, elements or chunks looked at in one file."""


@dataclass(frozen=True, slots=True)
class MediaLimits:
    """What may be sent. Field names are the settings' names, which refusals quote."""

    max_bytes: int
    max_duration_s: float
    max_pixels: int
    """Width × height of one picture."""
    max_frame_rate: float


@dataclass(frozen=True, slots=True)
class HeaderFacts:
    """What the header claims; None where it does not say or was not worth reading."""

    kind: Literal["image", "video"]
    container: str
    codec: str | None = None
    """A name of VIDEO_CODECS for video whose header names it."""
    width_px: int | None = None
    height_px: int | None = None
    duration_s: float | None = None
    frame_rate: float | None = None


def inspect_header(stream: BinaryIO, size_bytes: int) -> HeaderFacts:
    """
    Tell what the file in *stream*, which is *size_bytes* long and seekable, is.

    Raises:
        EmptyFileError: It has no bytes.
        NotMediaError: It is no format known here.
        UnsupportedMediaError: It is media, but of a format that is not accepted.
        NoVideoStreamError: An accepted container with a complete header and no pictures in it.
        UnsupportedCodecError: The header names a video codec that is not accepted.
        TruncatedError: The file ends before its header does.
    """
    if size_bytes == 0:
        raise EmptyFileError("the file is empty")
    source = _Source(stream, size_bytes)
    try:
        return _inspect(source)
    except _EndOfFileError as error:
        raise TruncatedError("the file ends before its header is complete") from error
    except (struct.error, ValueError, OverflowError, ZeroDivisionError) as error:
        raise TruncatedError("the file's header is damaged") from error


def check_limits(facts: HeaderFacts, limits: MediaLimits) -> None:
    """
    Refuse what exceeds a limit; unknown facts pass.

    Raises:
        TooLongError, TooManyPixelsError, FrameRateTooHighError: With the fact and the limit in the sentence.
    """
    if facts.duration_s is not None and facts.duration_s > limits.max_duration_s:
        raise TooLongError(
            f"the video lasts {facts.duration_s:.1f} s; the limit max_duration_s is {limits.max_duration_s:g}"
        )
    if facts.width_px is not None and facts.height_px is not None:
        pixels = facts.width_px * facts.height_px
        if pixels > limits.max_pixels:
            raise TooManyPixelsError(
                f"the picture has {facts.width_px} × {facts.height_px} = {pixels} pixels;"
                f" the limit max_pixels is {limits.max_pixels}"
            )
    if facts.frame_rate is not None and facts.frame_rate > limits.max_frame_rate:
        raise FrameRateTooHighError(
            f"the video has {facts.frame_rate:.1f} frames a second;"
            f" the limit max_frame_rate is {limits.max_frame_rate:g}"
        )


def check_size(size_bytes: int, limits: MediaLimits) -> None:
    """Raise TooLargeError if a file of *size_bytes* is over the limit."""
    if size_bytes > limits.max_bytes:
        raise TooLargeError(f"the file has {size_bytes} bytes; the limit max_upload_bytes is {limits.max_bytes}")


class _EndOfFileError(Exception):
    """A read past the end."""


class _Source:
    """Exact reads at positions, and a count of boxes that cannot run away."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream = stream
        self.size = size
        self._boxes = 0

    def read(self, start: int, count: int) -> bytes:
        if start < 0 or start + count > self.size:
            raise _EndOfFileError
        self._stream.seek(start)
        data = self._stream.read(count)
        if len(data) < count:
            raise _EndOfFileError
        return data

    def peek(self, start: int, count: int) -> bytes:
        """Up to *count* bytes."""
        self._stream.seek(start)
        return self._stream.read(max(0, min(count, self.size - start)))

    def count_box(self) -> None:
        self._boxes += 1
        if self._boxes > MAX_BOXES:
            raise ValueError("too many boxes")


def _inspect(source: _Source) -> HeaderFacts:  # noqa: PLR0911 - one return for each family of formats
    head = source.peek(0, 512)
    riff_type = head[8:12] if head[:4] == b"RIFF" else b""
    if head[:3] == b"\xff\xd8\xff":
        return _image("jpeg", _jpeg_size(source))
    if head[:8] == b"\x89PNG\r\n\x1a\n":
        return _image("png", struct.unpack(">II", source.read(16, 8)))
    if riff_type == b"WEBP":
        return _image("webp", _webp_size(source))
    if head[:4] in (b"II*\0", b"MM\0*"):
        return _image("tiff", _tiff_size(source))
    if head[:2] == b"BM" and len(head) >= 18 and 12 <= struct.unpack("<I", head[14:18])[0] <= 256:
        width, height = struct.unpack("<ii", source.read(18, 8))
        return _image("bmp", (abs(width), abs(height)))
    if riff_type == b"AVI ":
        return _inspect_avi(source)
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return _inspect_matroska(source)
    if head[4:8] in _ISO_FIRST_BOXES:
        return _inspect_iso(source, head)
    raise _refusal(head, riff_type)


def _image(container: str, size: tuple[int, int] | None) -> HeaderFacts:
    if size is not None and 0 in size:
        raise ValueError("a picture without pixels")
    width, height = size or (None, None)
    return HeaderFacts("image", container, container, width, height)


_ACCEPTED = "accepted are JPEG, PNG, WebP, BMP, TIFF and HEIC images, and mp4, mov, mkv, webm and avi videos"
_OTHER_MEDIA: tuple[tuple[int, bytes, str], ...] = (
    (0, b"GIF8", "a GIF"),
    (0, b"%PDF", "a PDF"),
    (0, b"ID3", "an MP3 sound file"),
    (0, b"fLaC", "a FLAC sound file"),
    (0, b"OggS", "an Ogg file"),
    (0, b"FLV\x01", "an FLV video"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "a Windows Media file"),
    (0, b"\x00\x00\x01\xba", "an MPEG program stream"),
    (0, b"\x00\x00\x01\xb3", "an MPEG-1 or MPEG-2 video"),
    (0, b"8BPS", "a Photoshop document"),
    (0, b"II+\0", "a BigTIFF image"),
    (0, b"MM\0+", "a BigTIFF image"),
    (0, b"\0\0\0\x0cjP  ", "a JPEG 2000 image"),
    (0, b"\xff\x0a", "a JPEG XL image"),
    (0, b"\0\0\x01\0", "an icon"),
    (8, b"WAVE", "a WAVE sound file"),
)


def _refusal(head: bytes, riff_type: bytes) -> MediaError:
    for offset, magic, name in _OTHER_MEDIA:
        if head[offset : offset + len(magic)] == magic and (offset == 0 or riff_type == magic):
            return UnsupportedMediaError(f"the file is {name}; {_ACCEPTED}")
    if len(head) > 376 and head[0] == head[188] == head[376] == 0x47:
        return UnsupportedMediaError(f"the file is an MPEG transport stream; {_ACCEPTED}")
    if head[:1] == b"\xff" and len(head) > 1 and head[1] & 0xE6 in (0xE2, 0xE4):
        return UnsupportedMediaError(f"the file is an MPEG sound file; {_ACCEPTED}")
    return NotMediaError(f"the file is neither an image nor a video that is known here; {_ACCEPTED}")


# --- images ---------------------------------------------------------------------------------------------------------


def _jpeg_size(source: _Source) -> tuple[int, int]:
    position = 2
    while True:
        source.count_box()
        marker, code = source.read(position, 2)
        if marker != 0xFF:
            raise ValueError("no marker")
        if code == 0xFF:
            position += 1
            continue
        if 0xC0 <= code <= 0xCF and code not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", source.read(position + 5, 4))
            return width, height
        if code == 0xDA:
            raise ValueError("no frame header before the scan")
        if code in (0x01, 0xD8) or 0xD0 <= code <= 0xD7:
            position += 2
            continue
        position += 2 + struct.unpack(">H", source.read(position + 2, 2))[0]


def _webp_size(source: _Source) -> tuple[int, int]:
    form = source.read(12, 4)
    if form == b"VP8X":
        data = source.read(24, 6)
        return 1 + int.from_bytes(data[:3], "little"), 1 + int.from_bytes(data[3:], "little")
    if form == b"VP8L":
        bits = int.from_bytes(source.read(21, 4), "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if form == b"VP8 ":
        width, height = struct.unpack("<HH", source.read(26, 4))
        return width & 0x3FFF, height & 0x3FFF
    raise ValueError("no WebP bitstream")


def _tiff_size(source: _Source) -> tuple[int, int] | None:
    order = "<" if source.read(0, 2) == b"II" else ">"
    (position,) = struct.unpack(f"{order}I", source.read(4, 4))
    (entries,) = struct.unpack(f"{order}H", source.read(position, 2))
    found: dict[int, int] = {}
    for index in range(min(entries, 512)):
        tag, kind, _, value = struct.unpack(f"{order}HHII", source.read(position + 2 + 12 * index, 12))
        if tag in (256, 257):
            # A 16-bit value stands in the first half of the field.
            found[tag] = value >> 16 if kind == 3 and order == ">" else value & 0xFFFF if kind == 3 else value
    return (found[256], found[257]) if len(found) == 2 else None


# --- ISO base media: mp4, mov, heic ---------------------------------------------------------------------------------

_ISO_FIRST_BOXES = {b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"}
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1", b"hevc", b"hevx"}
_ISO_CODECS = {
    b"avc1": "h264",
    b"avc2": "h264",
    b"avc3": "h264",
    b"avc4": "h264",
    b"hvc1": "hevc",
    b"hev1": "hevc",
    b"dvh1": "hevc",
    b"dvhe": "hevc",
    b"vp08": "vp8",
    b"vp09": "vp9",
    b"av01": "av1",
    b"mp4v": "mpeg4",
}


def _inspect_iso(source: _Source, head: bytes) -> HeaderFacts:
    brands = _iso_brands(head)
    if brands and brands[0] in (b"avif", b"avis"):
        raise UnsupportedMediaError(f"the file is an AVIF image; {_ACCEPTED}")
    if brands and brands[0] in (b"crx ", b"jxl ", b"jp2 "):
        raise UnsupportedMediaError(f"the file is an image of an unusual kind; {_ACCEPTED}")
    if brands and brands[0] in _HEIC_BRANDS:
        if b"avif" in brands:
            raise UnsupportedMediaError(f"the file is an AVIF image; {_ACCEPTED}")
        return HeaderFacts("image", "heic", "hevc")
    if brands and brands[0].startswith((b"M4A", b"M4B")):
        raise NoVideoStreamError("the file holds sound only, no video stream")
    container = "mov" if not brands or brands[0] == b"qt  " else "mp4"
    facts = HeaderFacts("video", container)
    for kind, start, end in _iso_boxes(source, 0, source.size):
        if kind == b"moov":
            if end > source.size:
                raise _EndOfFileError
            return _inspect_moov(source, start, end, facts)
    raise TruncatedError("the file ends before its index (the moov box), without which no frame can be found")


def _iso_brands(head: bytes) -> list[bytes]:
    if head[4:8] != b"ftyp":
        return []
    end = min(struct.unpack(">I", head[:4])[0], len(head))
    return [head[8:12], *(head[start : start + 4] for start in range(16, end - 3, 4))]


def _iso_boxes(source: _Source, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Type, start and end of the content of each box in a stretch of the file; the last may lie open."""
    while start + 8 <= end:
        source.count_box()
        size, kind = struct.unpack(">I4s", source.read(start, 8))
        header = 8
        if size == 1:
            (size,) = struct.unpack(">Q", source.read(start + 8, 8))
            header = 16
        elif size == 0:
            size = end - start
        if size < header:
            raise ValueError("a box smaller than its header")
        yield kind, start + header, start + size
        start += size


def _inspect_moov(source: _Source, start: int, end: int, facts: HeaderFacts) -> HeaderFacts:
    duration_s = None
    tracks = []
    for kind, box_start, box_end in _iso_boxes(source, start, end):
        if kind == b"mvhd":
            duration_s = _iso_duration(source, box_start)
        elif kind == b"trak":
            track = _inspect_track(source, box_start, box_end)
            if track.is_video:
                tracks.append(track)
    if not tracks:
        raise NoVideoStreamError("the file holds no video stream")
    # Players show the first track that is enabled.
    track = next((track for track in tracks if track.is_default), tracks[0])
    if track.codec is None:
        raise unsupported_codec(track.coding)
    rate = track.samples / track.duration_s if track.duration_s and track.samples else None
    # An edit list may hide much of a track, and sound may go on after it.
    duration_s = min(track.duration_s or duration_s or 0.0, duration_s or track.duration_s or 0.0)
    return replace(
        facts,
        codec=track.codec,
        width_px=track.width_px or None,
        height_px=track.height_px or None,
        duration_s=duration_s or None,
        frame_rate=rate,
    )


@dataclass(slots=True)
class _Track:
    is_video: bool = False
    is_default: bool = True
    coding: str = ""
    codec: str | None = None
    width_px: int = 0
    height_px: int = 0
    duration_s: float | None = None
    samples: int = 0


def _inspect_track(source: _Source, start: int, end: int) -> _Track:
    track = _Track()
    stack = [(start, end)]
    while stack:
        for kind, box_start, box_end in _iso_boxes(source, *stack.pop()):
            if kind in (b"mdia", b"minf", b"stbl"):
                stack.append((box_start, min(box_end, end)))
            elif kind == b"hdlr":
                # QuickTime has a second one, for the data reference, inside minf.
                track.is_video |= source.read(box_start + 8, 4) == b"vide"
            elif kind == b"tkhd":
                track.is_default = bool(source.read(box_start + 3, 1)[0] & 1)
            elif kind == b"mdhd":
                track.duration_s = _iso_duration(source, box_start)
            elif kind == b"stsz":
                (track.samples,) = struct.unpack(">I", source.read(box_start + 8, 4))
            elif kind == b"stsd" and box_end - box_start >= 8 + 36:
                coding = source.read(box_start + 12, 4)
                track.coding = coding.decode("latin-1")
                track.codec = _ISO_CODECS.get(coding)
                track.width_px, track.height_px = struct.unpack(">HH", source.read(box_start + 40, 4))
    return track


def _iso_duration(source: _Source, start: int) -> float | None:
    """Seconds of an mvhd or mdhd box; None where it is unknown or, as in fragmented files, zero."""
    is_long = source.read(start, 1) == b"\x01"
    if is_long:
        scale, duration = struct.unpack(">IQ", source.read(start + 20, 12))
    else:
        scale, duration = struct.unpack(">II", source.read(start + 12, 8))
    if not scale or not duration or duration in (0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF):
        return None
    return float(duration / scale)


# --- EBML: Matroska, WebM -------------------------------------------------------------------------------------------

_MATROSKA_CODECS = {
    "V_MPEG4/ISO/AVC": "h264",
    "V_MPEGH/ISO/HEVC": "hevc",
    "V_VP8": "vp8",
    "V_VP9": "vp9",
    "V_AV1": "av1",
    "V_MPEG4/ISO/SP": "mpeg4",
    "V_MPEG4/ISO/ASP": "mpeg4",
    "V_MPEG4/ISO/AP": "mpeg4",
}
# In this wrapper the codec is an AVI code inside private data; the worker's probe reads it.
_MATROSKA_WRAPPED = "V_MS/VFW/FOURCC"
_UNKNOWN_SIZE = -1


def _inspect_matroska(source: _Source) -> HeaderFacts:
    elements = _ebml_elements(source, 0, source.size)
    _, start, end = next(elements)
    document = b"matroska"
    for code, at, until in _ebml_elements(source, start, end):
        if code == 0x4282:
            document = source.read(at, min(until - at, 16)).rstrip(b"\0")
    if document not in (b"matroska", b"webm"):
        raise NotMediaError(f"the file is an EBML document, but not a video; {_ACCEPTED}")
    facts = HeaderFacts("video", document.decode())
    for code, start, end in elements:
        if code == 0x18538067:
            return _inspect_segment(source, start, end, facts)
    raise _EndOfFileError


def _inspect_segment(source: _Source, start: int, end: int, facts: HeaderFacts) -> HeaderFacts:
    scale, duration, tracks = 1_000_000, None, None
    for code, at, until in _ebml_elements(source, start, min(end, source.size)):
        if code == 0x1549A966:
            info = dict(_ebml_values(source, at, until, {0x2AD7B1, 0x4489}))
            scale = int.from_bytes(info.get(0x2AD7B1, b"")) or scale
            duration = _ebml_float(info.get(0x4489, b""))
        elif code == 0x1654AE6B:
            tracks = [_ebml_track(source, *span) for kind, *span in _ebml_elements(source, at, until) if kind == 0xAE]
        elif code == 0x1F43B675:
            break
    if tracks is None:
        raise _EndOfFileError
    videos = [track for track in tracks if track.is_video]
    if not videos:
        raise NoVideoStreamError("the file holds no video stream")
    track = next((track for track in videos if track.is_default), videos[0])
    if track.codec is None and track.coding != _MATROSKA_WRAPPED:
        raise unsupported_codec(track.coding)
    return replace(
        facts,
        codec=track.codec,
        width_px=track.width_px or None,
        height_px=track.height_px or None,
        duration_s=duration * scale / 1e9 if duration else None,
        frame_rate=1 / track.duration_s if track.duration_s else None,
    )


def _ebml_track(source: _Source, start: int, end: int) -> _Track:
    wanted = {0x83, 0x86, 0x88, 0x23E383}
    values = dict(_ebml_values(source, start, end, wanted))
    # FlagDefault, which is set unless it stands there.
    track = _Track(is_video=values.get(0x83) == b"\x01", is_default=bool(int.from_bytes(values.get(0x88, b"\x01"))))
    track.coding = values.get(0x86, b"").rstrip(b"\0").decode("latin-1")
    track.codec = _MATROSKA_CODECS.get(track.coding)
    # DefaultDuration: nanoseconds a frame.
    track.duration_s = int.from_bytes(values.get(0x23E383, b"")) / 1e9
    for code, at, until in _ebml_elements(source, start, end):
        if code == 0xE0:
            size = dict(_ebml_values(source, at, until, {0xB0, 0xBA}))
            track.width_px = int.from_bytes(size.get(0xB0, b""))
            track.height_px = int.from_bytes(size.get(0xBA, b""))
    return track


def _ebml_elements(source: _Source, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Id, start and end of the content of each element; one of unknown size lasts until *end*."""
    while start < end:
        source.count_box()
        code, start = _ebml_number(source, start, keep_marker=True)
        size, start = _ebml_number(source, start, keep_marker=False)
        stop = end if size == _UNKNOWN_SIZE else start + size
        yield code, start, stop
        start = stop


def _ebml_values(source: _Source, start: int, end: int, wanted: set[int]) -> Iterator[tuple[int, bytes]]:
    for code, at, until in _ebml_elements(source, start, end):
        if code in wanted:
            yield code, source.read(at, min(until - at, 256))


def _ebml_number(source: _Source, start: int, *, keep_marker: bool) -> tuple[int, int]:
    first = source.read(start, 1)[0]
    length = 9 - first.bit_length()
    if length > 8:
        raise ValueError("no EBML number")
    value = int.from_bytes(source.read(start, length))
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


# --- AVI ------------------------------------------------------------------------------------------------------------

_AVI_CODECS = {
    **dict.fromkeys(("XVID", "DIVX", "DX50", "FMP4", "MP4V", "3IV2", "RMP4"), "mpeg4"),
    **dict.fromkeys(("H264", "X264", "AVC1"), "h264"),
    **dict.fromkeys(("HEVC", "HVC1", "HEV1", "H265", "X265"), "hevc"),
    "VP80": "vp8",
    "VP90": "vp9",
    "AV01": "av1",
}


@dataclass(slots=True)
class _AVIHeader:
    frame_us: int = 0
    frames: int = 0
    width_px: int = 0
    height_px: int = 0
    codings: list[str] = field(default_factory=list)


def _inspect_avi(source: _Source) -> HeaderFacts:
    for kind, start, end in _riff_chunks(source, 12, source.size):
        if kind == b"LIST" and source.read(start, 4) == b"hdrl":
            return _avi_facts(_avi_header(source, start + 4, end))
    raise _EndOfFileError


def _avi_header(source: _Source, start: int, end: int) -> _AVIHeader:
    header = _AVIHeader()
    stack = [(start, end)]
    is_video = False
    while stack:
        for kind, at, until in _riff_chunks(source, *stack.pop()):
            if kind == b"LIST" and source.read(at, 4) == b"strl":
                stack.append((at + 4, until))
            elif kind == b"avih":
                header.frame_us, header.frames = struct.unpack("<I12xI", source.read(at, 20))
                header.width_px, header.height_px = struct.unpack("<II", source.read(at + 32, 8))
            elif kind == b"strh":
                is_video = source.read(at, 4) == b"vids"
            elif kind == b"strf" and is_video:
                header.codings.append(source.read(at + 16, 4).decode("latin-1").upper())
    return header


def _avi_facts(header: _AVIHeader) -> HeaderFacts:
    if not header.codings:
        raise NoVideoStreamError("the file holds no video stream")
    codec = _AVI_CODECS.get(header.codings[-1])
    if codec is None:
        raise unsupported_codec(header.codings[-1])
    return HeaderFacts(
        "video",
        "avi",
        codec,
        header.width_px or None,
        header.height_px or None,
        duration_s=header.frame_us * header.frames / 1e6 or None,
        frame_rate=1e6 / header.frame_us if header.frame_us else None,
    )


def _riff_chunks(source: _Source, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    while start + 8 <= end:
        source.count_box()
        kind, size = struct.unpack("<4sI", source.read(start, 8))
        yield kind, start + 8, start + 8 + size
        start += 8 + size + size % 2


_CODEC_NAMES = {
    **dict.fromkeys(("\0\0\0\0", "DIB ", "raw ", "V_UNCOMPRESSED", "rawvideo"), "uncompressed video"),
    **dict.fromkeys(("mjpeg", "MJPG", "V_MJPEG", "jpeg", "mjpa", "mjpb", "mjpg"), "Motion JPEG"),
}
"""What containers, and ffmpeg, call codecs that are often sent and not accepted → what people call them."""


def unsupported_codec(coding: str) -> UnsupportedCodecError:
    """The refusal of a video codec, by whatever name the file or the decoder has for it."""
    printable = "".join(character for character in coding if character.isprintable()).strip()
    name = _CODEC_NAMES.get(coding) or (repr(printable[:32]) if printable else "without a name")
    return UnsupportedCodecError(
        f"the video codec {name} is not supported; supported are H.264, HEVC, VP8, VP9, AV1 and MPEG-4"
    )
