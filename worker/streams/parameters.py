"""
The size of the pictures, read from a key frame, and whether it is one of its track's codec at all.

A sender may change the size or the codec in the middle of a stream. H.264, H.265 and MPEG-2 repeat their parameters in
key frames, which is where a change shows. H.264: ITU-T H.264, 7.3.1 and 7.3.2.1.1; H.265: ITU-T H.265, 7.3.1.2 and
7.3.2.2.1; MPEG-2: ITU-T H.262, 6.2.2.1.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from worker.streams.matroska import Track

MAX_PARAMETER_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Parameters:
    """The parameter set of a key frame."""

    data: bytes
    width_px: int
    height_px: int


def read_parameters(track: Track, picture: bytes) -> Parameters | None:
    """Return the parameters in the key frame *picture*, or None if it has none, or damaged ones."""
    try:
        if track.codec == "h264" and len(track.private) > 4:
            for unit in _units(picture, (track.private[4] & 3) + 1):
                if unit[0] & 31 == 7:
                    return Parameters(unit, *_size_of_h264(_Bits(unit[1:])))
        elif track.codec == "hevc" and len(track.private) > 21:
            for unit in _units(picture, (track.private[21] & 3) + 1):
                if unit[0] >> 1 & 63 == 33:
                    return Parameters(unit, *_size_of_hevc(_Bits(unit[2:])))
        elif track.codec in ("mpeg2video", "mpeg1video"):
            at = picture.find(b"\0\0\1\xb3", 0, MAX_PARAMETER_BYTES)
            if at >= 0 and len(picture) >= at + 8:
                bits = int.from_bytes(picture[at + 4 : at + 7], "big")
                return Parameters(picture[at + 4 : at + 7], bits >> 12, bits & 0xFFF)
    except IndexError:
        return None
    return None


def is_of_other_codec(track: Track, picture: bytes) -> bool:
    """
    Return whether the key frame *picture* has nothing of what every key frame of the track's codec has.

    A transport stream may go on with another codec under the same number, which ffmpeg follows, and the header that it
    wrote does not. Codecs for which this cannot be told are taken for unchanged.
    """
    if track.codec == "h264" and len(track.private) > 4:
        units = [unit[0] for unit in _units(picture, (track.private[4] & 3) + 1)]
        # H.265 has no odd first bytes, and the first start code of MPEG-2 has the bit that H.264 forbids.
        return bool(units) and (units[0] > 127 or not any(first & 31 in (1, 5) for first in units))
    if track.codec == "hevc" and len(track.private) > 21:
        found = list(_units(picture, (track.private[21] & 3) + 1))
        # A slice of a random access point, of the base layer and its lowest temporal level.
        return bool(found) and not any(
            unit[0] & 0x81 == 0 and 16 <= unit[0] >> 1 <= 23 and unit[1:2] == b"\1" for unit in found
        )
    if track.codec in ("mpeg2video", "mpeg1video"):
        return b"\0\0\1\0" not in picture
    return False


def _units(picture: bytes, length_bytes: int) -> Iterator[bytes]:
    """Yield the beginnings of the NAL units of *picture*."""
    position = 0
    while position + length_bytes < len(picture):
        size = int.from_bytes(picture[position : position + length_bytes], "big")
        position += length_bytes
        if size:
            yield picture[position : position + min(size, MAX_PARAMETER_BYTES)]
        position += size


class _Bits:
    """Reads bits from a NAL unit; IndexError at its end."""

    def __init__(self, data: bytes) -> None:
        # A 3 after two zeros is there only to avoid start codes.
        self._data = data[:MAX_PARAMETER_BYTES].replace(b"\0\0\3", b"\0\0")
        self._position = 0

    def read(self, count: int) -> int:
        value = 0
        for _ in range(count):
            value = value << 1 | self._data[self._position >> 3] >> (7 - (self._position & 7)) & 1
            self._position += 1
        return value

    def golomb(self) -> int:
        zeros = 0
        while not self.read(1):
            zeros += 1
            if zeros > 32:
                raise IndexError
        return (1 << zeros) - 1 + self.read(zeros)

    def signed_golomb(self) -> int:
        value = self.golomb()
        return (value + 1) // 2 if value & 1 else -(value // 2)


def _size_of_h264(bits: _Bits) -> tuple[int, int]:  # noqa: C901 - the order of the syntax table
    profile = bits.read(8)
    bits.read(16)
    bits.golomb()
    chroma = 1
    if profile in (100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135):
        chroma = bits.golomb()
        if chroma == 3:
            bits.read(1)
        bits.golomb()
        bits.golomb()
        bits.read(1)
        if bits.read(1):
            for index in range(12 if chroma == 3 else 8):
                if bits.read(1):
                    _skip_scaling_list(bits, 16 if index < 6 else 64)
    bits.golomb()
    order = bits.golomb()
    if order == 0:
        bits.golomb()
    elif order == 1:
        bits.read(1)
        bits.signed_golomb()
        bits.signed_golomb()
        for _ in range(min(bits.golomb(), 255)):
            bits.signed_golomb()
    bits.golomb()
    bits.read(1)
    width, height = (bits.golomb() + 1) * 16, (bits.golomb() + 1) * 16
    is_progressive = bits.read(1)
    if not is_progressive:
        height *= 2
        bits.read(1)
    bits.read(1)
    if bits.read(1):
        left, right, top, bottom = (bits.golomb() for _ in range(4))
        width -= (left + right) * (2 if chroma in (1, 2) else 1)
        height -= (top + bottom) * (2 if chroma == 1 else 1) * (1 if is_progressive else 2)
    return _check(width, height)


def _skip_scaling_list(bits: _Bits, count: int) -> None:
    last = following = 8
    for _ in range(count):
        if following:
            following = (last + bits.signed_golomb()) % 256
        last = following or last


def _size_of_hevc(bits: _Bits) -> tuple[int, int]:
    bits.read(4)
    layers = bits.read(3)
    bits.read(1)
    bits.read(88)
    bits.read(8)
    present = [(bits.read(1), bits.read(1)) for _ in range(layers)]
    if layers:
        bits.read(2 * (8 - layers))
    for has_profile, has_level in present:
        bits.read(88 * has_profile + 8 * has_level)
    bits.golomb()
    chroma = bits.golomb()
    if chroma == 3:
        bits.read(1)
    width, height = bits.golomb(), bits.golomb()
    if bits.read(1):
        left, right, top, bottom = (bits.golomb() for _ in range(4))
        width -= (left + right) * (2 if chroma in (1, 2) else 1)
        height -= (top + bottom) * (2 if chroma == 1 else 1)
    return _check(width, height)


def _check(width: int, height: int) -> tuple[int, int]:
    if not (0 < width < 2**16 and 0 < height < 2**16):
        raise IndexError
    return width, height
