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


def _make_facts(
    container: str, size: tuple[int, int] | None, kind: Literal["image", "video"] = "image", codec: str | None = None
) -> HeaderFacts:
    if size is not None and 0 in size:
        raise ValueError("an image without pixels")
    width, height = size or (None, None)
    return HeaderFacts(kind, container, codec or container, width, height)


def inspect_jpeg(reader: HeaderReader) -> HeaderFacts:
    """Inspect a JPEG. Data that phones append to one is handled by the worker."""
    return _make_facts("jpeg", _jpeg_size(reader))


def _jpeg_size(reader: HeaderReader) -> tuple[int, int]:
    position = 2
    while True:
        reader.count_box()
        marker, code = reader.read(position, 2)
        if marker != 0xFF:
            raise ValueError("not a JPEG marker")
        if code == 0xFF:
            position += 1
            continue
        if 0xC0 <= code <= 0xCF and code not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", reader.read(position + 5, 4))
            return width, height
        if code == 0xDA:
            raise ValueError("no frame header before the scan")
        if code in (0x01, 0xD8) or 0xD0 <= code <= 0xD7:
            position += 2
            continue
        position += 2 + struct.unpack(">H", reader.read(position + 2, 2))[0]


def inspect_png(reader: HeaderReader) -> HeaderFacts:
    """Inspect a PNG; one with an animation control chunk before its data is an animation."""
    width, height = struct.unpack(">II", reader.read(16, 8))
    position = 8
    kind: Literal["image", "video"] = "image"
    while not reader.is_exhausted:
        reader.count_box()
        head = reader.peek(position, 8)
        if len(head) < 8 or head[4:] in (b"IDAT", b"IEND"):
            break
        if head[4:] == b"acTL":
            kind = "video"
            break
        position += 12 + struct.unpack(">I", head[:4])[0]
    return _make_facts("png", (width, height), kind)


def inspect_gif(reader: HeaderReader) -> HeaderFacts:
    """Inspect a GIF; with several images, or too many blocks to read them all, it is an animation."""
    width, height, flags = struct.unpack("<HHB", reader.read(6, 5))
    position = 13 + _colour_table_bytes(flags)
    pictures = 0
    while pictures < 2 and not reader.is_exhausted:
        block = reader.peek(position, 10)
        if not block or block[0] == 0x3B:
            break
        if block[0] == 0x2C and len(block) == 10:
            pictures += 1
            position += 11 + _colour_table_bytes(block[9])
        elif block[0] == 0x21:
            position += 2
        else:
            break
        position = _skip_sub_blocks(reader, position)
    return _make_facts("gif", (width, height), "video" if pictures > 1 or reader.is_exhausted else "image")


def _colour_table_bytes(flags: int) -> int:
    """Return the size in bytes of the colour table that the *flags* of a GIF declare."""
    return 3 << 1 + (flags & 7) if flags & 0x80 else 0


def _skip_sub_blocks(reader: HeaderReader, position: int) -> int:
    while not reader.is_exhausted:
        reader.count_box()
        length = reader.peek(position, 1)
        position += 1
        if not length or length[0] == 0:
            break
        position += length[0]
    return position


def inspect_webp(reader: HeaderReader) -> HeaderFacts:
    """Inspect a WebP; its extended header says whether it is an animation."""
    form = reader.read(12, 4)
    if form == b"VP8X":
        flags, size = reader.read(20, 1)[0], reader.read(24, 6)
        kind: Literal["image", "video"] = "video" if flags & 0x02 else "image"
        return _make_facts(
            "webp", (1 + int.from_bytes(size[:3], "little"), 1 + int.from_bytes(size[3:], "little")), kind
        )
    if form == b"VP8L":
        bits = int.from_bytes(reader.read(21, 4), "little")
        return _make_facts("webp", (1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)))
    if form == b"VP8 ":
        width, height = struct.unpack("<HH", reader.read(26, 4))
        return _make_facts("webp", (width & 0x3FFF, height & 0x3FFF))
    raise ValueError("not a WebP bitstream")


def is_bmp(head: bytes) -> bool:
    """Return whether *head* begins a BMP. The two magic letters alone also begin many other files."""
    return head[:2] == b"BM" and len(head) >= 18 and 12 <= int(struct.unpack("<I", head[14:18])[0]) <= 256


def inspect_bmp(reader: HeaderReader) -> HeaderFacts:
    """Inspect a BMP; the oldest header has 16-bit sizes."""
    if reader.read(14, 4) == b"\x0c\0\0\0":
        return _make_facts("bmp", struct.unpack("<HH", reader.read(18, 4)))
    width, height = struct.unpack("<ii", reader.read(18, 8))
    return _make_facts("bmp", (abs(width), abs(height)))


_SUBFILE, _WIDTH, _HEIGHT, _SUB_IFDS, _SAMPLE_FORMAT, _DNG = 254, 256, 257, 330, 339, 50706
_FLOAT = 3


def inspect_tiff(reader: HeaderReader) -> HeaderFacts:
    """
    Inspect a TIFF by its first page.

    Raises:
        UnsupportedMediaError: The samples are floating-point numbers, or it is a camera's raw file, whose first page is
            a thumbnail.
    """
    order = "<" if reader.read(0, 2) == b"II" else ">"
    (position,) = struct.unpack(f"{order}I", reader.read(4, 4))
    (entries,) = struct.unpack(f"{order}H", reader.read(position, 2))
    found: dict[int, int] = {}
    for index in range(min(entries, 512)):
        tag, kind, count, value = struct.unpack(f"{order}HHII", reader.read(position + 2 + 12 * index, 12))
        if kind == 3:
            # Up to two 16-bit values are stored in the field itself; more are stored at the offset in it.
            if count > 2 and tag == _SAMPLE_FORMAT:
                (value,) = struct.unpack(f"{order}H", reader.read(value, 2))
            else:
                value = value >> 16 if order == ">" else value & 0xFFFF
        found[tag] = value
    if _DNG in found or (_SUB_IFDS in found and found.get(_SUBFILE, 0) & 1):
        raise UnsupportedMediaError(
            "the file is a camera's raw image, which is not accepted; send a developed image, such as a JPEG"
        )
    if found.get(_SAMPLE_FORMAT) == _FLOAT:
        raise UnsupportedMediaError(
            "the file is a TIFF whose samples are floating-point numbers, whose brightness is undefined;"
            " send it with 8 or 16 bits per sample"
        )
    size = (found[_WIDTH], found[_HEIGHT]) if {_WIDTH, _HEIGHT} <= found.keys() else None
    return _make_facts("tiff", size)


def inspect_jpeg2000_codestream(reader: HeaderReader) -> HeaderFacts:
    """Inspect a JPEG 2000 codestream without a container."""
    right, bottom, left, top = struct.unpack(">IIII", reader.read(8, 16))
    return _make_facts("jpeg2000", (max(0, right - left), max(0, bottom - top)))


def inspect_jpeg2000(reader: HeaderReader) -> HeaderFacts:
    """Inspect a JPEG 2000 file."""
    for kind, start, end in iso_boxes(reader, 0, reader.size):
        if kind == b"jp2h":
            for inner, at, _ in iso_boxes(reader, start, end):
                if inner == b"ihdr":
                    height, width = struct.unpack(">II", reader.read(at, 8))
                    return _make_facts("jpeg2000", (width, height))
        elif kind == b"jp2c":
            break
    raise EndOfFileError


def inspect_jxl(reader: HeaderReader) -> HeaderFacts:
    """Inspect a JPEG XL file: its codestream is split over boxes, which may have only a few bytes each."""
    head = b""
    for kind, start, end in iso_boxes(reader, 0, reader.size):
        if kind in (b"jxlc", b"jxlp"):
            # A partial codestream box begins with its number.
            at = start + 4 if kind == b"jxlp" else start
            head += reader.peek(at, min(max(0, end - at), _JXL_HEAD_BYTES - len(head)))
            if len(head) >= _JXL_HEAD_BYTES:
                break
    return _inspect_jxl(head)


def inspect_jxl_codestream(reader: HeaderReader) -> HeaderFacts:
    """Inspect a JPEG XL codestream without a container."""
    return _inspect_jxl(reader.peek(0, _JXL_HEAD_BYTES))


_JXL_HEAD_BYTES = 66
"""Bytes of a codestream that are read: the signature, and more than the fields below can take."""


def _inspect_jxl(head: bytes) -> HeaderFacts:
    bits = _BitReader(head[2:])
    size = _jxl_size(bits)
    is_default = bits.read(1)
    if not is_default and bits.read(1):
        bits.read(3)  # Orientation, which the decoder applies.
        if bits.read(1):
            _jxl_size(bits)
        if bits.read(1):
            _skip_jxl_preview(bits)
        if bits.read(1):
            raise UnsupportedMediaError(
                f"the file is an animated JPEG XL, which is not accepted; send it as a video; {ACCEPTED}"
            )
    return _make_facts("jxl", size)


class _BitReader:
    """A reader of bits, least significant bit of each byte first."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "little")
        self._left = 8 * len(data)

    def read(self, count: int) -> int:
        if count > self._left:
            raise EndOfFileError
        value = self._value & (1 << count) - 1
        self._value >>= count
        self._left -= count
        return value

    def read_u32(self, *forms: tuple[int, int]) -> int:
        """Read a U32: two bits select one of four *forms*, each an offset and a number of bits."""
        offset, count = forms[self.read(2)]
        return offset + self.read(count)


_JXL_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
_JXL_SIDES = ((1, 9), (1, 13), (1, 18), (1, 30))


def _jxl_size(bits: _BitReader) -> tuple[int, int]:
    is_small = bits.read(1)
    height = 8 * (1 + bits.read(5)) if is_small else bits.read_u32(*_JXL_SIDES)
    ratio = bits.read(3)
    if ratio:
        across, down = _JXL_RATIOS[ratio - 1]
        return height * across // down, height
    return 8 * (1 + bits.read(5)) if is_small else bits.read_u32(*_JXL_SIDES), height


def _skip_jxl_preview(bits: _BitReader) -> None:
    sides = ((16, 0), (32, 0), (1, 5), (33, 9)) if bits.read(1) else ((1, 6), (65, 8), (321, 10), (1345, 12))
    bits.read_u32(*sides)
    if bits.read(3) == 0:
        bits.read_u32(*sides)
