"""
Robustness: scores of the same faces after common image degradations of increasing strength.

The changes work on the crop as it was cut, as in augmentation, before serving's own interpolation brings it to the
network's size. A face is scored even if the detector or the quality limits would reject it after such a change: the
curves show the network alone, on the same faces at every strength.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from shared.evidence import Evidence
from shared.manifests import Scale
from worker.model.checkpoint import Checkpoint
from worker.training.data.cache import CachedFace, CropCache
from worker.training.evaluation.verdicts import Verdicts
from worker.training.fakes.augmentation import crop_at_native_size, resize_to_network
from worker.training.fakes.pictures import Picture
from worker.training.fakes.transcoding import Transform, compose, make_h264, make_jpeg
from worker.training.scoring.metrics import bootstrap, confusion, roc_auc
from worker.training.scoring.scored_media import ScoredMedium, draw_media, score_crops, select_faces

FACES_PER_MEDIUM: Final = 2
ROUNDS: Final = 200
"""Rounds of the bootstrap at each point."""
MIN_SIDE_PX: Final = 16


@dataclass(frozen=True, slots=True)
class Disturbance:
    """One kind of change, from weak to strong."""

    name: str
    axis: str
    """Meaning of its strengths, for a plot."""
    strengths: tuple[float, ...]
    transform: Callable[[float], Transform]
    """Makes the change of a given strength."""


@dataclass(frozen=True, slots=True)
class RobustnessPoint:
    """Results of the checkpoint at one strength of one disturbance, by medium."""

    disturbance: str
    """``none`` for the untouched faces."""
    strength: float | None
    media: int
    roc_auc: float | None
    roc_auc_interval: tuple[float, float] | None
    mean_score_real: float | None
    mean_score_fake: float | None
    recall: float | None
    false_positive_rate: float | None


def make_shrink(share: float) -> Transform:
    """Return shrinking to *share* of each side, by averaging areas."""

    def transform(picture: Picture) -> Picture:
        height, width = (max(MIN_SIDE_PX, round(side * share)) for side in picture.shape[:2])
        return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), np.uint8)

    return transform


def make_blur(sigma_px: float) -> Transform:
    """Return Gaussian blur with *sigma_px* in pixels of the crop at its native size."""
    return lambda picture: np.asarray(cv2.GaussianBlur(picture, (0, 0), sigma_px), np.uint8)


DISTURBANCES: Final = (
    Disturbance("jpeg", "JPEG quality", (90, 75, 60, 45, 30, 20), lambda quality: make_jpeg(int(quality))),
    Disturbance("h264", "H.264 CRF", (18, 23, 28, 33, 38, 42), lambda crf: make_h264(int(crf))),
    Disturbance("scale", "share of each side", (0.75, 0.5, 0.35, 0.25), make_shrink),
    Disturbance("blur", "sigma in px", (0.5, 1.0, 1.5, 2.0, 3.0), make_blur),
    # As messengers and platforms do: shrunk and compressed at once, and compressed by one after the other.
    Disturbance(
        "half, h264",
        "H.264 CRF at half size",
        (23, 28, 33),
        lambda crf: compose([make_shrink(0.5), make_h264(int(crf))]),
    ),
    Disturbance(
        "h264, jpeg",
        "JPEG quality after CRF 28",
        (75, 60, 45),
        lambda quality: compose([make_h264(28), make_jpeg(int(quality))]),
    ),
)


def robustness_curves(
    checkpoint: Checkpoint,
    caches: Sequence[Path],
    media: Sequence[ScoredMedium],
    *,
    limit: int = 60,
    device: str | torch.device = "cpu",
    disturbances: Sequence[Disturbance] = DISTURBANCES,
) -> list[RobustnessPoint]:
    """
    Score a sample of faces again after every disturbance.

    Args:
        media: Scored media of *caches* to draw from.
        limit: Media of each data set and label, with ``FACES_PER_MEDIUM`` faces each.

    Returns:
        The untouched faces first, then disturbance by disturbance.
    """
    drawn = {(medium.dataset, medium.key): medium for medium in draw_media(media, limit)}
    transforms: list[tuple[str, float | None, Transform]] = [("none", None, lambda picture: picture)]
    transforms += [(kind.name, value, kind.transform(value)) for kind in disturbances for value in kind.strengths]
    labels, groups, rows, order = [], [], [], []
    for cache, faces in tqdm(_faces_of(caches, drawn, checkpoint), total=len(drawn), unit="medium", desc="robustness"):
        medium = drawn[faces[0].dataset, faces[0].key]
        order.append(medium)
        labels.append(int(medium.is_fake))
        groups.append(f"{medium.dataset}/{medium.group}")
        rows.append(_score_faces(checkpoint, cache, faces, [transform for _, _, transform in transforms], device))
    scores = np.array(rows, np.float64).reshape(len(rows), len(transforms))
    truth = np.array(labels, np.int64)
    calibration = checkpoint.manifest.calibration
    evidence = [_evidence(medium, calibration.scale) for medium in order]
    return [
        _measure_point(
            name,
            strength,
            truth,
            scores[:, column],
            groups,
            Verdicts.from_scores(calibration, scores[:, column], evidence),
        )
        for column, (name, strength, _) in enumerate(transforms)
    ]


def _evidence(medium: ScoredMedium, scale: Scale) -> Evidence:
    """Return the evidence behind the plain mean of the medium's drawn faces, of one person or several."""
    return replace(medium.evidence(scale), faces=min(len(medium.faces), FACES_PER_MEDIUM), people=1)


def _faces_of(
    caches: Sequence[Path], drawn: dict[tuple[str, str], ScoredMedium], checkpoint: Checkpoint
) -> "list[tuple[CropCache, list[CachedFace]]]":
    sets = {medium.set for medium in drawn.values()}
    return [
        (cache, faces)
        for cache in map(CropCache, caches)
        for faces in select_faces(cache, sets, checkpoint.manifest, FACES_PER_MEDIUM)
        if (faces[0].dataset, faces[0].key) in drawn
    ]


def _score_faces(
    checkpoint: Checkpoint,
    cache: CropCache,
    faces: Sequence[CachedFace],
    transforms: Sequence[Transform],
    device: str | torch.device,
) -> NDArray[np.float64]:
    """Return the mean probability over *faces* after each transform, (transforms,)."""
    preprocessing = checkpoint.manifest.preprocessing
    crops = []
    for face in faces:
        native = crop_at_native_size(cache.read_picture(face), face.box_px, preprocessing.crop_margin)
        crops += [resize_to_network(transform(native), preprocessing.crop_size_px) for transform in transforms]
    scale = checkpoint.manifest.calibration.scale
    scores = [scale.probability(float(logit)) for logit in score_crops(checkpoint.network, crops, device)]
    return np.asarray(np.array(scores, np.float64).reshape(len(faces), len(transforms)).mean(0), np.float64)


def _measure_point(
    name: str,
    strength: float | None,
    labels: NDArray[np.int64],
    scores: NDArray[np.float64],
    groups: Sequence[str],
    verdicts: Verdicts,
) -> RobustnessPoint:
    real, fake = scores[labels == 0], scores[labels == 1]
    called = confusion(labels, verdicts.fake)
    return RobustnessPoint(
        disturbance=name,
        strength=strength,
        media=len(scores),
        roc_auc=roc_auc(labels, scores),
        roc_auc_interval=bootstrap(roc_auc, labels, scores, groups, rounds=ROUNDS) if len(scores) else None,
        mean_score_real=float(real.mean()) if len(real) else None,
        mean_score_fake=float(fake.mean()) if len(fake) else None,
        recall=called["recall"],
        false_positive_rate=called["false_positive_rate"],
    )
