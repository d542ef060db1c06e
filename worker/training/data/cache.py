"""
The crop cache: a folder of shards with the cut faces of a data set.

``00000.tar`` holds lossless pictures, in the layout that WebDataset reads. ``00000.jsonl`` has one line for each face,
with its metadata and the position of its picture in the tar, or for each medium without a face.
"""

import io
import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from shared.manifests import Preprocessing
from worker.detection.faces import Box
from worker.training.errors import DataError

SETTINGS_FILE: Final = "settings.json"
"""File of the settings, beside the shards of a cache that was built here."""
MAX_SIDE_PX: Final = 384
"""Largest side of a cached picture; larger faces are shrunk to it."""
MARGIN: Final = 0.5
"""Margin on each side of the face box, so that training can move and scale the crop that serving would take."""
SAME_SCALE: Final = 2e-3
SAME_FACE: Final = 0.3
"""Distance of two faces in aligned frames, as a share of their size, below which they are the same face."""


class CacheSettings(BaseModel):
    """The settings that decide the contents of a cache."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sample_fps: float = 3.0
    max_frames: int = 60
    """Largest number of frames of one video, spread evenly over it."""
    max_faces: int = 4
    """Largest number of faces of a frame of real media, largest first. In fakes only the largest face is taken, since
    that one was swapped."""
    min_face_px: int = 40
    min_sharpness: float = 20.0
    min_confidence: float = 0.9
    detector_thresholds: tuple[float, float, float] = (0.6, 0.7, 0.7)
    cutter: int = 2
    """Version of the face cutter: 2 searches pictures that a face fills again inside a border."""

    def to_preprocessing(self) -> Preprocessing:
        """Convert the settings for serving's functions, with the crop of the cache."""
        return Preprocessing(
            crop_size_px=MAX_SIDE_PX,
            crop_margin=MARGIN,
            min_face_px=self.min_face_px,
            min_sharpness=self.min_sharpness,
            min_confidence=self.min_confidence,
            detector_thresholds=self.detector_thresholds,
        )


@dataclass(frozen=True, slots=True)
class CachedFace:
    """One line of an index: a face, where its picture is, and the medium it comes from."""

    shard: str
    offset: int
    length: int
    key: str
    label: str
    dataset: str
    group: str
    set: str
    method: str
    compression: str
    original: str
    is_video: bool
    time_s: float
    box_px: Box
    """Face box in the picture."""
    landmarks_px: tuple[tuple[float, float], ...]
    """Landmarks in the picture."""
    frame_box_px: Box
    """Face box in the frame, or in the half of it."""
    size_px: float
    """The smaller side of the face in its frame."""
    sharpness: float

    @property
    def scale(self) -> float:
        """Scale of the picture relative to its frame; 1 for nearly all, which are stored at their own size."""
        scale = (self.box_px[2] - self.box_px[0]) / max(self.frame_box_px[2] - self.frame_box_px[0], 1e-6)
        # Boxes are rounded to hundredths.
        return 1.0 if abs(scale - 1.0) < SAME_SCALE else scale

    def distance_to(self, other: "CachedFace") -> float:
        """Return the distance to the centre of *other*, in an aligned frame, as a share of this face's size."""
        left, top, right, bottom = self.frame_box_px
        apart = np.hypot(
            left + right - other.frame_box_px[0] - other.frame_box_px[2],
            top + bottom - other.frame_box_px[1] - other.frame_box_px[3],
        )
        return float(apart) / 2 / max(right - left, bottom - top)

    @classmethod
    def from_line(cls, line: str) -> Self:
        """Parse a line of an index."""
        data = json.loads(line)
        marks = tuple((float(x), float(y)) for x, y in data["landmarks_px"])
        boxes = {name: tuple(data[name]) for name in ("box_px", "frame_box_px")}
        return cls(**{**data, **boxes, "landmarks_px": marks})


class CropCache:
    """
    Reader of a crop cache.

    Args:
        folder: Folder that ``cutting.build_cache`` or ``prebuilt_caches.link_cache`` wrote.

    Raises:
        DataError: There is no complete shard.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[str, int] = {}
        self._owner = os.getpid()
        if not any(folder.glob("*.jsonl")):
            raise DataError(f"there is no crop cache in {folder}")

    def read_faces(self) -> Iterator[CachedFace]:
        """Yield every face, shard by shard."""
        for index in sorted(self.folder.glob("*.jsonl")):
            with index.open() as lines:
                for line in lines:
                    if '"problem"' not in line[:12]:
                        yield CachedFace.from_line(line)

    def read_problems(self) -> Iterator[dict[str, str]]:
        """Yield the media without a usable face, with the reason: ``{"problem": code, "key": medium}``."""
        for index in sorted(self.folder.glob("*.jsonl")):
            with index.open() as lines:
                yield from (json.loads(line) for line in lines if '"problem"' in line[:12])

    def read_picture(self, face: CachedFace) -> NDArray[np.uint8]:
        """
        Decode the picture around *face*. This is safe in loader processes, since each opens files of its own.

        Returns:
            (S, S, 3) uint8 RGB, S ≤ 384.

        Raises:
            DataError: The picture is damaged.
        """
        if self._owner != os.getpid():
            self._files, self._owner = {}, os.getpid()
        if face.shard not in self._files:
            self._files[face.shard] = os.open(self.folder / f"{face.shard}.tar", os.O_RDONLY)
        data = os.pread(self._files[face.shard], face.length, face.offset)
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
        if picture is None:
            place = f"byte {face.offset} of {face.shard}.tar in {self.folder}"
            raise DataError(f"the picture of {face.dataset}/{face.key}, at {place}, is damaged")
        return np.asarray(picture, np.uint8)


def open_tar(file: io.BufferedWriter) -> tarfile.TarFile:
    """Open a tar for ``append_picture``, in the USTAR format: its headers have one block, so offsets are known."""
    return tarfile.TarFile(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT)


def append_picture(
    tar: tarfile.TarFile, file: io.BufferedWriter, name: str, picture: NDArray[np.uint8]
) -> tuple[int, int]:
    """
    Add a picture, (H, W, 3) uint8 RGB, to the *tar* that is written to *file*.

    Returns:
        The offset of its bytes in the file, and their number.

    Raises:
        DataError: It could not be encoded.
    """
    done, data = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not done:
        raise DataError(f"the picture {name} could not be written")
    header = tarfile.TarInfo(name)
    header.size = len(data)
    offset = file.tell() + tarfile.BLOCKSIZE
    tar.addfile(header, io.BytesIO(data.tobytes()))
    return offset, len(data)
