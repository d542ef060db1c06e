"""ISO base media, by ISO/IEC 14496-12: mp4, mov and 3gp videos, HEIC and AVIF images."""

import struct
from collections.abc import Iterator
from dataclasses import replace

from shared.containers.facts import HeaderFacts
from shared.containers.reader import EndOfFileError, HeaderReader
from shared.containers.refusals import ACCEPTED, unsupported_codec
from shared.containers.tracks import Track, select_video_track
from shared.errors import NoVideoStreamError, TruncatedError, UnsupportedMediaError

FIRST_BOXES = {b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"}
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
_AVIF_BRANDS = {b"avif", b"avis"}
_PICTURE_BRANDS = _HEIC_BRANDS | _AVIF_BRANDS | {b"mif1", b"mif2", b"msf1", b"miaf"}
_ISO_CODECS = {
    **dict.fromkeys((b"avc1", b"avc2", b"avc3", b"avc4", b"dva1", b"dvav"), "h264"),
    **dict.fromkeys((b"ai12", b"ai15", b"ai1p", b"ai1q", b"ai52", b"ai53", b"ai55", b"ai56", b"ai5p", b"ai5q"), "h264"),
    **dict.fromkeys((b"hvc1", b"hev1", b"dvh1", b"dvhe"), "hevc"),
    **dict.fromkeys((b"apcn", b"apch", b"apcs", b"apco", b"ap4h", b"ap4x"), "prores"),
    **dict.fromkeys((b"AVdn", b"AVdh"), "dnxhd"),
    **dict.fromkeys((b"jpeg", b"mjpa", b"mjpg", b"AVDJ", b"dmb1"), "mjpeg"),
    **dict.fromkeys((b"s263", b"h263", b"H263"), "h263"),
    **dict.fromkeys((b"m2v1", b"mp2v", b"mpg2", b"AVmp", b"xdhd", b"xdh2"), "mpeg2video"),
    # HDV, XDCAM and IMX, in their sizes and rates.
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


def inspect_iso(source: HeaderReader) -> HeaderFacts:
    """A video, a HEIC or AVIF image, or an animated AVIF."""
    brands = _iso_brands(source.peek(0, 512))
    major = brands[0] if brands else b""
    if major in (b"crx ", b"jp2 ", b"jpx "):
        raise UnsupportedMediaError(f"the file is an image of an unusual kind, which is not accepted; {ACCEPTED}")
    if major in _PICTURE_BRANDS:
        return _inspect_pictures(source, major, set(brands))
    if major.startswith((b"M4A", b"M4B")):
        raise NoVideoStreamError("the file holds sound only, no video stream")
    container = "mov" if not major or major == b"qt  " else "3gp" if major.startswith((b"3gp", b"3g2")) else "mp4"
    facts = HeaderFacts("video", container)
    for kind, start, end in iso_boxes(source, 0, source.size):
        if kind == b"moov":
            if end > source.size:
                raise EndOfFileError
            return _inspect_moov(source, start, end, facts)
    raise TruncatedError("the file ends before its index (the moov box), without which no frame can be found")


def _inspect_pictures(source: HeaderReader, major: bytes, brands: set[bytes]) -> HeaderFacts:
    """A HEIC or AVIF file: its pictures are items of the meta box, and a sequence is a track of the moov box."""
    found = {kind: (start, end) for kind, start, end in iso_boxes(source, 0, source.size)}
    if brands & _AVIF_BRANDS:
        if b"moov" in found and major != b"avis":
            # What reads AVIF here takes the track for what is shown where the first brand says so, and else the item.
            raise UnsupportedMediaError(
                "the file is an AVIF image with a sequence beside it, which is not accepted;"
                f" send the sequence as a video, and the image by itself; {ACCEPTED}"
            )
        return _with_item_size(source, found, HeaderFacts("video" if b"moov" in found else "image", "avif", "av1"))
    if b"moov" in found:
        # What reads HEIC here reads its items alone, so that a track would go unseen.
        raise UnsupportedMediaError(
            f"the file is a HEIC sequence, which is not accepted; send it as a video or as single images; {ACCEPTED}"
        )
    if not brands & _HEIC_BRANDS:
        raise UnsupportedMediaError(
            f"the file is a HEIF image in neither HEVC nor AV1, which is not accepted; {ACCEPTED}"
        )
    return _with_item_size(source, found, HeaderFacts("image", "heic", "hevc"))


def _with_item_size(source: HeaderReader, found: dict[bytes, tuple[int, int]], facts: HeaderFacts) -> HeaderFacts:
    """The largest of the sizes that the file names: of a picture made of tiles, that of the whole."""
    stack = [(start + 4, end) for kind, (start, end) in found.items() if kind == b"meta"]
    largest = (0, 0)
    while stack:
        for kind, start, end in iso_boxes(source, *stack.pop()):
            if kind in (b"iprp", b"ipco"):
                stack.append((start, end))
            elif kind == b"ispe":
                size = struct.unpack(">II", source.read(start + 4, 8))
                largest = max(largest, (size[0], size[1]), key=lambda each: each[0] * each[1])
    return replace(facts, width_px=largest[0] or None, height_px=largest[1] or None)


def _iso_brands(head: bytes) -> list[bytes]:
    if head[4:8] != b"ftyp":
        return []
    end = min(struct.unpack(">I", head[:4])[0], len(head))
    return [head[8:12], *(head[start : start + 4] for start in range(16, end - 3, 4))]


def iso_boxes(source: HeaderReader, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
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


def _inspect_moov(source: HeaderReader, start: int, end: int, facts: HeaderFacts) -> HeaderFacts:
    duration_s = None
    tracks = []
    for kind, box_start, box_end in iso_boxes(source, start, end):
        if kind == b"mvhd":
            duration_s = _iso_duration(source, box_start)
        elif kind == b"trak":
            tracks.append(_inspect_track(source, box_start, box_end))
    track = select_video_track(tracks)
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


def _inspect_track(source: HeaderReader, start: int, end: int) -> Track:
    track = Track()
    stack = [(start, end)]
    while stack:
        for kind, box_start, box_end in iso_boxes(source, *stack.pop()):
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


def _iso_duration(source: HeaderReader, start: int) -> float | None:
    """Seconds of an mvhd or mdhd box; None where it is unknown or, as in fragmented files, zero."""
    is_long = source.read(start, 1) == b"\x01"
    if is_long:
        scale, duration = struct.unpack(">IQ", source.read(start + 20, 12))
    else:
        scale, duration = struct.unpack(">II", source.read(start + 12, 8))
    if not scale or not duration or duration in (0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF):
        return None
    return float(duration / scale)
