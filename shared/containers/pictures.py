"""
Still pictures and animations outside ISO base media.

ITU-T T.81 (JPEG), RFC 2083 and the third edition of PNG (APNG), GIF89a, RFC 9649 (WebP), TIFF 6.0, the
BITMAPINFOHEADER of BMP, ITU-T T.800 (JPEG 2000), ISO/IEC 18181-1 and -2 (JPEG XL).
"""

import struct
from typing import Literal

from shared.containers.facts import HeaderFacts
from shared.containers.iso import iso_boxes
from shared.containers.reader import EndOfFileError, HeaderReader
from shared.containers.refusals import ACCEPTED
from shared.errors import UnsupportedMediaError


def _facts(
    container: str, size: tuple[int, int] | None, kind: Literal["image", "video"] = "image", codec: str | None = None
) -> HeaderFacts:
    if size is not None and 0 in size:
        raise ValueError("a picture without pixels")
    width, height = size or (None, None)
    return HeaderFacts(kind, container, codec or container, width, height)


def inspect_jpeg(source: HeaderReader) -> HeaderFacts:
    """A JPEG; what phones append to one is the worker's to find."""
    return _facts("jpeg", _jpeg_size(source))


def _jpeg_size(source: HeaderReader) -> tuple[int, int]:
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


def inspect_png(source: HeaderReader) -> HeaderFacts:
    """A PNG; one with an animation control chunk before its data is an animation."""
    width, height = struct.unpack(">II", source.read(16, 8))
    position = 8
    kind: Literal["image", "video"] = "image"
    while not source.is_tired:
        source.count_box()
        head = source.peek(position, 8)
        if len(head) < 8 or head[4:] in (b"IDAT", b"IEND"):
            break
        if head[4:] == b"acTL":
            kind = "video"
            break
        position += 12 + struct.unpack(">I", head[:4])[0]
    return _facts("png", (width, height), kind)


def inspect_gif(source: HeaderReader) -> HeaderFacts:
    """A GIF; one with more than one picture, or with so many blocks that it is not read to the end, is an animation."""
    width, height, flags = struct.unpack("<HHB", source.read(6, 5))
    position = 13 + _colours(flags)
    pictures = 0
    while pictures < 2 and not source.is_tired:
        block = source.peek(position, 10)
        if not block or block[0] == 0x3B:
            break
        if block[0] == 0x2C and len(block) == 10:
            pictures += 1
            position += 11 + _colours(block[9])
        elif block[0] == 0x21:
            position += 2
        else:
            break
        position = _after_blocks(source, position)
    return _facts("gif", (width, height), "video" if pictures > 1 or source.is_tired else "image")


def _colours(flags: int) -> int:
    """Bytes of the table of colours that GIF's *flags* announce."""
    return 3 << 1 + (flags & 7) if flags & 0x80 else 0


def _after_blocks(source: HeaderReader, position: int) -> int:
    while not source.is_tired:
        source.count_box()
        length = source.peek(position, 1)
        position += 1
        if not length or length[0] == 0:
            break
        position += length[0]
    return position


def inspect_webp(source: HeaderReader) -> HeaderFacts:
    """A WebP; whether it moves, its extended header says."""
    form = source.read(12, 4)
    if form == b"VP8X":
        flags, size = source.read(20, 1)[0], source.read(24, 6)
        kind: Literal["image", "video"] = "video" if flags & 0x02 else "image"
        return _facts("webp", (1 + int.from_bytes(size[:3], "little"), 1 + int.from_bytes(size[3:], "little")), kind)
    if form == b"VP8L":
        bits = int.from_bytes(source.read(21, 4), "little")
        return _facts("webp", (1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)))
    if form == b"VP8 ":
        width, height = struct.unpack("<HH", source.read(26, 4))
        return _facts("webp", (width & 0x3FFF, height & 0x3FFF))
    raise ValueError("no WebP bitstream")


def is_bmp(head: bytes) -> bool:
    """Whether *head* begins a BMP: its two letters alone begin many other files."""
    return head[:2] == b"BM" and len(head) >= 18 and 12 <= int(struct.unpack("<I", head[14:18])[0]) <= 256


def inspect_bmp(source: HeaderReader) -> HeaderFacts:
    """A BMP; its oldest header has sizes of 16 bits."""
    if source.read(14, 4) == b"\x0c\0\0\0":
        return _facts("bmp", struct.unpack("<HH", source.read(18, 4)))
    width, height = struct.unpack("<ii", source.read(18, 8))
    return _facts("bmp", (abs(width), abs(height)))


_SUBFILE, _WIDTH, _HEIGHT, _SUB_IFDS, _SAMPLE_FORMAT, _DNG = 254, 256, 257, 330, 339, 50706
_FLOAT = 3


def inspect_tiff(source: HeaderReader) -> HeaderFacts:
    """
    A TIFF, by its first page.

    Raises:
        UnsupportedMediaError: Its samples are floating-point numbers, or it is a camera's raw file, whose first page
            is a thumbnail.
    """
    order = "<" if source.read(0, 2) == b"II" else ">"
    (position,) = struct.unpack(f"{order}I", source.read(4, 4))
    (entries,) = struct.unpack(f"{order}H", source.read(position, 2))
    found: dict[int, int] = {}
    for index in range(min(entries, 512)):
        tag, kind, count, value = struct.unpack(f"{order}HHII", source.read(position + 2 + 12 * index, 12))
        if kind == 3:
            # Up to two 16-bit values stand in the field itself, the first of them first; more stand elsewhere.
            if count > 2 and tag == _SAMPLE_FORMAT:
                (value,) = struct.unpack(f"{order}H", source.read(value, 2))
            else:
                value = value >> 16 if order == ">" else value & 0xFFFF
        found[tag] = value
    if _DNG in found or (_SUB_IFDS in found and found.get(_SUBFILE, 0) & 1):
        raise UnsupportedMediaError(
            "the file is a camera's raw picture, which is not accepted; send what was made of it, as JPEG for instance"
        )
    if found.get(_SAMPLE_FORMAT) == _FLOAT:
        raise UnsupportedMediaError(
            "the file is a TIFF whose samples are floating-point numbers, which have no brightness of their own;"
            " send it with 8 or 16 bits a sample"
        )
    size = (found[_WIDTH], found[_HEIGHT]) if {_WIDTH, _HEIGHT} <= found.keys() else None
    return _facts("tiff", size)


def inspect_jpeg2000_codestream(source: HeaderReader) -> HeaderFacts:
    """A JPEG 2000 codestream without a container."""
    right, bottom, left, top = struct.unpack(">IIII", source.read(8, 16))
    return _facts("jpeg2000", (max(0, right - left), max(0, bottom - top)))


def inspect_jpeg2000(source: HeaderReader) -> HeaderFacts:
    """A JPEG 2000 file."""
    for kind, start, end in iso_boxes(source, 0, source.size):
        if kind == b"jp2h":
            for inner, at, _ in iso_boxes(source, start, end):
                if inner == b"ihdr":
                    height, width = struct.unpack(">II", source.read(at, 8))
                    return _facts("jpeg2000", (width, height))
        elif kind == b"jp2c":
            break
    raise EndOfFileError


def inspect_jxl(source: HeaderReader) -> HeaderFacts:
    """A JPEG XL file: its codestream is the contents of its codestream boxes, which may be of a few bytes each."""
    begin = b""
    for kind, start, end in iso_boxes(source, 0, source.size):
        if kind in (b"jxlc", b"jxlp"):
            # A part begins with its number.
            at = start + 4 if kind == b"jxlp" else start
            begin += source.peek(at, min(max(0, end - at), _JXL_BEGIN_BYTES - len(begin)))
            if len(begin) >= _JXL_BEGIN_BYTES:
                break
    return _inspect_jxl(begin)


def inspect_jxl_codestream(source: HeaderReader) -> HeaderFacts:
    """A JPEG XL codestream without a container."""
    return _inspect_jxl(source.peek(0, _JXL_BEGIN_BYTES))


_JXL_BEGIN_BYTES = 66
"""Of a codestream: its two first bytes, and more than the fields take that are read here."""


def _inspect_jxl(begin: bytes) -> HeaderFacts:
    bits = _Bits(begin[2:])
    size = _jxl_size(bits)
    is_default = bits.take(1)
    if not is_default and bits.take(1):
        bits.take(3)  # The orientation: the decoder applies it.
        if bits.take(1):
            _jxl_size(bits)
        if bits.take(1):
            _skip_jxl_preview(bits)
        if bits.take(1):
            raise UnsupportedMediaError(
                f"the file is an animated JPEG XL, which is not accepted; send it as a video; {ACCEPTED}"
            )
    return _facts("jxl", size)


class _Bits:
    """Reads bits, the lowest of each byte first."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "little")
        self._left = 8 * len(data)

    def take(self, count: int) -> int:
        if count > self._left:
            raise EndOfFileError
        value = self._value & (1 << count) - 1
        self._value >>= count
        self._left -= count
        return value

    def number(self, *forms: tuple[int, int]) -> int:
        """One of four forms, an offset and a count of bits each, of which two bits say which it is."""
        offset, count = forms[self.take(2)]
        return offset + self.take(count)


_JXL_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
_JXL_SIDES = ((1, 9), (1, 13), (1, 18), (1, 30))


def _jxl_size(bits: _Bits) -> tuple[int, int]:
    is_small = bits.take(1)
    height = 8 * (1 + bits.take(5)) if is_small else bits.number(*_JXL_SIDES)
    ratio = bits.take(3)
    if ratio:
        across, down = _JXL_RATIOS[ratio - 1]
        return height * across // down, height
    return 8 * (1 + bits.take(5)) if is_small else bits.number(*_JXL_SIDES), height


def _skip_jxl_preview(bits: _Bits) -> None:
    sides = ((16, 0), (32, 0), (1, 5), (33, 9)) if bits.take(1) else ((1, 6), (65, 8), (321, 10), (1345, 12))
    bits.number(*sides)
    if bits.take(3) == 0:
        bits.number(*sides)
