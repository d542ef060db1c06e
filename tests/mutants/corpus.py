"""Corrupted files (mutants): valid ones of every accepted format with random changes, reproducible by seed."""

import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.clips import BROADCAST, make_broadcast, make_clip, scene
from tests.pictures import ANIMATIONS, FORMS, make_animation, make_motion_photo, make_pages, make_picture

VIDEOS = {
    "h264.mp4": "h264",
    "hevc.mp4": "hevc",
    "h264.mov": "h264",
    "vp9.mkv": "vp9",
    "h264.mkv": "h264",
    "vp8.webm": "vp8",
    "av1.webm": "av1",
    "mpeg4.avi": "mpeg4",
}
PAGES = ("tiff", "heic", "mpo")
MOTION = ("jpeg", "heic")
FILES = len(VIDEOS) + len(BROADCAST) + len(FORMS) + len(ANIMATIONS) + len(PAGES) + len(MOTION)
LANDMARKS = (
    # ISO base media, RIFF, Matroska, pictures, streams: marks with lengths, counts and sizes nearby.
    *(b"ftyp moov mvhd trak tkhd mdhd stsd stts ctts stsc stsz stco avcC hvcC elst meta iloc iinf ipco ispe".split()),
    *(b"mdat moof trun RIFF hdrl avih strh strf movi idx1 VP8X IHDR PLTE IDAT IEND BM II* MM".split()),
    *(b"acTL fcTL fdAT ANIM ANMF GIF89a NETSCAPE2.0 MPF mpvd pitm iref grpl jp2h ihdr jp2c FLV onMetaData".split()),
    *(bytes.fromhex(mark) for mark in ("1a45dfa3", "18538067", "1549a966", "1654ae6b", "1f43b675", "a3")),
    *(bytes.fromhex(mark) for mark in ("ffc0", "ffc4", "ffda", "ffdb", "ff4f", "ff51", "ff0a", "21f9", "2c0000")),
    # PAT and PMT, pack and sequence headers, a KLV of MXF, objects of ASF.
    *(bytes.fromhex(mark) for mark in ("474000", "475000", "000001ba", "000001b3", "060e2b34")),
    *(bytes.fromhex(mark) for mark in ("3026b275", "a1dcab8c", "9107dcb7")),
)
EXTREMES = tuple(
    bytes.fromhex(value)
    for value in ("00000000", "ffffffff", "7fffffff", "80000000", "00000001", "01000000", "ffffff7f")
)

Change = Callable[[bytearray, random.Random], None]


def make_originals(folder: Path) -> dict[str, bytes]:
    """Make one small valid file of each kind; return name → content."""
    for name, codec in VIDEOS.items():
        make_clip(folder / name, codec=codec, size=(160, 120), seconds=1.0)
    for name in BROADCAST:
        make_broadcast(folder, name, seconds=0.5)
    pictures = [scene(number, size=(160, 120)) for number in range(3)]
    with tempfile.TemporaryDirectory() as scratch:
        made = {f"image.{name}": make_picture(Path(scratch) / name, name, pictures[0]) for name in FORMS}
        made |= {f"moving.{name}": make_animation(Path(scratch) / f"m-{name}", name, pictures) for name in ANIMATIONS}
        made |= {f"pages.{name}": make_pages(Path(scratch) / f"p-{name}", name, pictures[:2]) for name in PAGES}
        made |= {f"motion.{name}": make_motion_photo(Path(scratch) / f"l-{name}", name, pictures[0]) for name in MOTION}
        for name, path in made.items():
            shutil.move(path, folder / name)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def mutants(originals: dict[str, bytes], count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield *count* corrupted files; their names say which file was changed, and how."""
    rng = random.Random(seed)
    names = sorted(originals)
    for number in range(count):
        name = names[number % len(names)]
        data = bytearray(originals[name])
        done = []
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            kind = rng.choice((*sorted(CHANGES), SPLICE))
            if kind == SPLICE:
                _splice(data, originals[rng.choice(names)], rng)
            else:
                CHANGES[kind](data, rng)
            done.append(kind)
        yield f"{number:05}-{'+'.join(done)}-{name}", bytes(data)


def _flip(data: bytearray, rng: random.Random) -> None:
    """Flip some bits, most of them near the beginning, where headers are."""
    for _ in range(rng.choice((1, 2, 8, 64))):
        end = len(data) if rng.random() < 0.4 else min(len(data), 2048)
        if end:
            data[rng.randrange(end)] ^= 1 << rng.randrange(8)


def _cut(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data) + 1) :]


def _drop(data: bytearray, rng: random.Random) -> None:
    begin, length = _stretch(data, rng)
    del data[begin : begin + length]


def _blank(data: bytearray, rng: random.Random) -> None:
    begin, length = _stretch(data, rng)
    data[begin : begin + length] = bytes([rng.choice((0, 255))]) * min(length, len(data) - begin)


def _repeat(data: bytearray, rng: random.Random) -> None:
    begin, length = _stretch(data, rng)
    data[begin:begin] = data[begin : begin + length] * rng.choice((1, 2, 50))


def _swap(data: bytearray, rng: random.Random) -> None:
    (one, length), (other, _) = _stretch(data, rng), _stretch(data, rng)
    first, second = data[one : one + length], data[other : other + length]
    length = min(len(first), len(second))
    data[one : one + length], data[other : other + length] = second[:length], first[:length]


def _insert(data: bytearray, rng: random.Random) -> None:
    begin, length = _stretch(data, rng)
    data[begin:begin] = rng.randbytes(length)


def _extreme(data: bytearray, rng: random.Random) -> None:
    """Write an extreme number somewhere in the first four kilobytes."""
    place = rng.randrange(max(1, min(len(data), 4096)))
    value = rng.choice(EXTREMES)[: rng.choice((1, 2, 4))]
    data[place : place + len(value)] = value


def _landmark(data: bytearray, rng: random.Random) -> None:
    """Write an extreme or random number just before or after a mark of the format."""
    places = [place for mark in LANDMARKS if (place := data.find(mark)) >= 0]
    if not places:
        return
    place = max(0, rng.choice(places) + rng.randrange(-8, 40))
    value = rng.choice((*EXTREMES, rng.randbytes(4)))[: rng.choice((1, 2, 4))]
    data[place : place + len(value)] = value


def _splice(data: bytearray, other: bytes, rng: random.Random) -> None:
    """Join the beginning of one file and the end of another."""
    data[rng.randrange(len(data) + 1) :] = other[rng.randrange(len(other)) :]


def _stretch(data: bytearray, rng: random.Random) -> tuple[int, int]:
    return rng.randrange(len(data) + 1), rng.choice((1, 4, 16, 256, 4096))


CHANGES: dict[str, Change] = {
    "flip": _flip,
    "cut": _cut,
    "drop": _drop,
    "blank": _blank,
    "repeat": _repeat,
    "swap": _swap,
    "insert": _insert,
    "extreme": _extreme,
    "landmark": _landmark,
}
SPLICE = "splice"
