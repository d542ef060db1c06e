"""
Videos in streaming and broadcast formats: MPEG-TS, MPEG-PS, MXF, FLV and ASF (Windows Media).

ISO/IEC 13818-1, SMPTE ST 377-1, Adobe's Flash Video File Format 10.1 with Enhanced RTMP, and Microsoft's Advanced
Systems Format 01.20.
"""

import struct
from dataclasses import replace
from typing import Final

from shared.containers.facts import HeaderFacts
from shared.containers.reader import EndOfFileError, HeaderReader
from shared.containers.refusals import unsupported_codec
from shared.containers.riff import BITMAP_CODECS
from shared.errors import NoVideoStreamError

MAX_PACKETS: Final = 4000
MAX_TAGS: Final = 1000

# --- MPEG-TS, MPEG-PS, MXF --------------------------------------------------------------------------------------------

_SYNC: Final = 0x47
_STREAM_CODECS: Final = {
    0x01: "mpeg1video",
    0x02: "mpeg2video",
    0x10: "mpeg4",
    0x1B: "h264",
    0x24: "hevc",
    0xEA: "vc1",
}


def find_transport_packets(head: bytes) -> tuple[int, int] | None:
    """Return offset and length of a transport stream's packets; None if *head* does not begin one."""
    # Cameras and Blu-ray discs put a timestamp of four bytes before each packet.
    for first, length in ((0, 188), (4, 192)):
        places = range(first, len(head), length)
        if len(places) >= 3 and all(head[place] == _SYNC for place in places):
            return first, length
    return None


def inspect_transport_stream(reader: HeaderReader) -> HeaderFacts:
    """Inspect an MPEG transport stream; its codec is that of the first video stream in the program map."""
    first, length = find_transport_packets(reader.peek(0, 2048)) or (0, 188)
    program_map_pids: set[int] = set()
    for number in range(MAX_PACKETS):
        packet = reader.peek(first + number * length, 188)
        if len(packet) < 188 or packet[0] != _SYNC:
            break
        pid = (packet[1] & 0x1F) << 8 | packet[2]
        if pid == 0:
            section = _read_section(packet)
            program_map_pids |= {
                (section[at + 2] & 0x1F) << 8 | section[at + 3] for at in range(8, len(section) - 7, 4)
            }
        elif pid in program_map_pids:
            for kind in _parse_stream_types(_read_section(packet)):
                if kind in _STREAM_CODECS:
                    return HeaderFacts("video", "mpegts", _STREAM_CODECS[kind])
    return HeaderFacts("video", "mpegts")


def _read_section(packet: bytes) -> bytes:
    """Return the table that begins in *packet*, as far as the packet contains it."""
    if not packet[1] & 0x40 or not packet[3] & 0x10:
        return b""
    start = 4 + (1 + packet[4] if packet[3] & 0x20 else 0)
    if start >= len(packet):
        return b""
    start += 1 + packet[start]
    if start + 3 > len(packet):
        return b""
    length = (packet[start + 1] & 0x0F) << 8 | packet[start + 2]
    return packet[start : start + 3 + length]


def _parse_stream_types(section: bytes) -> list[int]:
    if len(section) < 12 or section[0] != 2:
        return []
    at = 12 + ((section[10] & 0x0F) << 8 | section[11])
    kinds = []
    while at + 5 <= len(section) - 4:
        kinds.append(section[at])
        at += 5 + ((section[at + 3] & 0x0F) << 8 | section[at + 4])
    return kinds


def inspect_program_stream(reader: HeaderReader) -> HeaderFacts:
    """Accept an MPEG program stream; the worker's probe finds out its codec."""
    del reader
    return HeaderFacts("video", "mpegps")


def inspect_mxf(reader: HeaderReader) -> HeaderFacts:
    """Accept an MXF file; the worker's probe finds out its codec."""
    del reader
    return HeaderFacts("video", "mxf")


# --- FLV --------------------------------------------------------------------------------------------------------------

_FLV_CODECS: Final = {2: "flv1", 4: "vp6f", 7: "h264", 12: "hevc"}
_FLV_LETTERS: Final = {b"avc1": "h264", b"hvc1": "hevc", b"av01": "av1", b"vp09": "vp9", b"vp08": "vp8"}
_SOUND, _VIDEO, _SCRIPT = 8, 9, 18


def inspect_flv(reader: HeaderReader) -> HeaderFacts:
    """Inspect an FLV video: duration and size are in its first script tag, the codec in its first video tag."""
    facts = HeaderFacts("video", "flv")
    (position,) = struct.unpack(">I", reader.read(5, 4))
    for number in range(MAX_TAGS):
        head = reader.peek(position + 4, 16)
        if len(head) < 12:
            if number == 0:
                raise EndOfFileError
            raise NoVideoStreamError("the file has no video stream")
        kind, length = head[0] & 0x1F, int.from_bytes(head[1:4])
        if kind == _SCRIPT:
            facts = _with_script_data(reader.peek(position + 15, min(length, 4096)), facts)
        elif kind == _VIDEO:
            return replace(facts, codec=_flv_codec(head[11:16]))
        elif kind != _SOUND:
            raise ValueError("not an FLV tag")
        position += 15 + length
    return facts


def _flv_codec(head: bytes) -> str:
    if head[0] & 0x80:
        coding = head[1:5]
        codec = _FLV_LETTERS.get(coding)
    else:
        coding = b"%d" % (head[0] & 0x0F)
        codec = _FLV_CODECS.get(head[0] & 0x0F)
    if codec is None:
        raise unsupported_codec(f"FLV {coding.decode('latin-1')}")
    return codec


def _with_script_data(data: bytes, facts: HeaderFacts) -> HeaderFacts:
    values = {}
    for name in (b"width", b"height", b"duration", b"framerate"):
        at = data.find(struct.pack(">H", len(name)) + name + b"\0")
        number = data[at + 3 + len(name) :][:8]
        if at >= 0 and len(number) == 8:
            (values[name],) = struct.unpack(">d", number)
    known = {name: value for name, value in values.items() if 0 < value < 1e9}
    return replace(
        facts,
        width_px=int(known.get(b"width", 0)) or None,
        height_px=int(known.get(b"height", 0)) or None,
        duration_s=known.get(b"duration"),
        frame_rate=known.get(b"framerate"),
    )


# --- ASF --------------------------------------------------------------------------------------------------------------

_FILE_PROPERTIES: Final = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_STREAM_PROPERTIES: Final = bytes.fromhex("9107dcb7b7a9cf118ee600c00c205365")
_VIDEO_STREAM: Final = bytes.fromhex("c0ef19bc4d5bcf11a8fd00805f5c442b")
_CONTENT_ENCRYPTION: Final = (
    bytes.fromhex("fbb3112223bdd211b4b700a0c955fc6e"),
    bytes.fromhex("14e68a292226174cb935dae07ee9289c"),
)


def inspect_asf(reader: HeaderReader) -> HeaderFacts:
    """Inspect a Windows Media file by the objects in its header object."""
    facts = HeaderFacts("video", "asf")
    (size,) = struct.unpack("<Q", reader.read(16, 8))
    position, end = 30, size
    has_video = False
    while position + 24 <= end:
        reader.count_box()
        kind, (length,) = reader.read(position, 16), struct.unpack("<Q", reader.read(position + 16, 8))
        if length < 24:
            raise ValueError("an object smaller than its header")
        if kind == _FILE_PROPERTIES:
            play, _, preroll_ms = struct.unpack("<QQQ", reader.read(position + 64, 24))
            duration_s = play / 1e7 - preroll_ms / 1e3
            facts = replace(facts, duration_s=duration_s if duration_s > 0 else None)
        elif kind in _CONTENT_ENCRYPTION:
            raise unsupported_codec("encrypted Windows Media")
        elif kind == _STREAM_PROPERTIES and not has_video and reader.read(position + 24, 16) == _VIDEO_STREAM:
            has_video = True
            width, height = struct.unpack("<II", reader.read(position + 78, 8))
            coding = reader.read(position + 105, 4).decode("latin-1")
            codec = BITMAP_CODECS.get(coding.upper())
            if codec is None:
                raise unsupported_codec(coding)
            facts = replace(facts, codec=codec, width_px=width or None, height_px=height or None)
        position += length
    if not has_video:
        raise NoVideoStreamError("the file has no video stream")
    return facts
