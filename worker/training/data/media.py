"""Media of data sets, with labels and metadata, and the search for media files in a folder."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

Label = Literal["real", "fake"]
Set = Literal["train", "validation", "test"]
Region = Literal["whole", "left", "right"]
PICTURES: Final = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".heic", ".avif"})
VIDEOS: Final = frozenset({".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v"})


@dataclass(frozen=True, slots=True)
class Medium:
    """One image, video, or half of a side-by-side video, with its label and metadata."""

    path: Path
    key: str
    """Unique within the data set: its path below the data set's folder, with the region if it is a half."""
    label: Label
    dataset: str
    group: str
    """Media of one group, in one data set, share people or a shot, and always stay in one set."""
    set: Set | None = None
    """Set that the authors of the data set or ``splits.assign_sets`` assigned."""
    method: str = ""
    """Method that the fake was made with, where it is known."""
    compression: str = ""
    region: Region = "whole"
    original: str = ""
    """Key of the real medium that a fake was made from, where that is known."""
    from_video: bool | None = None
    """Whether a picture was cut out of a video, where the data set says so."""

    @property
    def is_video(self) -> bool:
        """Whether the data set or the file name says that it is a video; decoding checks the content."""
        return self.path.suffix.lower() in VIDEOS if self.from_video is None else self.from_video


def parse_label(value: object) -> Label | None:
    """Parse *value* as a label, ignoring case; None if it is neither ``real`` nor ``fake``."""
    match str(value).lower():
        case "real":
            return "real"
        case "fake":
            return "fake"
    return None


def infer_set(key: str) -> Set | None:
    """Infer the set from the folder names in the path *key*; None if none names a set."""
    for part in Path(key).parts[:-1]:
        match part:
            case "train" | "test" | "validation":
                return part
            case "val" | "valid":
                return "validation"
    return None


def find_media(root: Path) -> Iterator[Path]:
    """Yield every picture and video below *root*, in order, with the names of one folder in memory at a time."""
    for folder, folders, files in os.walk(root):
        folders.sort()
        for name in sorted(files):
            if Path(name).suffix.lower() in PICTURES | VIDEOS:
                yield Path(folder, name)
