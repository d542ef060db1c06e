"""
Decodes one image in a process of its own: ``python -I picture.py PATH MAX_PIXELS``.

A script, not a module of ours: it imports Pillow and nothing of this project, so that it starts fast and has
nothing to lose. It writes one line of JSON, either the facts or an error code with a sentence, and then the pixels
as 8-bit RGB rows, upright.
"""

import json
import sys
import warnings
from typing import BinaryIO

import pillow_heif
from PIL import (
    BmpImagePlugin,
    Image,
    ImageOps,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

# The only readers that are loaded. MPO, what some phones make of a JPEG with a second picture, is opened as JPEG.
PLUGINS = (BmpImagePlugin, JpegImagePlugin, MpoImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin)
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "HEIF")
CONTAINERS = {"MPO": "jpeg", "HEIF": "heic"}
ROTATIONS = {3: 180, 4: 180, 5: 90, 6: 90, 7: 270, 8: 270}
"""EXIF orientation → degrees clockwise that bring the picture upright (mirroring aside)."""


class PictureError(Exception):
    """Carries a code of this project's error tree and a sentence."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


def main(path: str, max_pixels: int, output: BinaryIO) -> int:
    """Decode *path* onto *output*; the exit status says whether it worked."""
    pillow_heif.register_heif_opener()
    # Pillow's own bomb limit would be a second one, with another number.
    Image.MAX_IMAGE_PIXELS = None
    warnings.simplefilter("ignore")
    try:
        facts, pixels = decode(path, max_pixels)
    except PictureError as error:
        output.write(json.dumps({"error": error.code, "detail": str(error)}).encode() + b"\n")
        return 3
    output.write(json.dumps(facts).encode() + b"\n")
    output.write(pixels)
    return 0


def decode(path: str, max_pixels: int) -> tuple[dict[str, object], bytes]:
    """Facts and RGB bytes of the first picture in the file."""
    try:
        image = Image.open(path, formats=FORMATS)
    except UnidentifiedImageError:
        raise PictureError("truncated", "the image's header is damaged or incomplete") from None
    except (OSError, SyntaxError, ValueError, ZeroDivisionError, EOFError) as error:
        raise PictureError("truncated", "the image cannot be opened: its header is damaged") from error
    with image:
        if image.width * image.height > max_pixels:
            raise PictureError(
                "too_many_pixels",
                f"the picture has {image.width} × {image.height} = {image.width * image.height} pixels;"
                f" the limit max_pixels is {max_pixels}",
            )
        try:
            image.load()
            # pillow-heif turns HEIC pictures upright by itself and clears the mark.
            orientation = image.getexif().get(0x0112, 1)
            upright = to_rgb(ImageOps.exif_transpose(image))
        except MemoryError as error:
            raise PictureError("too_many_pixels", "the picture needs more memory than allowed") from error
        except (OSError, SyntaxError, ValueError, IndexError, EOFError, ZeroDivisionError) as error:
            raise PictureError("truncated", "the image's data is damaged or incomplete") from error
        name = image.format or ""
        facts: dict[str, object] = {
            "container": CONTAINERS.get(name, name.lower()),
            "width_px": upright.width,
            "height_px": upright.height,
            "rotation_deg": ROTATIONS.get(orientation, 0),
        }
        return facts, upright.tobytes()


def to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB from any mode: 16-bit scaled down, transparency laid on white."""
    if image.mode.startswith(("I;16", "I")):
        # convert() would clip everything above 255 to white.
        image = image.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    if image.mode == "F":
        image = image.convert("L")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(ground, image)
    return image.convert("RGB")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), sys.stdout.buffer))
