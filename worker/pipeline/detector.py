"""The loaded pipeline of one process: it takes the frames of a segment and returns the segment's result."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from shared.errors import JobCancelledError, ModelError
from shared.manifests import SCORE_DIGITS, Manifest
from worker.detection.faces import DetectedFace, FaceQuality, crop_face, measure_quality, quality_problem
from worker.detection.mtcnn import MTCNN
from worker.detection.orientation import MIN_TURNED_GAIN, OrientationTracker, turn_back
from worker.detection.people import Sighting, compute_appearance, group_into_people, pack_look
from worker.inference import ChannelsLastInput, Engine, Outputs, best_engine
from worker.media.frames import Frame
from worker.model.checkpoint import Checkpoint, load_checkpoint, load_pinned
from worker.pipeline.newest import NewestFaces
from worker.pipeline.results import FaceResult, SegmentResult
from worker.pipeline.scoring import score_segment
from worker.pipeline.stages import Stages

CHUNK_PIXELS: Final = 2 * 1920 * 1080
"""Limit on the pixels of the frames processed together (a chunk), to bound memory; a chunk has at least one frame."""
CHUNK_FRAMES: Final = 8
"""Most frames in a chunk: fewer than a segment has, so that later frames are decoded while a chunk is processed."""
FACE_BATCH: Final = 32
MAX_SCORE_CHANGE: Final = 5e-4
"""How far a lower precision may change the scores of synthetic examples; real faces' scores change ten times as far."""
EXAMPLE_COUNT: Final = 16
MAX_FACES_PER_FRAME: Final = 64
"""Only the largest faces of a frame are scored, so that a picture of a crowd does not take an hour."""


@dataclass(frozen=True, slots=True)
class _FoundFace:
    """A detected face that is not scored yet."""

    time_s: float
    face: DetectedFace
    turned_deg: int
    quality: FaceQuality
    problem: str | None
    scale: tuple[float, float]
    """The frame's ``scale``."""
    appearance: NDArray[np.float32]


class Detector:
    """
    Face detector and forgery network of one checkpoint on one device.

    Args:
        checkpoint: Its network must be on *device*.
    """

    def __init__(self, checkpoint: Checkpoint, device: str | torch.device) -> None:
        self.manifest: Manifest = checkpoint.manifest
        self.device = torch.device(device)
        preprocessing = checkpoint.manifest.preprocessing
        self.engine: Engine = best_engine(
            ChannelsLastInput(checkpoint.network, divisor=255.0),
            _make_examples(preprocessing.crop_size_px),
            self.device,
            self.is_close,
        )
        """The network, prepared for the device."""
        self._mtcnn = MTCNN(
            min_face_px=preprocessing.min_face_px,
            thresholds=preprocessing.detector_thresholds,
            device=device,
        )

    @classmethod
    def load(cls, models_dir: Path, name: str, device: str) -> Self:
        """
        Load the checkpoint *name* onto *device*.

        Raises:
            ModelError: The checkpoint cannot be loaded.
        """
        return cls._prepare(load_checkpoint(models_dir, name, device), device)

    @classmethod
    def load_pinned(cls, models_dir: Path, manifest: Manifest, device: str) -> Self:
        """
        Load the checkpoint that a job has pinned onto *device*; see ``worker.model.checkpoint.load_pinned``.

        Raises:
            ModelError: The checkpoint cannot be loaded.
        """
        return cls._prepare(load_pinned(models_dir, manifest, device), device)

    @classmethod
    def _prepare(cls, checkpoint: Checkpoint, device: str) -> Self:
        try:
            return cls(checkpoint, device)
        except RuntimeError as error:
            name = checkpoint.manifest.name
            raise ModelError(f"the network of checkpoint {name!r} cannot be prepared for {device}") from error

    def score_segment(
        self,
        frames: Iterable[Frame],
        should_stop: Callable[[], bool] = lambda: False,
        stages: Stages | None = None,
        *,
        keeps_faces: bool = False,
    ) -> SegmentResult:
        """
        Score the sampled frames of one segment.

        Args:
            frames: In order; they are consumed in chunks, so that only a few are in memory at a time.
            should_stop: Called between chunks.
            stages: Collects the times of ``decode``, ``detect`` and ``classify``.
            keeps_faces: Whether the result has a picture of the newest face of each person.

        Raises:
            JobCancelledError: *should_stop* returned True.
            ModelError: A score is not finite.
            DecodeError: Reading *frames* failed.
        """
        found: list[_FoundFace] = []
        scores: list[float] = []
        decoded = 0
        pending_crops: list[NDArray[np.uint8]] = []
        newest = NewestFaces() if keeps_faces else None
        stages = stages or Stages()
        tracker = OrientationTracker(self._mtcnn, self.manifest.preprocessing.min_confidence)
        for chunk in stages.measure_iteration("decode", split_into_chunks(frames)):
            if should_stop():
                raise JobCancelledError("the job was cancelled, or another worker has taken over")
            decoded += len(chunk)
            with stages.measure("detect"):
                faces, crops = self._detect_faces(chunk, tracker, newest)
            found += faces
            pending_crops += crops
            whole = len(pending_crops) - len(pending_crops) % FACE_BATCH
            with stages.measure("classify"):
                scores += self.score_crops(pending_crops[:whole])
            del pending_crops[:whole]
        with stages.measure("classify"):
            scores += self.score_crops(pending_crops)
        scored = iter(scores)
        results = [_make_face_result(item, next(scored) if item.problem is None else None) for item in found]
        people = group_into_people([Sighting(item.time_s, item.face.box_px, item.appearance) for item in found])
        looks = [pack_look(look) for look in people.looks]
        result = score_segment(results, people.numbers, decoded, self.engine.description, looks)
        return result if newest is None else replace(result, newest_faces=newest.choose(people.numbers))

    def score_crops(self, crops: list[NDArray[np.uint8]]) -> list[float]:
        """
        Score face crops.

        Args:
            crops: (S, S, 3) uint8 RGB each; S is the manifest's ``crop_size_px``.

        Returns:
            Calibrated probabilities that each face is fake, in order.

        Raises:
            ModelError: A score is not finite.
        """
        scores: list[float] = []
        for start in range(0, len(crops), FACE_BATCH):
            (logits,) = self.engine.run(np.stack(crops[start : start + FACE_BATCH]))
            probabilities = self._probabilities(logits)
            if not np.isfinite(probabilities).all():
                raise ModelError("the network gave a score that is not a number")
            scores += [round(float(value), SCORE_DIGITS) for value in probabilities]
        return scores

    def _probabilities(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(self.manifest.calibration.scale.probabilities(logits, np.tanh), np.float32)

    def is_close(self, quick: Outputs, exact: Outputs) -> bool:
        """Return whether no probability of *quick* differs from that of *exact* by more than ``MAX_SCORE_CHANGE``."""
        scores, wanted = self._probabilities(quick[0]), self._probabilities(exact[0])
        return bool(np.abs(scores - wanted).max() <= MAX_SCORE_CHANGE)

    def _detect_faces(
        self, chunk: list[Frame], tracker: OrientationTracker, newest: NewestFaces | None
    ) -> tuple[list[_FoundFace], list[NDArray[np.uint8]]]:
        """Find the faces of *chunk*, and cut the crops of those that can be scored."""
        preprocessing = self.manifest.preprocessing
        oriented = tracker.detect([frame.pixels for frame in chunk])
        found, crops = [], []
        for frame, turned in zip(chunk, oriented, strict=True):
            height, width = frame.pixels.shape[:2]
            for face, turned_gain in turned.faces[:MAX_FACES_PER_FRAME]:
                quality = measure_quality(turned.picture, face)
                crop = crop_face(
                    turned.picture, face.box_px, size_px=preprocessing.crop_size_px, margin=preprocessing.crop_margin
                )
                problem = quality_problem(quality.size_px, quality.sharpness, preprocessing)
                # A turned face is only a problem beside upright ones; alone, it may show how the frame is turned.
                if problem is None and turned.has_upright and turned_gain >= MIN_TURNED_GAIN:
                    problem = "face_turned"
                displayed = turn_back(face, turned.quarter_turns, width, height)
                look, turned_deg = compute_appearance(crop), 90 * turned.quarter_turns
                found.append(_FoundFace(frame.time_s, displayed, turned_deg, quality, problem, frame.scale, look))
                if problem is None:
                    crops.append(crop)
                if newest is not None:
                    newest.add(frame.time_s, crop)
        return found, crops


def split_into_chunks(frames: Iterable[Frame]) -> Iterator[list[Frame]]:
    """Split *frames* into chunks of frames of one size, limited by ``CHUNK_FRAMES`` and ``CHUNK_PIXELS``."""
    chunk: list[Frame] = []
    count = 0
    for frame in frames:
        if chunk and frame.pixels.shape != chunk[0].pixels.shape:
            yield chunk
            chunk = []
        if not chunk:
            count = min(CHUNK_FRAMES, max(1, CHUNK_PIXELS // (frame.pixels.shape[0] * frame.pixels.shape[1])))
        chunk.append(frame)
        if len(chunk) == count:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _make_face_result(item: _FoundFace, score: float | None) -> FaceResult:
    across, down = item.scale
    left, top, right, bottom = item.face.box_px
    return FaceResult(
        time_s=item.time_s,
        box_px=(left * across, top * down, right * across, bottom * down),
        landmarks_px=tuple((x * across, y * down) for x, y in item.face.landmarks_px),
        confidence=item.face.confidence,
        size_px=item.quality.size_px * min(item.scale),
        sharpness=item.quality.sharpness,
        luma=item.quality.luma,
        problem=item.problem,
        fake_score=score,
        turned_deg=item.turned_deg,
    )


def _make_examples(side_px: int) -> NDArray[np.uint8]:
    """
    Make pictures on which a lower precision is compared with float32: (EXAMPLE_COUNT, S, S, 3) uint8.

    They are smooth shapes with noise from none to strong. Residuals, which are differences of large numbers, lose
    precision first, and most where there is little noise.
    """
    rng = np.random.default_rng(0)
    rough = rng.integers(40, 216, (EXAMPLE_COUNT, 5, 5, 3), np.uint8)
    soft = [cv2.resize(picture, (side_px, side_px), interpolation=cv2.INTER_CUBIC) for picture in rough]
    noise = (
        rng.normal(size=(EXAMPLE_COUNT, side_px, side_px, 1))
        * np.linspace(0.0, 8.0, EXAMPLE_COUNT)[:, None, None, None]
    )
    return np.clip(np.rint(np.stack(soft) + noise), 0, 255).astype(np.uint8)
