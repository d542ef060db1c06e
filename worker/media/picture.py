"""
The image decoder's child process: ``python -I -B picture.py PATH REQUEST``, the request being a JSON object.

It imports Pillow and only those modules of this project that read pictures, so that it starts fast and holds no
secrets. ``command`` is one of three:

``probe``
    Write the facts as one line of JSON. Decodes the first picture, or every picture of an animation.
``picture``
    Decode picture ``number``: write a line with its size, then its pixels as 8-bit RGB rows, upright. The numbers after
    the last picture are those of a motion photo's videos, for which the line gives the range of bytes.
``animation``
    Decode the pictures of an animation that begin between ``start_s`` and ``end_s``, sampled by ``sample_fps``. Each is
    written as above, with its time; the last line is ``{"end": true}``.

On an error the next line has its code and a sentence. Pictures of more than ``work_pixels`` are scaled down to a half,
a quarter or an eighth of their width and height; JPEG and JPEG 2000 are scaled while they are decoded.
"""

import json
import math
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

# Isolated mode (-I) puts neither the project nor this folder on the path.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from worker.media.animations import MAX_UNSAMPLED_PICTURES, decode_times, is_truncated
from worker.media.motion_photos import find_clips
from worker.media.pillow_reader import (
    DAMAGE,
    MAX_PICTURES,
    PictureError,
    check_pixels,
    decode,
    find_picture_numbers,
    open_image,
    register_readers,
    too_many_pictures,
)

CONTAINERS = {"MPO": "jpeg", "HEIF": "heic"}
"""Pillow's format → container, where they differ by more than case."""
ANIMATIONS = ("GIF", "WEBP", "PNG", "AVIF")

Record = tuple[dict[str, Any], bytes]
"""A line and the pixels that follow it."""


def main(path: str, request: dict[str, Any], output: BinaryIO) -> int:
    """Run *request* on the file at *path*; return the exit status, 0 for success."""
    register_readers()
    warnings.simplefilter("ignore")
    command = COMMANDS[request.pop("command")]
    try:
        for line, pixels in command(path, **request):
            output.write(json.dumps(line).encode() + b"\n")
            output.write(pixels)
    except PictureError as error:
        return write_error(output, error.code, str(error))
    except MemoryError:
        return write_error(output, "too_many_pixels", "the picture needs more memory than allowed")
    except DAMAGE:
        return write_error(output, "truncated", "the image's data is damaged or incomplete")
    output.flush()
    return 0


def write_error(output: BinaryIO, code: str, detail: str) -> int:
    """Write the line of an error; return the exit status."""
    output.write(json.dumps({"error": code, "detail": detail}).encode() + b"\n")
    return 3


def probe(path: str, max_pixels: int, max_image_pixels: int, work_pixels: int) -> Iterator[Record]:
    """Yield the facts of the file at *path*."""
    with open_image(path) as image:
        is_animation = image.format in ANIMATIONS and getattr(image, "n_frames", 1) > 1
        limit = ("max_pixels", max_pixels) if is_animation else ("max_image_pixels", max_image_pixels)
        check_pixels(image, *limit)
        numbers = [0] if is_animation else find_picture_numbers(image)
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
            timeline = [(start_s, end_s) for start_s, end_s in decode_times(image)]
            facts |= {
                "pictures": len(timeline),
                "duration_s": timeline[-1][1],
                "truncated": is_truncated(image, path, timeline),
            }
        else:
            facts["clips"] = len(find_clips(path, image.format))
            if facts["pictures"] + facts["clips"] > MAX_PICTURES:
                raise too_many_pictures()
        yield facts, b""


def picture(path: str, number: int, work_pixels: int) -> Iterator[Record]:
    """Yield picture *number*, or the range of bytes of the motion photo's video with that number."""
    with open_image(path) as image:
        if image.format == "TIFF":
            # A page's number is Pillow's, and counting all pages would take long.
            try:
                image.seek(number)
            except EOFError:
                raise PictureError("truncated", f"the file has no picture {number}") from None
        else:
            numbers = find_picture_numbers(image)
            if number >= len(numbers):
                clips = find_clips(path, image.format)[number - len(numbers) :]
                if not clips:
                    raise PictureError("truncated", f"the file has no picture {number}")
                yield {"clip": clips[0]}, b""
                return
            image.seek(numbers[number])
        yield make_record(image, work_pixels)


def animation(path: str, start_s: float, end_s: float, sample_fps: float, work_pixels: int) -> Iterator[Record]:
    """Yield the sampled pictures of an interval; if none begins in it, the one that is shown at its start."""
    with open_image(path) as image:
        is_unsampled = image.n_frames <= MAX_UNSAMPLED_PICTURES
        shown_at_start, last_cell, count = None, -1, 0
        for begin_s, until_s in decode_times(image):
            if begin_s >= end_s:
                break
            if begin_s < start_s:
                if until_s > start_s:
                    shown_at_start = make_record(image, work_pixels)
                continue
            # Rounding must not put a picture on a cell's edge into the cell before it.
            cell = math.floor((begin_s - start_s) * sample_fps + 1e-6)
            if is_unsampled or cell > last_cell:
                last_cell, count = cell, count + 1
                line, pixels = make_record(image, work_pixels)
                yield {**line, "time_s": begin_s}, pixels
        if count == 0:
            if shown_at_start is None:
                raise PictureError("truncated", f"the animation has no picture at {start_s:g} s")
            yield {**shown_at_start[0], "time_s": start_s}, shown_at_start[1]
        yield {"end": True}, b""


def make_record(image: Any, work_pixels: int) -> Record:
    """Decode the current picture of *image*; return its line and its pixels."""
    rgb, size, _ = decode(image, work_pixels)
    line = {"width_px": rgb.width, "height_px": rgb.height, "full_width_px": size[0], "full_height_px": size[1]}
    return line, rgb.tobytes()


COMMANDS: dict[str, Callable[..., Iterator[Record]]] = {"probe": probe, "picture": picture, "animation": animation}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1], json.loads(sys.argv[2]), sys.stdout.buffer))
