"""
Reading single pictures with Pillow: opening a file, checking its size, and decoding to upright RGB.

Only the decoder's child process imports this (``picture.py``), so it imports Pillow and nothing else of the project.
"""

import struct
from itertools import count
from pathlib import Path
from typing import Any

import pillow_heif
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

# The only readers that are loaded. MPO, a JPEG with further pictures behind it, is opened as JPEG.
PLUGINS = (
    *(AvifImagePlugin, BmpImagePlugin, GifImagePlugin, Jpeg2KImagePlugin, JpegImagePlugin, MpoImagePlugin),
    *(PngImagePlugin, TiffImagePlugin, WebPImagePlugin),
)
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "HEIF", "AVIF", "JPEG2000")
DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    IndexError,
    KeyError,
    EOFError,
    ZeroDivisionError,
    TypeError,
    AttributeError,
    struct.error,
)
"""What Pillow's readers raise on damaged files, whatever they document."""

ROTATIONS = {3: 180, 4: 180, 5: 90, 6: 90, 7: 270, 8: 270}
"""EXIF orientation → degrees clockwise that bring the picture upright (mirroring aside)."""
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
MAX_PICTURES = 1000
"""Most pictures in one file that is not an animation."""
THUMBNAILS = ("Large Thumbnail (VGA Equivalent)", "Large Thumbnail (Full HD Equivalent)")
GAIN_MAP_MARKS = (b"hdrgm:", b"ns.adobe.com/hdr-gain-map", b"urn:iso:std:iso:ts:21496", b"hdrgainmap")
MARKED_BYTES = 65536
"""How much of a picture is searched for the marks of a gain map."""


class PictureError(Exception):
    """A picture is refused, with a code of ``shared.errors`` and a sentence."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


def register_readers() -> None:
    """Prepare Pillow for all formats that are accepted."""
    pillow_heif.register_heif_opener()
    # The service has its own limit on pixels, so Pillow's is switched off.
    Image.MAX_IMAGE_PIXELS = None


def open_image(path: str) -> Any:
    """
    Open the file at *path* and read its header.

    Raises:
        PictureError: The header is damaged, or the file is a TIFF in an unsupported layout.
    """
    try:
        return Image.open(path, formats=FORMATS)
    except UnidentifiedImageError:
        layout = tiff_layout(path)
        if layout is not None:
            raise PictureError(
                "unsupported_media",
                f"unsupported TIFF layout ({layout}); send the picture as RGB with 8 bits a sample",
            ) from None
        raise PictureError("truncated", "the image's header is damaged or incomplete") from None
    except DAMAGE as error:
        raise PictureError("truncated", "the image cannot be opened: its header is damaged") from error


def tiff_layout(path: str) -> str | None:
    """Describe how an undamaged TIFF stores its pixels; return None for any other file."""
    try:
        with Path(path).open("rb") as file:
            directory = TiffImagePlugin.ImageFileDirectory_v2(file.read(8))
            file.seek(directory.next)
            directory.load(file)
            width, height = int(directory[256]), int(directory[257])
            bits = "/".join(str(value) for value in directory.get(258, (1,)))
            kinds = {1: "", 2: " signed", 3: " floating-point"}
            kind = kinds.get(directory.get(339, (1,))[0], " special")
            more = f"compression {directory.get(259, 1)}, photometric interpretation {directory.get(262, 0)}"
    except DAMAGE:
        return None
    return f"{width} × {height},{kind} samples of {bits} bits, {more}"


def check_pixels(image: Image.Image, name: str, limit: int) -> None:
    """Raise PictureError for a picture with more pixels than *limit*, the setting *name*."""
    pixels = image.width * image.height
    if pixels > limit:
        raise PictureError(
            "too_many_pixels",
            f"the picture has {image.width} × {image.height} = {pixels} pixels; the limit {name} is {limit}",
        )


def find_picture_numbers(image: Any) -> list[int]:
    """
    Return the numbers, as Pillow counts them, of the pictures to analyse, the primary picture first.

    A JPEG with further pictures may contain previews, and a gain map, which brightens the first picture and shows
    nobody. These are left out, and so are entries of its index that the file no longer contains, as after an edit.
    """
    first = image.tell()
    if image.format == "TIFF":
        numbers = []
        for number in count():
            try:
                image.seek(number)
            except EOFError:
                break
            numbers.append(number)
            if number >= MAX_PICTURES:
                break
    elif image.format == "MPO":
        numbers = [number for number in range(image.n_frames) if number == 0 or is_viewable(image, number)]
    else:
        numbers = list(range(getattr(image, "n_frames", 1)))
    if len(numbers) > MAX_PICTURES:
        raise too_many_pictures()
    image.seek(first)
    return [first, *(number for number in numbers if number != first)]


def too_many_pictures() -> PictureError:
    """Return the error for a file with more than ``MAX_PICTURES``."""
    return PictureError("too_long", f"the file has more than {MAX_PICTURES} pictures, the limit for one file")


def is_viewable(image: Any, number: int) -> bool:
    """Return whether a further picture of an MPO file exists and is neither a preview nor a gain map."""
    if image.mpinfo[0xB002][number]["Attribute"]["MPType"] in THUMBNAILS:
        return False
    try:
        image.seek(number)
    except (SyntaxError, ValueError):
        # There is no JPEG at the offset.
        return False
    with Path(image.filename).open("rb") as file:
        file.seek(image.offset)
        begin = file.read(MARKED_BYTES).lower()
    return not any(mark in begin for mark in GAIN_MAP_MARKS)


def decode(image: Any, work_pixels: int) -> tuple[Image.Image, tuple[int, int], int]:
    """
    Decode the current picture of *image*.

    Returns:
        The picture as upright RGB, its full size when upright, and by how many degrees it was turned clockwise.
    """
    width, height = image.size
    factor = 1
    while width * height > work_pixels * factor**2:
        factor *= 2
    if factor > 1 and image.format in ("JPEG", "MPO"):
        image.draft(None, (width // factor, height // factor))
    if factor > 1 and image.format == "JPEG2000":
        image.reduce = factor.bit_length() - 1
    image.load()
    # pillow-heif turns HEIC pictures upright itself and clears the EXIF orientation.
    orientation = image.getexif().get(0x0112, 1)
    rgb = to_rgb(image, 1 if image.width < width else factor)
    if orientation in UPRIGHT:
        rgb = rgb.transpose(UPRIGHT[orientation])
    size = (height, width) if orientation in (5, 6, 7, 8) else (width, height)
    return rgb, size, ROTATIONS.get(orientation, 0)


def to_rgb(image: Image.Image, factor: int = 1) -> Image.Image:
    """Convert a picture of any mode to 8-bit RGB, *factor* times smaller, with transparency blended onto white."""
    if image.mode == "F":
        raise PictureError(
            "unsupported_media",
            "the image has floating-point samples, whose brightness is undefined; send it with 8 or 16 bits a sample",
        )
    if image.mode == "LAB":
        raise PictureError("unsupported_media", "the colour space CIE L*a*b* is not supported; send the image as RGB")
    if image.mode.startswith(("I;16", "I")):
        # convert() would clip everything above 255 to white.
        image = image.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    has_transparency = image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info
    # Converted before it is reduced, since the mean of palette indexes means nothing.
    mode = "RGBA" if has_transparency else "RGB"
    if image.mode != mode:
        # convert() copies even a picture that has the mode already, and it may take four hundred megabytes.
        image = image.convert(mode)
    if factor > 1:
        image = image.reduce(factor)
    if has_transparency:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image
