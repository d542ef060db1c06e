"""AVI, by Microsoft's AVI RIFF reference."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from shared.containers.facts import HeaderFacts
from shared.containers.reader import EndOfFileError, HeaderReader
from shared.containers.refusals import unsupported_codec
from shared.errors import NoVideoStreamError

BITMAP_CODECS = {
    **dict.fromkeys(("XVID", "DIVX", "DX50", "FMP4", "MP4V", "3IV2", "RMP4", "MP4S", "M4S2"), "mpeg4"),
    **dict.fromkeys(("H264", "X264", "AVC1"), "h264"),
    **dict.fromkeys(("HEVC", "HVC1", "HEV1", "H265", "X265"), "hevc"),
    **dict.fromkeys(("MJPG", "AVRN", "DMB1", "JPEG"), "mjpeg"),
    **dict.fromkeys(("MPG1", "MPEG"), "mpeg1video"),
    **dict.fromkeys(("MPG2", "MP2V"), "mpeg2video"),
    **dict.fromkeys(("DIV2", "MP42"), "msmpeg4v2"),
    **dict.fromkeys(("DIV3", "DIV4", "DIV5", "DIV6", "MP43", "MPG3", "AP41", "COL1"), "msmpeg4v3"),
    **dict.fromkeys(("H263", "S263", "U263", "X263"), "h263"),
    **dict.fromkeys(("AVDN", "AVDH"), "dnxhd"),
    **dict.fromkeys(("APCN", "APCH", "APCS", "APCO", "AP4H", "AP4X"), "prores"),
    **dict.fromkeys(("WVC1", "WMVA"), "vc1"),
    "WMV1": "wmv1",
    "WMV2": "wmv2",
    "WMV3": "wmv3",
    "FLV1": "flv1",
    "VP6F": "vp6f",
    "VP80": "vp8",
    "VP90": "vp9",
    "AV01": "av1",
}
"""FourCC of a BITMAPINFOHEADER, as in AVI and ASF, in capitals → one of VIDEO_CODECS."""


@dataclass(slots=True)
class _AVIHeader:
    frame_us: int = 0
    frames: int = 0
    width_px: int = 0
    height_px: int = 0
    codings: list[str] = field(default_factory=list)


def inspect_avi(reader: HeaderReader) -> HeaderFacts:
    """Inspect an AVI video."""
    for kind, start, end in _riff_chunks(reader, 12, reader.size):
        if kind == b"LIST" and reader.read(start, 4) == b"hdrl":
            return _avi_facts(_avi_header(reader, start + 4, end))
    raise EndOfFileError


def _avi_header(reader: HeaderReader, start: int, end: int) -> _AVIHeader:
    header = _AVIHeader()
    stack = [(start, end)]
    is_video = False
    while stack:
        for kind, at, until in _riff_chunks(reader, *stack.pop()):
            if kind == b"LIST" and reader.read(at, 4) == b"strl":
                stack.append((at + 4, until))
            elif kind == b"avih":
                header.frame_us, header.frames = struct.unpack("<I12xI", reader.read(at, 20))
                header.width_px, header.height_px = struct.unpack("<II", reader.read(at + 32, 8))
            elif kind == b"strh":
                is_video = reader.read(at, 4) == b"vids"
            elif kind == b"strf" and is_video:
                header.codings.append(reader.read(at + 16, 4).decode("latin-1").upper())
    return header


def _avi_facts(header: _AVIHeader) -> HeaderFacts:
    if not header.codings:
        raise NoVideoStreamError("the file has no video stream")
    codec = BITMAP_CODECS.get(header.codings[-1])
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


def _riff_chunks(reader: HeaderReader, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    while start + 8 <= end:
        reader.count_box()
        kind, size = struct.unpack("<4sI", reader.read(start, 8))
        yield kind, start + 8, start + 8 + size
        start += 8 + size + size % 2
