"""
The crop cache: every usable face of a data set, cut out once through the serving code.

A cache is a folder of shards. ``00000.tar`` holds lossless pictures, in the layout that WebDataset reads, and
``00000.jsonl`` says what they are and where in the tar they stand, one line a face. A shard covers the same
``MEDIA_PER_SHARD`` media whenever it is built, is written under another name and renamed when it is complete, and
is never written again: a build that was killed goes on where it was. Nothing here holds more than some shards'
media in memory, so that hundreds of gigabytes of video pass through.
"""

import io
import json
import os
import tarfile
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final, Self

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from tqdm import tqdm

from shared.config import Limits
from shared.errors import DeepfakeStreamError
from shared.manifests import Preprocessing
from worker.detection.faces import Box, DetectedFace, crop_face, measure_quality, quality_problem, square_around
from worker.detection.mtcnn import MTCNN
from worker.media.frames import Frame, read_frames
from worker.media.probe import probe
from worker.training.data.claims import claim
from worker.training.data.media import Medium
from worker.training.errors import DataError

MEDIA_PER_SHARD: Final = 64
SETTINGS_FILE: Final = "settings.json"
"""Beside the shards of a cache that was built."""
FRAMES_AT_ONCE: Final = 8
MAX_SIDE_PX: Final = 384
"""Of a cached picture; larger faces are shrunk to it."""
MARGIN: Final = 0.5
"""Around the face box on each side, so that training can move and scale the crop that serving would take."""
UNCHANGED: Final = 2.0
"""Mean difference in grey levels between the halves of a pair below which a face was not swapped."""
SAME_SCALE: Final = 2e-3
SAME_FACE: Final = 0.3
"""Distance of two faces in aligned frames, as a share of their size, below which they are one face."""
FILLS: Final = 0.5
"""Share of a picture that a face covers from which on it is a tight crop: MTCNN misplaces the boxes of such faces."""
BORDER: Final = 60 / 224
"""Black, on each side of a tight crop while faces are looked for, as a share of the picture's longer side."""


class CacheSettings(BaseModel):
    """What decides the contents of a cache."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sample_fps: float = 3.0
    max_frames: int = 60
    """Of one video, spread evenly over it."""
    max_faces: int = 4
    """Of one frame, largest first, in real media. Of a fake one the largest alone is taken, which was swapped."""
    min_face_px: int = 40
    min_sharpness: float = 20.0
    min_confidence: float = 0.9
    detector_thresholds: tuple[float, float, float] = (0.6, 0.7, 0.7)
    cutter: int = 2
    """Counts changes to how faces are found and cut: 2 looks for faces that fill their picture inside a border."""

    def preprocessing(self) -> Preprocessing:
        """The part that serving knows, for its functions; the crop is training's own."""
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
    """In the picture."""
    landmarks_px: tuple[tuple[float, float], ...]
    """In the picture."""
    frame_box_px: Box
    """In the frame, or in the half of it."""
    size_px: float
    """The smaller side of the face in its frame."""
    sharpness: float

    @property
    def scale(self) -> float:
        """Of the picture against its frame; 1 for nearly all, which are kept as they were cut out."""
        scale = (self.box_px[2] - self.box_px[0]) / max(self.frame_box_px[2] - self.frame_box_px[0], 1e-6)
        # Boxes are rounded to hundredths.
        return 1.0 if abs(scale - 1.0) < SAME_SCALE else scale

    def distance(self, other: "CachedFace") -> float:
        """How far *other*, of an aligned frame, lies from this one, as a share of this one's size."""
        left, top, right, bottom = self.frame_box_px
        apart = np.hypot(
            left + right - other.frame_box_px[0] - other.frame_box_px[2],
            top + bottom - other.frame_box_px[1] - other.frame_box_px[3],
        )
        return float(apart) / 2 / max(right - left, bottom - top)

    @classmethod
    def from_line(cls, line: str) -> Self:
        """The face that a line of an index describes."""
        data = json.loads(line)
        marks = tuple((float(x), float(y)) for x, y in data["landmarks_px"])
        boxes = {name: tuple(data[name]) for name in ("box_px", "frame_box_px")}
        return cls(**{**data, **boxes, "landmarks_px": marks})


class CropCache:
    """
    A built cache, for reading.

    Args:
        folder: Where ``build_cache`` wrote it.

    Raises:
        DataError: There is no complete shard.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[str, int] = {}
        self._owner = os.getpid()
        if not any(folder.glob("*.jsonl")):
            raise DataError(f"there is no crop cache in {folder}")

    def faces(self) -> Iterator[CachedFace]:
        """Every face, shard by shard."""
        for index in sorted(self.folder.glob("*.jsonl")):
            with index.open() as lines:
                for line in lines:
                    if '"problem"' not in line[:12]:
                        yield CachedFace.from_line(line)

    def problems(self) -> Iterator[dict[str, str]]:
        """What gave no face, and why: ``{"problem": code, "key": medium}``."""
        for index in sorted(self.folder.glob("*.jsonl")):
            with index.open() as lines:
                yield from (json.loads(line) for line in lines if '"problem"' in line[:12])

    def picture(self, face: CachedFace) -> NDArray[np.uint8]:
        """(S, S, 3) uint8 RGB around *face*, S ≤ 384. Safe in loader processes: each opens files of its own."""
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


def build_cache(
    media: Iterable[Medium], folder: Path, settings: CacheSettings, *, processes: int = 1, total: int | None = None
) -> None:
    """
    Cut the faces of *media* out into the cache in *folder*, or go on doing so.

    Args:
        media: In the same order at every call.
        processes: That decode and detect side by side.
        total: How many media there are, for the progress bar.

    Raises:
        DataError: The folder holds a cache made with other settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    claim(folder / SETTINGS_FILE, settings.model_dump(mode="json"), "other settings", read=_as_settings)
    iterator = iter(media)
    chunks = iter(lambda: list(islice(iterator, MEDIA_PER_SHARD)), [])
    running: deque[tuple[int, Future[None]]] = deque()
    # Forking would copy a parent whose libraries may hold threads and locks.
    with (
        ProcessPoolExecutor(processes, get_context("spawn"), _start, (settings,)) as pool,
        tqdm(total=total, unit="file", desc="crops") as bar,
    ):
        for number, chunk in enumerate(chunks):
            name = f"{number:05d}"
            if (folder / f"{name}.jsonl").exists():
                bar.update(len(chunk))
                continue
            running.append((len(chunk), pool.submit(_build_shard, folder, name, chunk)))
            while len(running) > 2 * processes:
                _await_first(running, bar)
        while running:
            _await_first(running, bar)


def _await_first(running: "deque[tuple[int, Future[None]]]", bar: Any) -> None:
    count, future = running.popleft()
    future.result()
    bar.update(count)


def _as_settings(written: Any) -> dict[str, Any]:
    """What a cache's settings file holds, with the defaults of settings that it does not know yet."""
    return CacheSettings.model_validate(written).model_dump(mode="json")


class _Cutter:
    """Detector and settings of one building process."""

    def __init__(self, settings: CacheSettings) -> None:
        self.settings = settings
        self._preprocessing = settings.preprocessing()
        self._mtcnn = MTCNN(min_face_px=settings.min_face_px, thresholds=settings.detector_thresholds, device="cpu")

    def faces(self, medium: Medium) -> Iterator[tuple[Frame, DetectedFace, NDArray[np.uint8]]]:
        """Usable faces of *medium* with the frame they were found in."""
        frames = self._frames(medium)
        while chunk := list(islice(frames, FRAMES_AT_ONCE)):
            views = [_region(frame.pixels, medium.region) for frame in chunk]
            for frame, view, found in zip(chunk, views, self._detect(views), strict=True):
                usable = [face for face in found if self._is_usable(view, face)]
                limit = 1 if medium.label == "fake" else self.settings.max_faces
                if medium.region == "right":
                    # Beside the swapped person others may stand, untouched.
                    other = _region(frame.pixels, "left")
                    usable = [face for face in usable if _difference(view, other, face.box_px) >= UNCHANGED]
                for face in usable[:limit]:
                    yield frame, face, view

    def _detect(self, views: list[NDArray[np.uint8]]) -> list[list[DetectedFace]]:
        """
        The faces in each picture, largest first.

        MTCNN squeezes the box of a face that fills its picture into the picture, or finds none. Such faces are looked
        for once more inside a border, and may then reach beyond the picture. Where no face fills it, a picture's faces
        are those that serving finds.
        """
        found = self._mtcnn.detect(views)
        tight = [place for place, faces in enumerate(found) if not faces or _fills(faces[0], views[place])]
        borders = [round(BORDER * max(views[place].shape[:2])) for place in tight]
        bordered = [
            np.pad(views[place], ((border, border), (border, border), (0, 0)))
            for place, border in zip(tight, borders, strict=True)
        ]
        for place, border, faces in zip(tight, borders, self._mtcnn.detect(bordered), strict=True):
            moved = [_moved(face, -border) for face in faces]
            if moved and _fills(moved[0], views[place]):
                found[place] = moved
        return found

    def _frames(self, medium: Medium) -> Iterator[Frame]:
        facts = probe(medium.path, Limits().for_media())
        duration_s = facts.duration_s or 0.0
        fps = self.settings.sample_fps
        if duration_s * fps > self.settings.max_frames:
            fps = self.settings.max_frames / duration_s
        return read_frames(medium.path, facts, start_s=0.0, end_s=duration_s, sample_fps=fps, timeout_s=600.0)

    def _is_usable(self, view: NDArray[np.uint8], face: DetectedFace) -> bool:
        if face.confidence < self.settings.min_confidence:
            return False
        quality = measure_quality(view, face)
        return quality_problem(quality.size_px, quality.sharpness, self._preprocessing) is None


_cutter: _Cutter | None = None


def _start(settings: CacheSettings) -> None:
    global _cutter
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    _cutter = _Cutter(settings)


def _build_shard(folder: Path, name: str, media: list[Medium]) -> None:
    if _cutter is None:
        raise RuntimeError("the building process was not started")
    lines: list[str] = []
    partial = folder / f"{name}.tar.partial"
    with partial.open("wb") as file:
        tar = open_tar(file)
        for medium in media:
            try:
                count = 0
                for frame, face, view in _cutter.faces(medium):
                    lines.append(_add(tar, file, name, len(lines), medium, frame, face, view))
                    count += 1
                if count == 0:
                    lines.append(json.dumps({"problem": "no_usable_face", "key": medium.key}))
            except DeepfakeStreamError as error:
                lines.append(json.dumps({"problem": error.code, "key": medium.key}))
        tar.close()
    partial.rename(folder / f"{name}.tar")
    index = folder / f"{name}.jsonl.partial"
    index.write_text("".join(f"{line}\n" for line in lines))
    index.rename(folder / f"{name}.jsonl")


def open_tar(file: io.BufferedWriter) -> tarfile.TarFile:
    """A tar for ``add_picture``: in the plain format, headers have one block, so that pictures' places are known."""
    return tarfile.TarFile(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT)


def add_picture(
    tar: tarfile.TarFile, file: io.BufferedWriter, name: str, picture: NDArray[np.uint8]
) -> tuple[int, int]:
    """
    Add a picture, (H, W, 3) uint8 RGB, to the *tar* that ends at *file*'s place.

    Returns:
        Where its bytes begin in the file, and how many there are.

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


def _add(
    tar: tarfile.TarFile,
    file: io.BufferedWriter,
    shard: str,
    number: int,
    medium: Medium,
    frame: Frame,
    face: DetectedFace,
    view: NDArray[np.uint8],
) -> str:
    x, y, side = square_around(face.box_px, MARGIN)
    size = min(side, MAX_SIDE_PX)
    picture = crop_face(view, face.box_px, size_px=size, margin=MARGIN)
    offset, length = add_picture(tar, file, f"{shard}-{number:06d}.png", picture)
    left, top, right, bottom = face.box_px
    scale = size / side
    quality = measure_quality(view, face)
    row = CachedFace(
        shard=shard,
        offset=offset,
        length=length,
        key=medium.key,
        label=medium.label,
        dataset=medium.dataset,
        group=medium.group,
        set=medium.set or "train",
        method=medium.method,
        compression=medium.compression,
        original=medium.original,
        is_video=medium.is_video,
        time_s=round(frame.time_s, 4),
        box_px=(
            round((left - x) * scale, 2),
            round((top - y) * scale, 2),
            round((right - x) * scale, 2),
            round((bottom - y) * scale, 2),
        ),
        landmarks_px=tuple((round((a - x) * scale, 2), round((b - y) * scale, 2)) for a, b in face.landmarks_px),
        frame_box_px=(round(left, 2), round(top, 2), round(right, 2), round(bottom, 2)),
        size_px=round(quality.size_px, 1),
        sharpness=round(quality.sharpness, 2),
    )
    return json.dumps(asdict(row))


def _region(pixels: NDArray[np.uint8], region: str) -> NDArray[np.uint8]:
    """The half of a side-by-side frame; both have the same width."""
    half = pixels.shape[1] // 2
    if region == "left":
        return pixels[:, :half]
    return pixels[:, -half:] if region == "right" else pixels


def _fills(face: DetectedFace, view: NDArray[np.uint8]) -> bool:
    height, width = view.shape[:2]
    left, top, right, bottom = face.box_px
    inside = max(0.0, min(right, width) - max(left, 0.0)) * max(0.0, min(bottom, height) - max(top, 0.0))
    return bool(inside >= FILLS * width * height)


def _moved(face: DetectedFace, by_px: int) -> DetectedFace:
    """The face as it lies in a picture whose corner is *by_px* further left and up."""
    left, top, right, bottom = (value + by_px for value in face.box_px)
    marks = tuple((x + by_px, y + by_px) for x, y in face.landmarks_px)
    return replace(face, box_px=(left, top, right, bottom), landmarks_px=marks)


def _difference(one: NDArray[np.uint8], other: NDArray[np.uint8], box: Box) -> float:
    """Mean absolute difference of two aligned pictures within the inner part of a face box, in grey levels."""
    x, y, side = square_around(box, -0.15)
    window = (slice(max(0, y), max(0, y + side)), slice(max(0, x), max(0, x + side)))
    if one[window].size == 0:
        return 0.0
    return float(cv2.absdiff(one[window], other[window]).mean())
