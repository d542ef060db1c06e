"""
Decodes pictures in a process of its own: ``python -I picture.py PATH REQUEST``, the request being a JSON object.

A script, not a module of ours: it imports Pillow and nothing of this project, so that it starts fast and has
nothing to lose. ``do`` is one of three:

``probe``
    One line of JSON: the facts. The first picture is decoded, and every picture of an animation.
``picture``
    Picture number ``number``: a line with its size, then its pixels as 8-bit RGB rows, upright. Numbers after the last
    one stand for the videos that a phone put into the file; the line then tells the bytes one has there.
``animation``
    The pictures of an animation that begin between ``start_s`` and ``end_s``, as many as ``sample_fps`` asks for, each
    as above and with its time; at the end the line ``{"end": true}``.

A line with an error code and a sentence can stand in the place of any line. Pictures of more than ``work_pixels`` are
brought to a half, a quarter or an eighth of their width and height, JPEG and JPEG 2000 while they are decoded.
"""

import json
import math
import mmap
import struct
import sys
import warnings
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, BinaryIO

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
CONTAINERS = {"MPO": "jpeg", "HEIF": "heic"}
ANIMATIONS = ("GIF", "WEBP", "PNG", "AVIF")
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
"""Of one file that is no animation."""
LOOKED_AT_WHOLE = 50
"""Of an animation with no more pictures than this every one is given, however short it stands."""
SHORTEST_S = 0.0101
USUAL_S = 0.1
"""Browsers show a picture that is to stand for a hundredth of a second or less for a tenth."""
THUMBNAILS = ("Large Thumbnail (VGA Equivalent)", "Large Thumbnail (Full HD Equivalent)")
GAIN_MAP_MARKS = (b"hdrgm:", b"ns.adobe.com/hdr-gain-map", b"urn:iso:std:iso:ts:21496", b"hdrgainmap")
MARKED_BYTES = 65536
MEDIA_BOXES = (b"moov", b"moof", b"mdat")
"""Of these the last one in a file may be cut off."""

Record = tuple[dict[str, Any], bytes]
"""A line and the pixels that follow it."""


class PictureError(Exception):
    """Carries a code of this project's error tree and a sentence."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


def main(path: str, request: dict[str, Any], output: BinaryIO) -> int:
    """Do what is asked of the file at *path*; the exit status says whether it worked."""
    pillow_heif.register_heif_opener()
    # Pillow's own bomb limit would be a second one, with another number.
    Image.MAX_IMAGE_PIXELS = None
    warnings.simplefilter("ignore")
    todo = TODO[request.pop("do")]
    try:
        for line, pixels in todo(path, **request):
            output.write(json.dumps(line).encode() + b"\n")
            output.write(pixels)
    except PictureError as error:
        return fail(output, error.code, str(error))
    except MemoryError:
        return fail(output, "too_many_pixels", "the picture needs more memory than allowed")
    except DAMAGE:
        return fail(output, "truncated", "the image's data is damaged or incomplete")
    output.flush()
    return 0


def fail(output: BinaryIO, code: str, detail: str) -> int:
    """Say what is wrong."""
    output.write(json.dumps({"error": code, "detail": detail}).encode() + b"\n")
    return 3


def probe(path: str, max_pixels: int, max_image_pixels: int, work_pixels: int) -> Iterator[Record]:
    """The facts of the file at *path*."""
    with opened(path) as image:
        is_animation = image.format in ANIMATIONS and getattr(image, "n_frames", 1) > 1
        limit = ("max_pixels", max_pixels) if is_animation else ("max_image_pixels", max_image_pixels)
        check_pixels(image, *limit)
        numbers = [0] if is_animation else picture_numbers(image)
        for number in numbers[1:]:
            image.seek(number)
            check_pixels(image, *limit)
        image.seek(numbers[0])
        rgb, size, rotation_deg = decode(image, work_pixels)
        del rgb
        facts: dict[str, Any] = {
            "container": CONTAINERS.get(image.format or "", (image.format or "").lower()),
            "kind": "video" if is_animation else "image",
            "width_px": size[0],
            "height_px": size[1],
            "rotation_deg": rotation_deg,
            "pictures": len(numbers),
            "duration_s": None,
            "truncated": False,
            "clips": 0,
        }
        if is_animation:
            timeline = [(start_s, end_s) for start_s, end_s in times(image)]
            facts |= {
                "pictures": len(timeline),
                "duration_s": timeline[-1][1],
                "truncated": is_cut(image, path, timeline),
            }
        else:
            facts["clips"] = len(find_clips(path, image.format))
            if facts["pictures"] + facts["clips"] > MAX_PICTURES:
                raise too_many_pictures()
        yield facts, b""


def picture(path: str, number: int, work_pixels: int) -> Iterator[Record]:
    """One picture, or where a video begins and ends that follows the last one."""
    with opened(path) as image:
        if image.format == "TIFF":
            # Its pages have the numbers that Pillow gives them, and to count them all takes long.
            try:
                image.seek(number)
            except EOFError:
                raise PictureError("truncated", f"the file has no picture {number}") from None
        else:
            numbers = picture_numbers(image)
            if number >= len(numbers):
                clips = find_clips(path, image.format)[number - len(numbers) :]
                if not clips:
                    raise PictureError("truncated", f"the file has no picture {number}")
                yield {"clip": clips[0]}, b""
                return
            image.seek(numbers[number])
        yield record(image, work_pixels)


def animation(path: str, start_s: float, end_s: float, sample_fps: float, work_pixels: int) -> Iterator[Record]:
    """The sampled pictures of a stretch; if none begins in it, the one that stands when it begins."""
    with opened(path) as image:
        is_whole = image.n_frames <= LOOKED_AT_WHOLE
        held, last_cell, given = None, -1, 0
        for begin_s, until_s in times(image):
            if begin_s >= end_s:
                break
            if begin_s < start_s:
                if until_s > start_s:
                    held = record(image, work_pixels)
                continue
            # A picture that stands on a cell's edge must not fall into the cell before it by rounding.
            cell = math.floor((begin_s - start_s) * sample_fps + 1e-6)
            if is_whole or cell > last_cell:
                last_cell, given = cell, given + 1
                line, pixels = record(image, work_pixels)
                yield {**line, "time_s": begin_s}, pixels
        if given == 0:
            if held is None:
                raise PictureError("truncated", f"no picture of the animation is left at {start_s:g} s")
            yield {**held[0], "time_s": start_s}, held[1]
        yield {"end": True}, b""


def opened(path: str) -> Any:
    """The file at *path*, its header read."""
    try:
        return Image.open(path, formats=FORMATS)
    except UnidentifiedImageError:
        layout = tiff_layout(path)
        if layout is not None:
            raise PictureError(
                "unsupported_media",
                f"the file is a TIFF whose pixels are stored in a way that is not read here ({layout});"
                " send it as RGB with 8 bits a sample",
            ) from None
        raise PictureError("truncated", "the image's header is damaged or incomplete") from None
    except DAMAGE as error:
        raise PictureError("truncated", "the image cannot be opened: its header is damaged") from error


def tiff_layout(path: str) -> str | None:
    """How a sound TIFF stores its pixels; None for anything else."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - nothing is imported that is not needed
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


def check_pixels(image: Image.Image, name: str, most: int) -> None:
    """Refuse a picture that is over the limit *name*."""
    pixels = image.width * image.height
    if pixels > most:
        raise PictureError(
            "too_many_pixels",
            f"the picture has {image.width} × {image.height} = {pixels} pixels; the limit {name} is {most}",
        )


def picture_numbers(image: Any) -> list[int]:
    """
    Which frames, as Pillow counts them, are pictures to look at; the one that is shown first comes first.

    Of a JPEG with further ones not its previews, not its gain map, which brightens the first and shows nobody by
    itself, and none that the index names but the file does not hold, as after an edit.
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
        numbers = [number for number in range(image.n_frames) if number == 0 or is_shown(image, number)]
    else:
        numbers = list(range(getattr(image, "n_frames", 1)))
    if len(numbers) > MAX_PICTURES:
        raise too_many_pictures()
    image.seek(first)
    return [first, *(number for number in numbers if number != first)]


def too_many_pictures() -> PictureError:
    """The refusal of a file with more pictures than are looked at."""
    return PictureError("too_long", f"the file has more than {MAX_PICTURES} pictures, which is the most of one file")


def is_shown(image: Any, number: int) -> bool:
    """Whether a further picture of an MPO file is there, and one to look at."""
    if image.mpinfo[0xB002][number]["Attribute"]["MPType"] in THUMBNAILS:
        return False
    try:
        image.seek(number)
    except (SyntaxError, ValueError):
        # There is no JPEG at its place.
        return False
    with open(image.filename, "rb") as file:  # noqa: PTH123 - nothing is imported that is not needed
        file.seek(image.offset)
        begin = file.read(MARKED_BYTES).lower()
    return not any(mark in begin for mark in GAIN_MAP_MARKS)


def times(image: Any) -> Iterator[tuple[float, float]]:
    """Decode an animation's pictures in turn, as far as they are sound; when each begins and ends."""
    now = 0.0
    for number in range(image.n_frames):
        try:
            image.seek(number)
            image.load()
        except DAMAGE:
            if number == 0:
                raise
            return
        given_s = (image.info.get("duration") or 0.0) / 1000
        begin, now = now, round(now + (given_s if given_s >= SHORTEST_S else USUAL_S), 6)
        yield begin, now


def is_cut(image: Any, path: str, timeline: list[Any]) -> bool:
    """Whether part of an animation is missing or damaged. Of a GIF Pillow counts the pictures that are there."""
    if len(timeline) < image.n_frames:
        return True
    return image.format == "GIF" and not gif_ends(path)


def gif_ends(path: str) -> bool:
    """Whether a GIF's blocks lead to the one that ends it."""
    with open(path, "rb") as file:  # noqa: PTH123 - nothing is imported that is not needed
        flags = file.read(13)[10]
        while True:
            if flags & 0x80:
                file.seek(3 << 1 + (flags & 7), 1)
            kind = file.read(1)
            flags = 0
            if kind == b"\x2c":
                flags = (file.read(9) or b"\0")[-1]
                if flags & 0x80:
                    file.seek(3 << 1 + (flags & 7), 1)
                flags = 0
                file.seek(1, 1)
            elif kind == b"\x21":
                file.seek(1, 1)
            else:
                return kind == b"\x3b"
            while length := file.read(1):
                if length == b"\0":
                    break
                file.seek(length[0], 1)


def record(image: Any, work_pixels: int) -> Record:
    """The line and the pixels of the picture that *image* stands at."""
    rgb, size, _ = decode(image, work_pixels)
    line = {"width_px": rgb.width, "height_px": rgb.height, "full_width_px": size[0], "full_height_px": size[1]}
    return line, rgb.tobytes()


def decode(image: Any, work_pixels: int) -> tuple[Image.Image, tuple[int, int], int]:
    """The picture that *image* stands at: upright RGB, the full size upright, and the clockwise turn in degrees."""
    width, height = image.size
    factor = 1
    while width * height > work_pixels * factor**2:
        factor *= 2
    if factor > 1 and image.format in ("JPEG", "MPO"):
        image.draft(None, (width // factor, height // factor))
    if factor > 1 and image.format == "JPEG2000":
        image.reduce = factor.bit_length() - 1
    image.load()
    # pillow-heif turns HEIC pictures upright by itself and clears the mark.
    orientation = image.getexif().get(0x0112, 1)
    rgb = to_rgb(image, 1 if image.width < width else factor)
    if orientation in UPRIGHT:
        rgb = rgb.transpose(UPRIGHT[orientation])
    size = (height, width) if orientation in (5, 6, 7, 8) else (width, height)
    return rgb, size, ROTATIONS.get(orientation, 0)


def to_rgb(image: Image.Image, factor: int = 1) -> Image.Image:
    """8-bit RGB from any mode, *factor* times smaller: 16-bit scaled down, transparency laid on white."""
    if image.mode == "F":
        raise PictureError(
            "unsupported_media",
            "the image's samples are floating-point numbers, which have no brightness of their own;"
            " send it with 8 or 16 bits a sample",
        )
    if image.mode == "LAB":
        raise PictureError(
            "unsupported_media", "the image's colours are CIE L*a*b*, which is not read here; send it as RGB"
        )
    if image.mode.startswith(("I;16", "I")):
        # convert() would clip everything above 255 to white.
        image = image.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    is_see_through = image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info
    # A palette's numbers have no mean.
    form = "RGBA" if is_see_through else "RGB"
    if image.mode != form:
        # Even to its own form it would be a copy, and the picture may have four hundred megabytes.
        image = image.convert(form)
    if factor > 1:
        image = image.reduce(factor)
    if is_see_through:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image


def find_clips(path: str, form: str | None) -> list[tuple[int, int]]:
    """
    First and last byte (exclusive) of each video in a motion photo.

    Phones put an mp4 file behind a JPEG, or into a box of a HEIC file; how they announce it differs, and it is found by
    what it is. All are given, also one within another: which of them a phone shows is not known.
    """
    if form not in ("JPEG", "MPO", "HEIF", "AVIF"):
        return []
    clips: list[tuple[int, int]] = []
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:  # noqa: PTH123 - as above
        at = data.find(b"ftyp", 8)
        while at >= 0 and len(clips) <= MAX_PICTURES:
            start = at - 4
            end = after_boxes(data, start)
            if end is not None:
                clips.append((start, end))
            at = data.find(b"ftyp", at + 4)
    return clips


def after_boxes(data: mmap.mmap, start: int) -> int | None:
    """Where the boxes end that a file type at *start* begins; None if none of them is an index or data."""
    position, found = start, set()
    while position + 8 <= len(data):
        size, kind = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8]
        if size == 1:
            size = int.from_bytes(data[position + 8 : position + 16], "big")
        elif size == 0:
            size = len(data) - position
        if size < 8 or (kind == b"ftyp") != (position == start) or not is_box_name(kind):
            break
        if kind not in MEDIA_BOXES and position + size > len(data):
            # These bytes follow the video and only look like a box.
            break
        found.add(kind)
        position += size
    return min(position, len(data)) if found.intersection(MEDIA_BOXES) else None


def is_box_name(kind: bytes) -> bool:
    """Whether *kind* is of printable letters: players pass over boxes that they do not know."""
    return all(0x20 <= letter <= 0x7E for letter in kind)


TODO: dict[str, Callable[..., Iterator[Record]]] = {"probe": probe, "picture": picture, "animation": animation}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1], json.loads(sys.argv[2]), sys.stdout.buffer))
