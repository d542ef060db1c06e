"""Still pictures and animations that tests make on the spot, in every format that is accepted."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pillow_heif
from numpy.typing import NDArray
from PIL import Image

from tests.clips import make_clip, run, scene

pillow_heif.register_heif_opener()

FORMS = {
    "jpeg": "JPEG",
    "png": "PNG",
    "gif": "GIF",
    "webp": "WEBP",
    "bmp": "BMP",
    "tiff": "TIFF",
    "heic": "HEIF",
    "avif": "AVIF",
    "jpeg2000": "JPEG2000",
    "jxl": "JXL",
}
"""Container, as ``shared.containers`` names it → Pillow's name of the format; JPEG XL is ffmpeg's."""
ANIMATIONS = ("gif", "png", "webp", "avif")


def make_picture(path: Path, container: str, pixels: NDArray[np.uint8] | None = None) -> Path:
    """A still picture at *path*, whose name need not tell what it is."""
    picture = Image.fromarray(scene(0) if pixels is None else pixels)
    if container != "jxl":
        picture.save(path, FORMS[container])
        return path
    picture.save(path.with_name("source.png"))
    made = path.with_name("made.jxl")
    run("-i", str(path.with_name("source.png")), "-f", "image2pipe", "-c:v", "libjxl", str(made))
    return made.rename(path)


def plain(*levels: int, size: tuple[int, int] = (64, 48)) -> list[NDArray[np.uint8]]:
    """(height, width, 3) pictures, each of one grey, by which they are known again."""
    return [np.full((size[1], size[0], 3), level, np.uint8) for level in levels]


def make_animation(
    path: Path, container: str, pictures: Sequence[NDArray[np.uint8]], durations_ms: int | Sequence[int] = 500
) -> Path:
    """An animation of *pictures* at *path*."""
    first, *others = [Image.fromarray(picture) for picture in pictures]
    more = {"lossless": True} if container == "webp" else {}
    durations = list(durations_ms) if isinstance(durations_ms, Sequence) else durations_ms
    first.save(path, FORMS[container], save_all=True, append_images=others, duration=durations, **more)
    return path


def make_pages(path: Path, container: str, pictures: Sequence[NDArray[np.uint8]]) -> Path:
    """A TIFF, HEIC or, as ``mpo``, JPEG file with several pictures."""
    first, *others = [Image.fromarray(picture) for picture in pictures]
    form = "MPO" if container == "mpo" else FORMS[container]
    first.save(path, form, save_all=True, append_images=others)
    return path


def make_motion_photo(path: Path, container: str, picture: NDArray[np.uint8], codec: str = "h264") -> Path:
    """A JPEG with an mp4 behind it, or a HEIC file with one in a box of its own, as phones make them."""
    make_picture(path, container, picture)
    clip = make_clip(path.with_name("moving.mp4"), codec=codec, size=(160, 120), seconds=1.0).read_bytes()
    box = b"" if container == "jpeg" else (8 + len(clip)).to_bytes(4, "big") + b"mpvd"
    path.write_bytes(path.read_bytes() + box + clip)
    return path


def encoded(picture: Image.Image, form: str, **options: object) -> bytes:
    """The bytes of *picture* in a format of Pillow's."""
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()
