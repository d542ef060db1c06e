"""The header of WebP images that anybody may have made. Nothing is decoded."""

from typing import Final

from deepfakestream.errors import BundleError

_HEADER_BYTES: Final = 30
"""Of the file and of its first chunk, up to the size of a picture with loss."""
_CHUNK_START: Final = 20
_SIDE_MASK: Final = 0x3FFF
_LOSSY_START: Final = b"\x9d\x01\x2a"
_LOSSLESS_START: Final = b"\x2f"


def read_webp_size(data: bytes, where: str) -> tuple[int, int]:
    """
    Return width and height in pixels of a picture that is one chunk, with or without loss (RFC 9649).

    Files of several chunks, which animations, colour profiles and metadata need, are refused: a service makes none, and
    a chunk can hold anything.

    Args:
        data: The whole file.
        where: Names its place, for the sentence.

    Raises:
        BundleError: It is no such picture, or has bytes after it.
    """
    if len(data) < _HEADER_BYTES or data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        raise BundleError(f"{where} is no WebP image")
    chunk_bytes = int.from_bytes(data[16:20], "little")
    # A chunk of an odd length is followed by one more byte.
    length = _CHUNK_START + chunk_bytes + chunk_bytes % 2
    if len(data) != length or int.from_bytes(data[4:8], "little") + 8 != length:
        raise BundleError(f"{where} is not one WebP picture and nothing else")
    kind, start = data[12:16], data[_CHUNK_START:_HEADER_BYTES]
    if kind == b"VP8 " and start[3:6] == _LOSSY_START:
        across, down = (int.from_bytes(start[at : at + 2], "little") for at in (6, 8))
        return across & _SIDE_MASK, down & _SIDE_MASK
    if kind == b"VP8L" and start[:1] == _LOSSLESS_START:
        sides = int.from_bytes(start[1:5], "little")
        return (sides & _SIDE_MASK) + 1, (sides >> 14 & _SIDE_MASK) + 1
    raise BundleError(f"{where} is a kind of WebP that no service makes")
