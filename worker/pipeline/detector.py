"""The loaded pipeline of one process: frames in, a segment's result out."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final, Self

import numpy as np
import torch
from numpy.typing import NDArray

from shared.errors import JobCancelledError, ModelError
from shared.manifests import Manifest
from worker.detection.faces import DetectedFace, crop_face, measure_quality, quality_problem
from worker.detection.mtcnn import MTCNN
from worker.detection.people import Sighting, group_into_people
from worker.media.frames import Frame
from worker.model.checkpoint import Checkpoint, load_checkpoint
from worker.pipeline.results import SCORE_DIGITS, FaceResult, SegmentResult
from worker.pipeline.scoring import score_segment

CHUNK_PIXELS: Final = 16 * 1920 * 1080
"""Frames that are looked at together hold about this many pixels, and one at least: it bounds memory."""
CHUNK_FRAMES: Final = 16
FACE_BATCH: Final = 32
MAX_FACES_PER_FRAME: Final = 64
"""The largest ones; a picture of a stadium must not take an hour."""


@dataclass(frozen=True, slots=True)
class _Found:
    """A face on its way to its score."""

    frame: Frame
    face: DetectedFace
    size_px: float
    sharpness: float
    problem: str | None
    crop: NDArray[np.uint8]


class Detector:
    """
    Detector and network of one checkpoint on one device.

    Args:
        checkpoint: With its network on *device* already.
    """

    def __init__(self, checkpoint: Checkpoint, device: str | torch.device) -> None:
        self.manifest: Manifest = checkpoint.manifest
        self.device = torch.device(device)
        self._network = checkpoint.network
        preprocessing = checkpoint.manifest.preprocessing
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
            ModelError: It cannot be loaded.
        """
        return cls(load_checkpoint(models_dir, name, device), device)

    def score_segment(self, frames: Iterable[Frame], should_stop: Callable[[], bool] = lambda: False) -> SegmentResult:
        """
        Score the sampled frames of one segment.

        Args:
            frames: In order; they are taken in chunks, so that a few are in memory at a time.
            should_stop: Asked between chunks.

        Raises:
            JobCancelledError: *should_stop* said so.
            ModelError: The network gave something that is not a number.
            DecodeError: From the frames.
        """
        found: list[FaceResult] = []
        sightings: list[Sighting] = []
        decoded = 0
        for chunk in _chunks(frames):
            if should_stop():
                raise JobCancelledError("the job was cancelled, or another worker has taken over")
            decoded += len(chunk)
            faces = self._find(chunk)
            scores = self.score_crops([face.crop for face in faces if face.problem is None])
            scored = iter(scores)
            for item in faces:
                score = next(scored) if item.problem is None else None
                found.append(_result(item, score))
                sightings.append(Sighting(item.frame.time_s, item.face.box_px, item.crop))
        return score_segment(found, group_into_people(sightings), decoded)

    @torch.inference_mode()
    def score_crops(self, crops: list[NDArray[np.uint8]]) -> list[float]:
        """
        Score face crops.

        Args:
            crops: (S, S, 3) uint8 RGB each, with S as the manifest says.

        Returns:
            Calibrated probabilities of being fake, in order.

        Raises:
            ModelError: One is not a number.
        """
        scores: list[float] = []
        for start in range(0, len(crops), FACE_BATCH):
            batch = torch.from_numpy(np.stack(crops[start : start + FACE_BATCH])).to(self.device)
            faces = batch.permute(0, 3, 1, 2).to(torch.float32) / 255.0
            logits = self._network(faces) / self.manifest.calibration.temperature
            probabilities = torch.sigmoid(logits.float())
            if not bool(torch.isfinite(probabilities).all()):
                raise ModelError("the network gave a score that is not a number")
            scores += [round(float(value), SCORE_DIGITS) for value in probabilities.cpu()]
        return scores

    def _find(self, chunk: list[Frame]) -> list[_Found]:
        preprocessing = self.manifest.preprocessing
        found = []
        for frame, faces in zip(chunk, self._mtcnn.detect([frame.pixels for frame in chunk]), strict=True):
            for face in faces[:MAX_FACES_PER_FRAME]:
                if face.confidence < preprocessing.min_confidence:
                    continue
                quality = measure_quality(frame.pixels, face)
                crop = crop_face(
                    frame.pixels,
                    face.box_px,
                    size_px=preprocessing.crop_size_px,
                    margin=preprocessing.crop_margin,
                )
                problem = quality_problem(quality, preprocessing)
                found.append(_Found(frame, face, quality.size_px, quality.sharpness, problem, crop))
        return found


def _chunks(frames: Iterable[Frame]) -> Iterator[list[Frame]]:
    iterator = iter(frames)
    for first in iterator:
        pixels = first.pixels.shape[0] * first.pixels.shape[1]
        count = min(CHUNK_FRAMES, max(1, CHUNK_PIXELS // pixels))
        yield [first, *islice(iterator, count - 1)]


def _result(item: _Found, score: float | None) -> FaceResult:
    return FaceResult(
        time_s=item.frame.time_s,
        box_px=item.face.box_px,
        landmarks_px=item.face.landmarks_px,
        confidence=item.face.confidence,
        size_px=item.size_px,
        sharpness=item.sharpness,
        problem=item.problem,
        fake_score=score,
    )
