"""ISO base media, by ISO/IEC 14496-12: mp4, mov and 3gp videos, HEIC and AVIF images."""

import struct
from collections.abc import Iterator
from dataclasses import replace

from shared.containers.facts import HeaderFacts
from shared.containers.reader import EndOfFileError, HeaderReader
from shared.containers.refusals import ACCEPTED, unsupported_codec
from shared.containers.tracks import Track, select_video_track
from shared.errors import NoVideoStreamError, TruncatedError, UnsupportedMediaError

LEADING_BOX_TYPES = {b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"}
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
_AVIF_BRANDS = {b"avif", b"avis"}
_HEIF_BRANDS = _HEIC_BRANDS | _AVIF_BRANDS | {b"mif1", b"mif2", b"msf1", b"miaf"}
_ISO_CODECS = {
    **dict.fromkeys((b"avc1", b"avc2", b"avc3", b"avc4", b"dva1", b"dvav"), "h264"),
    **dict.fromkeys((b"ai12", b"ai15", b"ai1p", b"ai1q", b"ai52", b"ai53", b"ai55", b"ai56", b"ai5p", b"ai5q"), "h264"),
    **dict.fromkeys((b"hvc1", b"hev1", b"dvh1", b"dvhe"), "hevc"),
    **dict.fromkeys((b"apcn", b"apch", b"apcs", b"apco", b"ap4h", b"ap4x"), "prores"),
    **dict.fromkeys((b"AVdn", b"AVdh"), "dnxhd"),
    **dict.fromkeys((b"jpeg", b"mjpa", b"mjpg", b"AVDJ", b"dmb1"), "mjpeg"),
    **dict.fromkeys((b"s263", b"h263", b"H263"), "h263"),
    **dict.fromkeys((b"m2v1", b"mp2v", b"mpg2", b"AVmp", b"xdhd", b"xdh2"), "mpeg2video"),
    # HDV, XDCAM and IMX, by size and frame rate.
    **{b"hdv%c" % letter: "mpeg2video" for letter in b"123456789a"},
    **{b"xdv%c" % letter: "mpeg2video" for letter in b"123456789abcdef"},
    **{b"xd5%c" % letter: "mpeg2video" for letter in b"1459abcdef"},
    **{b"mx%c%c" % (size, field): "mpeg2video" for size in b"345" for field in b"np"},
    **dict.fromkeys((b"m1v1", b"mp1v", b"mpeg"), "mpeg1video"),
    b"mp4v": "mpeg4",
    b"vc-1": "vc1",
    b"vp08": "vp8",
    b"vp09": "vp9",
    b"av01": "av1",
}


def inspect_iso(reader: HeaderReader) -> HeaderFacts:
    """Inspect a video, a HEIC or AVIF image, or an animated AVIF."""
    brands = _iso_brands(reader.peek(0, 512))
    major = brands[0] if brands else b""
    if major in (b"crx ", b"jp2 ", b"jpx "):
        raise UnsupportedMediaError(f"the file is an image in a rare format, which is not accepted; {ACCEPTED}")
    if major in _HEIF_BRANDS:
        return _inspect_heif(reader, major, set(brands))
    if major.startswith((b"M4A", b"M4B")):
        raise NoVideoStreamError("the file holds sound only, no video stream")
    container = "mov" if not major or major == b"qt  " else "3gp" if major.startswith((b"3gp", b"3g2")) else "mp4"
    facts = HeaderFacts("video", container)
    for kind, start, end in iso_boxes(reader, 0, reader.size):
        if kind == b"moov":
            if end > reader.size:
                raise EndOfFileError
            return _inspect_moov(reader, start, end, facts)
    raise TruncatedError("the file ends before its index (the moov box), without which no frame can be found")


def _inspect_heif(reader: HeaderReader, major: bytes, brands: set[bytes]) -> HeaderFacts:
    """Inspect a HEIC or AVIF file: its images are items of the meta box, a sequence is a track of the moov box."""
    found = {kind: (start, end) for kind, start, end in iso_boxes(reader, 0, reader.size)}
    if brands & _AVIF_BRANDS:
        if b"moov" in found and major != b"avis":
            # The AVIF decoder shows the track if the first brand says so, and otherwise the item.
            raise UnsupportedMediaError(
                "the file holds both an AVIF image and a sequence, which is not accepted;"
                f" send the sequence as a video, and the image separately; {ACCEPTED}"
            )
        return _with_item_size(reader, found, HeaderFacts("video" if b"moov" in found else "image", "avif", "av1"))
    if b"moov" in found:
        # The HEIC decoder reads items only, so that a track would not be analysed.
        raise UnsupportedMediaError(
            f"the file is a HEIC sequence, which is not accepted; send it as a video or as single images; {ACCEPTED}"
        )
    if not brands & _HEIC_BRANDS:
        raise UnsupportedMediaError(
            f"the file is a HEIF image in neither HEVC nor AV1, which is not accepted; {ACCEPTED}"
        )
    return _with_item_size(reader, found, HeaderFacts("image", "heic", "hevc"))


def _with_item_size(reader: HeaderReader, found: dict[bytes, tuple[int, int]], facts: HeaderFacts) -> HeaderFacts:
    """Add the largest size that the file names: for an image made of tiles, that of the whole."""
    stack = [(start + 4, end) for kind, (start, end) in found.items() if kind == b"meta"]
    largest = (0, 0)
    while stack:
        for kind, start, end in iso_boxes(reader, *stack.pop()):
            if kind in (b"iprp", b"ipco"):
                stack.append((start, end))
            elif kind == b"ispe":
                size = struct.unpack(">II", reader.read(start + 4, 8))
                largest = max(largest, (size[0], size[1]), key=lambda each: each[0] * each[1])
    return replace(facts, width_px=largest[0] or None, height_px=largest[1] or None)


def _iso_brands(head: bytes) -> list[bytes]:
    if head[4:8] != b"ftyp":
        return []
    end = min(struct.unpack(">I", head[:4])[0], len(head))
    return [head[8:12], *(head[start : start + 4] for start in range(16, end - 3, 4))]


def iso_boxes(reader: HeaderReader, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield type, content start and content end of each box between *start* and *end*; the last may be cut off."""
    while start + 8 <= end:
        reader.count_box()
        size, kind = struct.unpack(">I4s", reader.read(start, 8))
        header = 8
        if size == 1:
            (size,) = struct.unpack(">Q", reader.read(start + 8, 8))
            header = 16
        elif size == 0:
            size = end - start
        if size < header:
            raise ValueError("a box smaller than its header")
        yield kind, start + header, start + size
        start += size


def _inspect_moov(reader: HeaderReader, start: int, end: int, facts: HeaderFacts) -> HeaderFacts:
    duration_s = None
    tracks = []
    for kind, box_start, box_end in iso_boxes(reader, start, end):
        if kind == b"mvhd":
            duration_s = _iso_duration(reader, box_start)
        elif kind == b"trak":
            tracks.append(_inspect_track(reader, box_start, box_end))
    track = select_video_track(tracks)
    if track.codec is None:
        raise unsupported_codec(track.coding)
    rate = track.samples / track.duration_s if track.duration_s and track.samples else None
    # An edit list may hide part of a track, and sound may continue after the video ends.
    duration_s = min(track.duration_s or duration_s or 0.0, duration_s or track.duration_s or 0.0)
    return replace(
        facts,
        codec=track.codec,
        width_px=track.width_px or None,
        height_px=track.height_px or None,
        duration_s=duration_s or None,
        frame_rate=rate,
    )


def _inspect_track(reader: HeaderReader, start: int, end: int) -> Track:
    track = Track()
    stack = [(start, end)]
    while stack:
        for kind, box_start, box_end in iso_boxes(reader, *stack.pop()):
            if kind in (b"mdia", b"minf", b"stbl"):
                stack.append((box_start, min(box_end, end)))
            elif kind == b"hdlr":
                # QuickTime has a second hdlr box, for the data reference, inside minf.
                track.is_video |= reader.read(box_start + 8, 4) == b"vide"
            elif kind == b"tkhd":
                track.is_default = bool(reader.read(box_start + 3, 1)[0] & 1)
            elif kind == b"mdhd":
                track.duration_s = _iso_duration(reader, box_start)
            elif kind == b"stsz":
                (track.samples,) = struct.unpack(">I", reader.read(box_start + 8, 4))
            elif kind == b"stsd" and box_end - box_start >= 8 + 36:
                coding = reader.read(box_start + 12, 4)
                track.coding = coding.decode("latin-1")
                track.codec = _ISO_CODECS.get(coding)
                track.width_px, track.height_px = struct.unpack(">HH", reader.read(box_start + 40, 4))
    return track


def _iso_duration(reader: HeaderReader, start: int) -> float | None:
    """Return the seconds of an mvhd or mdhd box; None if unknown or, as in fragmented files, zero."""
    is_long = reader.read(start, 1) == b"\x01"
    if is_long:
        scale, duration = struct.unpack(">IQ", reader.read(start + 20, 12))
    else:
        scale, duration = struct.unpack(">II", reader.read(start + 12, 8))
    if not scale or not duration or duration in (0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF):
        return None
    return float(duration / scale)
