"""
Scores of a checkpoint on the media in crop caches: logits before calibration, without pictures.

Crops are cut from cached pictures as serving cuts them from frames, faces below the checkpoint's quality limits are
left out, and people, segments and media are assembled by the serving code, at the checkpoint's own sampling. Two
differences from the service are stated in every report: from a frame of a fake the cache holds only the largest face,
which was swapped, and a video ends with its last face.
"""

import hashlib
import math
from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from statistics import fmean, median
from typing import Literal, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

from shared.evidence import Evidence
from shared.manifests import Manifest, Preprocessing, Scale
from worker.detection.faces import Box, crop_face, quality_problem
from worker.detection.people import Sighting, compute_appearance, group_into_people, pack_look
from worker.inference import ChannelsLastInput, Engine, make_engine
from worker.media.segments import plan_segments
from worker.model.checkpoint import Checkpoint
from worker.pipeline.results import FaceResult, SegmentResult
from worker.pipeline.scoring import gather_evidence, judge_medium, score_segment
from worker.pipeline.tracking import ScoredSegment
from worker.training.data.cache import CachedFace, CropCache
from worker.training.errors import TrainingError
from worker.training.scoring.skin_tone import skin_tone_deg


@dataclass(frozen=True, slots=True)
class ScoredFace:
    """One face of one frame, and its logit."""

    time_s: float
    logit: float
    """Logit before calibration; larger means fake."""
    segment: int
    person: int
    """Number of the person within the segment."""
    size_px: float
    """The smaller side of the face in its frame."""
    sharpness: float
    luma: float
    """Mean of the crop, in [0, 255]."""
    skin_tone_deg: float | None
    """Individual typology angle; None where it cannot be estimated."""
    frame_box_px: Box

    def fake_score(self, scale: Scale) -> float:
        """Return the probability of being fake, in [0, 1]."""
        return scale.probability(self.logit)


@dataclass(frozen=True, slots=True)
class ScoredMedium:
    """One image or video with at least one scored face."""

    dataset: str
    key: str
    group: str
    set: str
    label: str
    """``real`` or ``fake``."""
    method: str
    compression: str
    original: str
    """Key of the real medium that a fake was made from; empty where it is not known."""
    is_video: bool
    faces: tuple[ScoredFace, ...]
    """Faces in order of time; never empty."""
    looks: Mapping[int, Sequence[str]] = field(default_factory=dict)
    """Appearance of the people of each segment, by its number, in the form by which the service follows them."""

    @property
    def is_fake(self) -> bool:
        """Whether the label is ``fake``."""
        return self.label == "fake"

    @property
    def size_px(self) -> float:
        """Median over faces."""
        return median(face.size_px for face in self.faces)

    @property
    def sharpness(self) -> float:
        """Median over faces."""
        return median(face.sharpness for face in self.faces)

    @property
    def luma(self) -> float:
        """Median over faces, in [0, 255]."""
        return median(face.luma for face in self.faces)

    @property
    def skin_tone_deg(self) -> float | None:
        """Median over the faces where it could be estimated; None unless that is most of them."""
        known = [face.skin_tone_deg for face in self.faces if face.skin_tone_deg is not None]
        return median(known) if 2 * len(known) > len(self.faces) else None

    def evidence(self, scale: Scale) -> Evidence:
        """Return the evidence behind the medium's score, as the service counts it, without compression."""
        return gather_evidence([result.to_json() for result in self._segments(scale)], self._kind)

    @property
    def _kind(self) -> Literal["image", "video"]:
        return "video" if self.is_video else "image"

    def _segments(self, scale: Scale) -> list[SegmentResult]:
        results = []
        for _, group in groupby(self.faces, key=lambda face: face.segment):
            faces = list(group)
            results.append(
                score_segment([_face_result(face, scale) for face in faces], [face.person for face in faces], 0)
            )
        return results

    def list_parts(self, scale: Scale) -> list[ScoredSegment]:
        """Return the medium's segments, over which the service follows people."""
        indexes = sorted({face.segment for face in self.faces})
        results = zip(indexes, self._segments(scale), strict=True)
        return [ScoredSegment(index, result.to_json(), self.looks.get(index)) for index, result in results]

    def verdict(self, manifest: Manifest) -> str:
        """Return the service's verdict by score, people and stretches of time, without compression."""
        step_s = 1.0 / manifest.sampling.sample_fps
        parts, end_s = self.list_parts(manifest.calibration.scale), self.faces[-1].time_s + step_s
        return judge_medium(parts, self._kind, manifest, step_s=step_s, end_s=end_s).result.verdict

    def frame_evidence(self) -> list[Evidence]:
        """Return the evidence behind each frame's score, in order of time: one face of each person in it."""
        frames = groupby(self.faces, key=lambda face: face.time_s)
        return [Evidence(self._kind, 1, sum(1 for _ in faces)) for _, faces in frames]

    def fake_score(self, scale: Scale) -> float:
        """Return the medium's probability of being fake, computed as a job's ``fake_score``: in [0, 1]."""
        # A segment with a face has a score.
        return fmean(result.fake_score or 0.0 for result in self._segments(scale))

    def frame_scores(self, scale: Scale) -> list[float]:
        """Return the highest score of each frame, in order of time: in [0, 1]."""
        frames = groupby(self.faces, key=lambda face: face.time_s)
        return [max(face.fake_score(scale) for face in faces) for _, faces in frames]


class Labelled(Protocol):
    """Metadata of a medium."""

    @property
    def dataset(self) -> str:
        """Its data set."""

    @property
    def key(self) -> str:
        """Its name there."""

    @property
    def label(self) -> str:
        """``real`` or ``fake``."""

    @property
    def original(self) -> str:
        """Key of the medium that a fake was made from."""


Medium = TypeVar("Medium", bound=Labelled)
Row = TypeVar("Row")


def compare_with_originals(media: Sequence[Medium], scores: Sequence[float]) -> list[tuple[Medium, bool]]:
    """Return every fake whose original is among *media*, with whether it scores above that."""
    known = {(medium.dataset, medium.key): score for medium, score in zip(media, scores, strict=True)}
    return [
        (medium, score > known[medium.dataset, medium.original])
        for medium, score in zip(media, scores, strict=True)
        if medium.label == "fake" and (medium.dataset, medium.original) in known
    ]


def score_caches(
    checkpoint: Checkpoint,
    caches: Sequence[Path],
    *,
    sets: Collection[str],
    batch: int = 64,
    device: str | torch.device = "cpu",
    max_faces: int | None = None,
) -> list[ScoredMedium]:
    """
    Score the media of some sets.

    Args:
        checkpoint: Checkpoint with its network on *device*.
        caches: Folders of crops; one medium's pictures, and a batch's, are in memory at a time.
        sets: Some of ``train``, ``validation`` and ``test``.
        max_faces: Largest number of faces of a medium, spread evenly over it; if not given, all of the sampling.

    Raises:
        TrainingError: A logit is not a number.
        DataError: A cache is missing or damaged.
    """
    manifest = checkpoint.manifest
    scored: list[ScoredMedium] = []
    waiting: list[_PreparedMedium] = []
    total = sum(len(faces) for folder in caches for faces in select_faces(CropCache(folder), sets, manifest, max_faces))
    with tqdm(total=total, unit="face", desc="scores") as bar:
        for folder in caches:
            cache = CropCache(folder)
            for faces in select_faces(cache, sets, manifest, max_faces):
                waiting.append(_prepare(cache, faces, manifest))
                if sum(len(prepared.crops) for prepared in waiting) >= batch:
                    scored += _score_prepared(waiting, checkpoint, device, batch, bar)
                    waiting = []
        scored += _score_prepared(waiting, checkpoint, device, batch, bar)
    return scored


def select_faces(
    cache: CropCache, sets: Collection[str], manifest: Manifest, max_faces: int | None = None
) -> Iterator[list[CachedFace]]:
    """
    Yield, for each medium of *sets*, the faces that serving would score, in order of time.

    These are the faces that *manifest*'s limits accept in the first frame of each interval of its sampling; media
    without one are left out.
    """
    limits, sample_fps = manifest.preprocessing, manifest.sampling.sample_fps
    for _, group in groupby(cache.read_faces(), key=lambda face: (face.dataset, face.key)):
        faces = [face for face in group if face.set in sets and _is_usable(face, limits)]
        first: dict[int, float] = {}
        for face in faces:
            first.setdefault(math.floor(face.time_s * sample_fps + 1e-6), face.time_s)
        times = set(first.values())
        faces = [face for face in faces if face.time_s in times]
        if faces:
            yield faces if max_faces is None else take_evenly(faces, max_faces)


def take_evenly(rows: Sequence[Row], limit: int) -> list[Row]:
    """Return at most *limit* of *rows*, spread evenly: the middles of equal parts."""
    count = min(limit, len(rows))
    return [rows[int((number + 0.5) * len(rows) / count)] for number in range(count)]


def score_crops(
    network: nn.Module, crops: Sequence[NDArray[np.uint8]], device: str | torch.device, batch: int = 64
) -> list[float]:
    """
    Score crops by serving's engine, in float32, so that results do not depend on a processor's reduced precisions.

    Args:
        network: Network in eval mode, on *device*. It is compiled at its first call; later changes to its weights have
            no effect.
        crops: (S, S, 3) uint8 RGB each, with S as the network's manifest says.

    Raises:
        TrainingError: A logit is not a number.
    """
    if not crops:
        return []
    engine = _engine(network, torch.device(device), len(crops[0]))
    logits: list[float] = []
    for start in range(0, len(crops), batch):
        (part,) = engine.run(np.stack(crops[start : start + batch]))
        logits += part.tolist()
    if not all(map(math.isfinite, logits)):
        raise TrainingError("the network gave a score that is not a number")
    return logits


@lru_cache(maxsize=1)
def _engine(network: nn.Module, device: torch.device, side_px: int) -> Engine:
    """Compile *network*; the last one is kept, since compiling takes as long as some hundred faces."""
    example = np.zeros((2, side_px, side_px, 3), np.uint8)
    return make_engine(ChannelsLastInput(network, divisor=255.0), example, device, "float32")


def draw_media(media: Sequence[Medium], limit: int) -> list[Medium]:
    """Return at most *limit* media of each data set and label, always the same ones: those with the lowest hashes."""
    by_kind: dict[tuple[str, str], list[Medium]] = {}
    for medium in media:
        by_kind.setdefault((medium.dataset, medium.label), []).append(medium)
    return [
        medium
        for _, kind in sorted(by_kind.items())
        for medium in sorted(kind, key=lambda medium: hashlib.sha256(medium.key.encode()).digest())[:limit]
    ]


@dataclass(frozen=True, slots=True)
class _PreparedMedium:
    """A medium whose crops wait for the network."""

    faces: list[CachedFace]
    crops: list[NDArray[np.uint8]]
    skin_tones: list[float | None]
    segments: list[int]
    people: list[int]
    looks: dict[int, list[str]]


def _is_usable(face: CachedFace, limits: Preprocessing) -> bool:
    return quality_problem(face.size_px, face.sharpness, limits) is None


def _prepare(cache: CropCache, faces: list[CachedFace], manifest: Manifest) -> _PreparedMedium:
    pictures = [cache.read_picture(face) for face in faces]
    size_px, margin = manifest.preprocessing.crop_size_px, manifest.preprocessing.crop_margin
    crops = [
        crop_face(picture, face.box_px, size_px=size_px, margin=margin)
        for picture, face in zip(pictures, faces, strict=True)
    ]
    tones = [skin_tone_deg(picture, face.landmarks_px) for picture, face in zip(pictures, faces, strict=True)]
    plan = plan_segments(faces[-1].time_s if faces[0].is_video else None, manifest.sampling.segment_seconds)
    starts = [part.start_s for part in plan]
    segments = [bisect_right(starts, face.time_s) - 1 for face in faces]
    people: list[int] = []
    looks: dict[int, list[str]] = {}
    for number in sorted(set(segments)):
        rows = [row for row, segment in enumerate(segments) if segment == number]
        found = group_into_people(
            [Sighting(faces[row].time_s, faces[row].frame_box_px, compute_appearance(crops[row])) for row in rows]
        )
        people += found.numbers
        looks[number] = [pack_look(look) for look in found.looks]
    return _PreparedMedium(faces, crops, tones, segments, people, looks)


def _score_prepared(
    waiting: list[_PreparedMedium], checkpoint: Checkpoint, device: str | torch.device, batch: int, bar: "tqdm[None]"
) -> list[ScoredMedium]:
    logits = iter(
        score_crops(checkpoint.network, [crop for prepared in waiting for crop in prepared.crops], device, batch)
    )
    media = []
    for prepared in waiting:
        first = prepared.faces[0]
        faces = tuple(
            ScoredFace(
                time_s=face.time_s,
                logit=next(logits),
                segment=segment,
                person=person,
                size_px=face.size_px,
                sharpness=face.sharpness,
                luma=float((crop @ np.array([0.299, 0.587, 0.114])).mean()),  # As ITU-R BT.601 weighs them.
                skin_tone_deg=tone,
                frame_box_px=face.frame_box_px,
            )
            for face, crop, tone, segment, person in zip(
                prepared.faces, prepared.crops, prepared.skin_tones, prepared.segments, prepared.people, strict=True
            )
        )
        media.append(
            ScoredMedium(
                dataset=first.dataset,
                key=first.key,
                group=first.group,
                set=first.set,
                label=first.label,
                method=first.method,
                compression=first.compression,
                original=first.original,
                is_video=first.is_video,
                faces=faces,
                looks=prepared.looks,
            )
        )
        bar.update(len(faces))
    return media


def _face_result(face: ScoredFace, scale: Scale) -> FaceResult:
    return FaceResult(
        time_s=face.time_s,
        box_px=face.frame_box_px,
        landmarks_px=(),
        confidence=1.0,
        size_px=face.size_px,
        sharpness=face.sharpness,
        problem=None,
        fake_score=face.fake_score(scale),
        luma=face.luma,
    )
