"""Animations, read with Pillow: when each picture is shown, and whether the file is complete."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from worker.media.pillow_reader import DAMAGE

MAX_UNSAMPLED_PICTURES = 50
"""An animation with no more pictures than this is not sampled: every picture is decoded."""
MIN_DURATION_S = 0.0101
DEFAULT_DURATION_S = 0.1
"""Browsers show a picture for a tenth of a second if the file says a hundredth or less."""


def decode_times(image: Any) -> Iterator[tuple[float, float]]:
    """Decode an animation's pictures in turn, up to the first damaged one; yield when each begins and ends."""
    end_s = 0.0
    for number in range(image.n_frames):
        try:
            image.seek(number)
            image.load()
        except DAMAGE:
            if number == 0:
                raise
            return
        given_s = (image.info.get("duration") or 0.0) / 1000
        begin_s, end_s = end_s, round(end_s + (given_s if given_s >= MIN_DURATION_S else DEFAULT_DURATION_S), 6)
        yield begin_s, end_s


def is_truncated(image: Any, path: str, timeline: list[Any]) -> bool:
    """Return whether part of an animation is missing or damaged."""
    if len(timeline) < image.n_frames:
        return True
    # Pillow only counts the pictures that a GIF still has.
    return image.format == "GIF" and not has_gif_trailer(path)


def has_gif_trailer(path: str) -> bool:
    """Walk through a GIF's blocks; return whether they end with its trailer."""
    with Path(path).open("rb") as file:
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
