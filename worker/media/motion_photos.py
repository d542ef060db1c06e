"""The videos of motion photos, which phones store in the file of a picture."""

import mmap
from pathlib import Path

from worker.media.pillow_reader import MAX_PICTURES

MEDIA_BOXES = (b"moov", b"moof", b"mdat")
"""Boxes of an MP4 file that hold its index and data; the last one in a file may be truncated."""


def find_clips(path: str, image_format: str | None) -> list[tuple[int, int]]:
    """
    Find the videos of a motion photo; return the first byte and the end (exclusive) of each.

    Phones append an MP4 file to a JPEG, or put it into a box of a HEIC file. They announce it in different ways, so it
    is found by its content. Videos within another one are listed, too: which of them a phone shows is unknown.
    """
    if image_format not in ("JPEG", "MPO", "HEIF", "AVIF"):
        return []
    clips: list[tuple[int, int]] = []
    with Path(path).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        position = data.find(b"ftyp", 8)
        while position >= 0 and len(clips) <= MAX_PICTURES:
            start = position - 4
            end = find_boxes_end(data, start)
            if end is not None:
                clips.append((start, end))
            position = data.find(b"ftyp", position + 4)
    return clips


def find_boxes_end(data: mmap.mmap, start: int) -> int | None:
    """Return where the boxes of the MP4 file at *start* end; None if none of them holds an index or data."""
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
            # These bytes follow the video; they only look like a box.
            break
        found.add(kind)
        position += size
    return min(position, len(data)) if found.intersection(MEDIA_BOXES) else None


def is_box_name(kind: bytes) -> bool:
    """Return whether *kind* consists of printable characters, as every box type does."""
    return all(0x20 <= letter <= 0x7E for letter in kind)
