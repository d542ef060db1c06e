"""The loaded pipeline of one process: frames in, a segment's result out."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
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
from worker.detection.people import Sighting, appearance, group_into_people, pack_look
from worker.detection.turning import TURNED, Poser, turn_back
from worker.inference import Engine, FromLastChannels, Outputs, best_engine
from worker.media.frames import Frame
from worker.model.checkpoint import Checkpoint, load_checkpoint, load_pinned
from worker.pipeline.results import FaceResult, SegmentResult
from worker.pipeline.scoring import score_segment
from worker.pipeline.stages import Stages

CHUNK_PIXELS: Final = 2 * 1920 * 1080
"""Frames that are looked at together hold about this many pixels, and one at least: it bounds memory."""
CHUNK_FRAMES: Final = 8
"""Fewer than a segment has, so that later ones are decoded meanwhile."""
FACE_BATCH: Final = 32
SAME_SCORE: Final = 5e-4
"""How far a lower precision may move the score of a made picture: those of real faces move ten times as far."""
EXAMPLES: Final = 16
MAX_FACES_PER_FRAME: Final = 64
"""The largest ones; a picture of a stadium must not take an hour."""


@dataclass(frozen=True, slots=True)
class _Found:
    """A face on its way to its score."""

    time_s: float
    face: DetectedFace
    turned_deg: int
    quality: FaceQuality
    problem: str | None
    scale: tuple[float, float]
    """Of the frame."""
    appearance: NDArray[np.float32]


class Detector:
    """
    Detector and network of one checkpoint on one device.

    Args:
        checkpoint: With its network on *device* already.
    """

    def __init__(self, checkpoint: Checkpoint, device: str | torch.device) -> None:
        self.manifest: Manifest = checkpoint.manifest
        self.device = torch.device(device)
        preprocessing = checkpoint.manifest.preprocessing
        self._network: Engine = best_engine(
            FromLastChannels(checkpoint.network, span=255.0),
            _examples(preprocessing.crop_size_px),
            self.device,
            self._is_alike,
        )
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
        return cls._prepare(load_checkpoint(models_dir, name, device), device)

    @classmethod
    def load_pinned(cls, models_dir: Path, manifest: Manifest, device: str) -> Self:
        """
        Load the checkpoint that a job has pinned onto *device*; see ``worker.model.checkpoint.load_pinned``.

        Raises:
            ModelError: It cannot be loaded.
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
    ) -> SegmentResult:
        """
        Score the sampled frames of one segment.

        Args:
            frames: In order; they are taken in chunks, so that a few are in memory at a time.
            should_stop: Asked between chunks.
            stages: Told of ``decode``, ``detect`` and ``classify``.

        Raises:
            JobCancelledError: *should_stop* said so.
            ModelError: The network gave something that is not a number.
            DecodeError: From the frames.
        """
        found: list[_Found] = []
        scores: list[float] = []
        decoded = 0
        waiting: list[NDArray[np.uint8]] = []
        stages = stages or Stages()
        poser = Poser(self._mtcnn, self.manifest.preprocessing.min_confidence)
        for chunk in stages.waiting("decode", chunks(frames)):
            if should_stop():
                raise JobCancelledError("the job was cancelled, or another worker has taken over")
            decoded += len(chunk)
            with stages.measure("detect"):
                faces, crops = self._find(chunk, poser)
            found += faces
            waiting += crops
            whole = len(waiting) - len(waiting) % FACE_BATCH
            with stages.measure("classify"):
                scores += self.score_crops(waiting[:whole])
            del waiting[:whole]
        with stages.measure("classify"):
            scores += self.score_crops(waiting)
        scored = iter(scores)
        results = [_result(item, next(scored) if item.problem is None else None) for item in found]
        people = group_into_people([Sighting(item.time_s, item.face.box_px, item.appearance) for item in found])
        looks = [pack_look(look) for look in people.looks]
        return score_segment(results, people.numbers, decoded, self._network.description, looks)

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
            (logits,) = self._network.run(np.stack(crops[start : start + FACE_BATCH]))
            probabilities = self._probabilities(logits)
            if not np.isfinite(probabilities).all():
                raise ModelError("the network gave a score that is not a number")
            scores += [round(float(value), SCORE_DIGITS) for value in probabilities]
        return scores

    def _probabilities(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(self.manifest.calibration.scale.probabilities(logits, np.tanh), np.float32)

    def _is_alike(self, quick: Outputs, exact: Outputs) -> bool:
        scores, wanted = self._probabilities(quick[0]), self._probabilities(exact[0])
        return bool(np.abs(scores - wanted).max() <= SAME_SCORE)

    def _find(self, chunk: list[Frame], poser: Poser) -> tuple[list[_Found], list[NDArray[np.uint8]]]:
        """The faces of some frames, and the crops of those that can be scored."""
        preprocessing = self.manifest.preprocessing
        posed = poser.pose([frame.pixels for frame in chunk])
        found, crops = [], []
        for frame, one in zip(chunk, posed, strict=True):
            height, width = frame.pixels.shape[:2]
            for face, doubt in one.stands[:MAX_FACES_PER_FRAME]:
                quality = measure_quality(one.picture, face)
                crop = crop_face(
                    one.picture, face.box_px, size_px=preprocessing.crop_size_px, margin=preprocessing.crop_margin
                )
                problem = quality_problem(quality.size_px, quality.sharpness, preprocessing)
                # A face that alone tells how its frame stands is not held against that.
                if problem is None and one.has_upright and doubt >= TURNED:
                    problem = "face_turned"
                displayed = turn_back(face, one.quarters, width, height)
                look, turned_deg = appearance(crop), 90 * one.quarters
                found.append(_Found(frame.time_s, displayed, turned_deg, quality, problem, frame.scale, look))
                if problem is None:
                    crops.append(crop)
        return found, crops


def chunks(frames: Iterable[Frame]) -> Iterator[list[Frame]]:
    """The *frames*, as many at a time as are looked at together: all of one size."""
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


def _result(item: _Found, score: float | None) -> FaceResult:
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


def _examples(side_px: int) -> NDArray[np.uint8]:
    """
    (EXAMPLES, S, S, 3) pictures on which a lower precision is judged.

    Noise from none to strong over soft shapes: residuals, which are differences of large numbers, are the first to
    suffer, and most where there is little noise.
    """
    rng = np.random.default_rng(0)
    rough = rng.integers(40, 216, (EXAMPLES, 5, 5, 3), np.uint8)
    soft = [cv2.resize(picture, (side_px, side_px), interpolation=cv2.INTER_CUBIC) for picture in rough]
    noise = rng.normal(size=(EXAMPLES, side_px, side_px, 1)) * np.linspace(0.0, 8.0, EXAMPLES)[:, None, None, None]
    return np.clip(np.rint(np.stack(soft) + noise), 0, 255).astype(np.uint8)
