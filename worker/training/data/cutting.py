"""
Building of a crop cache: every usable face of a data set, cut by the serving code into shards.

A shard always covers the same ``MEDIA_PER_SHARD`` media. It is written under a temporary name and renamed when it is
complete, and a complete shard is never written again, so that a killed build resumes with the first missing shard. Only
the media of a few shards are in memory at a time, whatever the size of the data set.
"""

import io
import json
import tarfile
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, replace
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from shared.config import Limits
from shared.errors import DeepfakeStreamError
from worker.detection.faces import Box, DetectedFace, crop_face, measure_quality, quality_problem, square_around
from worker.detection.mtcnn import MTCNN
from worker.media.frames import Frame, read_frames
from worker.media.probe import probe
from worker.training.data.cache import (
    MARGIN,
    MAX_SIDE_PX,
    SETTINGS_FILE,
    CachedFace,
    CacheSettings,
    append_picture,
    open_tar,
)
from worker.training.data.folder_settings import record_settings
from worker.training.data.media import Medium

MEDIA_PER_SHARD: Final = 64
FRAMES_AT_ONCE: Final = 8
UNCHANGED: Final = 2.0
"""Mean difference in grey levels between the halves of a pair below which a face was not swapped."""
TIGHT_SHARE: Final = 0.5
"""Share of a picture that a face covers at least in a tight crop: MTCNN misplaces the boxes of such faces."""
BORDER_SHARE: Final = 60 / 224
"""Black border on each side of a tight crop during detection, as a share of the picture's longer side."""


def build_cache(
    media: Iterable[Medium], folder: Path, settings: CacheSettings, *, processes: int = 1, total: int | None = None
) -> None:
    """
    Cut the faces of *media* out into the cache in *folder*, or resume doing so.

    Args:
        media: Media, in the same order at every call.
        processes: Number of processes that decode and detect in parallel.
        total: Number of media, for the progress bar.

    Raises:
        DataError: The folder holds a cache made with other settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    record_settings(folder / SETTINGS_FILE, settings.model_dump(mode="json"), "other settings", read=_as_settings)
    iterator = iter(media)
    chunks = iter(lambda: list(islice(iterator, MEDIA_PER_SHARD)), [])
    running: deque[tuple[int, Future[None]]] = deque()
    # Forking would copy a parent whose libraries may hold threads and locks.
    with (
        ProcessPoolExecutor(processes, get_context("spawn"), _start_process, (settings,)) as pool,
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
    """Read a settings file of any version, with the defaults of settings that it does not have yet."""
    return CacheSettings.model_validate(written).model_dump(mode="json")


class _FaceCutter:
    """Finds and selects the faces of media, in one building process."""

    def __init__(self, settings: CacheSettings) -> None:
        self.settings = settings
        self._preprocessing = settings.to_preprocessing()
        self._mtcnn = MTCNN(min_face_px=settings.min_face_px, thresholds=settings.detector_thresholds, device="cpu")

    def faces(self, medium: Medium) -> Iterator[tuple[Frame, DetectedFace, NDArray[np.uint8]]]:
        """Yield the usable faces of *medium*, each with its frame and the part of the frame that was searched."""
        frames = self._frames(medium)
        while chunk := list(islice(frames, FRAMES_AT_ONCE)):
            views = [_region(frame.pixels, medium.region) for frame in chunk]
            for frame, view, found in zip(chunk, views, self._detect(views), strict=True):
                usable = [face for face in found if self._is_usable(view, face)]
                limit = 1 if medium.label == "fake" else self.settings.max_faces
                if medium.region == "right":
                    # Other people in the frame may be untouched.
                    other = _region(frame.pixels, "left")
                    usable = [face for face in usable if _mean_difference(view, other, face.box_px) >= UNCHANGED]
                for face in usable[:limit]:
                    yield frame, face, view

    def _detect(self, views: list[NDArray[np.uint8]]) -> list[list[DetectedFace]]:
        """
        Detect the faces in each picture, largest first.

        MTCNN misplaces the box of a face that fills its picture, or misses the face. Such pictures are searched again
        inside a black border, and their boxes may reach beyond the picture. All other faces are those that serving
        finds.
        """
        found = self._mtcnn.detect(views)
        tight = [place for place, faces in enumerate(found) if not faces or _fills_picture(faces[0], views[place])]
        borders = [round(BORDER_SHARE * max(views[place].shape[:2])) for place in tight]
        bordered = [
            np.pad(views[place], ((border, border), (border, border), (0, 0)))
            for place, border in zip(tight, borders, strict=True)
        ]
        for place, border, faces in zip(tight, borders, self._mtcnn.detect(bordered), strict=True):
            moved = [_shift_face(face, -border) for face in faces]
            if moved and _fills_picture(moved[0], views[place]):
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


_cutter: _FaceCutter | None = None


def _start_process(settings: CacheSettings) -> None:
    global _cutter
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    _cutter = _FaceCutter(settings)


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
                    lines.append(_write_face(tar, file, name, len(lines), medium, frame, face, view))
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


def _write_face(
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
    offset, length = append_picture(tar, file, f"{shard}-{number:06d}.png", picture)
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
    """Return a half of a side-by-side frame, of which both have the same width, or the whole frame."""
    half = pixels.shape[1] // 2
    if region == "left":
        return pixels[:, :half]
    return pixels[:, -half:] if region == "right" else pixels


def _fills_picture(face: DetectedFace, view: NDArray[np.uint8]) -> bool:
    height, width = view.shape[:2]
    left, top, right, bottom = face.box_px
    inside = max(0.0, min(right, width) - max(left, 0.0)) * max(0.0, min(bottom, height) - max(top, 0.0))
    return bool(inside >= TIGHT_SHARE * width * height)


def _shift_face(face: DetectedFace, by_px: int) -> DetectedFace:
    """Return *face* in the coordinates of a picture whose corner is *by_px* further left and up."""
    left, top, right, bottom = (value + by_px for value in face.box_px)
    marks = tuple((x + by_px, y + by_px) for x, y in face.landmarks_px)
    return replace(face, box_px=(left, top, right, bottom), landmarks_px=marks)


def _mean_difference(one: NDArray[np.uint8], other: NDArray[np.uint8], box: Box) -> float:
    """Return the mean absolute difference of two aligned pictures in the inner part of a face box, in grey levels."""
    x, y, side = square_around(box, -0.15)
    window = (slice(max(0, y), max(0, y + side)), slice(max(0, x), max(0, x + side)))
    if one[window].size == 0:
        return 0.0
    return float(cv2.absdiff(one[window], other[window]).mean())
