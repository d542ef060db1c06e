"""
Evaluation: what a checkpoint is worth on a data set, as figures with confidence intervals.

One medium, an image or a video, is one vote, scored as the service scores a job; beside it stand the same measures
by frame. What has no usable face is counted and listed, never scored. All of it follows from the checkpoint, the
data and the options, and goes into one JSON object, from which the report is drawn.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from sklearn import metrics as curves

from shared.manifests import Manifest
from worker.model.checkpoint import Checkpoint
from worker.training.data.cache import CacheSettings, CropCache
from worker.training.data.datasets import guess_kind
from worker.training.data.media import Medium
from worker.training.data.sources import Source, build_source_cache, media_of
from worker.training.data.splits import SPLIT_FILE, split_digest
from worker.training.errors import DataError
from worker.training.fitting.inputs import build_caches
from worker.training.fitting.recipes import Recipe
from worker.training.judging.robustness import robustness_curves
from worker.training.judging.slices import slice_media
from worker.training.judging.verdicts import Calls, Verdicts
from worker.training.measuring.metrics import (
    Labels,
    Scores,
    best_f1,
    best_f1_threshold,
    bootstrap,
    clipped_log_loss,
    confusion,
    equal_error_rate,
    expected_calibration_error,
    f1_at,
    largest_rate,
    log_loss,
    pr_auc,
    precision_at,
    reliability,
    roc_auc,
    summary,
)
from worker.training.measuring.scored import ScoredFace, ScoredMedium, above_originals, score_caches

ROUNDS: Final = 1000
"""Of the bootstrap over all media; slices and frames are drawn ``SLICE_ROUNDS`` times at most."""
SLICE_ROUNDS: Final = 200
SLICE_MEASURES: Final = ("roc_auc", "f1", "recall", "false_positive_rate")
WORST: Final = 12
"""Mistakes of each kind that are shown."""
CURVE_POINTS: Final = 200
HISTOGRAM_BINS: Final = 20
FAKE_SHARES: Final = (0.01, 0.1, 0.5)
"""Of all media, at which precision and F1 are told."""
FEW: Final = 20
"""Media of a class, below which a slice's rates are called too few to compare."""
SETS: Final = ("train", "validation", "test")

Measure = Callable[[Labels, Scores], float | None]
_AT: Final[Mapping[str, Callable[[float, float, float], float | None]]] = {"precision": precision_at, "f1": f1_at}


@dataclass(frozen=True, slots=True)
class EvaluationSource:
    """A data set and the cache of its crops."""

    cache: Path
    source: Source
    data: Path
    """Folder that the source's path is below."""

    def media(self) -> Iterator[Medium]:
        """Every medium, scored or not, with its set."""
        return media_of(self.source, self.data)

    @property
    def split(self) -> dict[str, Any]:
        """The hash of its division into sets, and how many media there are in each."""
        split: dict[str, Any] = json.loads((self.cache / SPLIT_FILE).read_bytes())
        return split


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What was found."""

    report: dict[str, Any]
    """Plain values, for JSON."""
    pictures: list[bytes]
    """JPEG of the face in question for each of ``report["worst"]``."""


def recipe_sources(recipe: Recipe, data: Path, caches: Path, *, processes: int = 1) -> list[EvaluationSource]:
    """
    The sources of *recipe* below the folder *data*, with their crops cut.

    Raises:
        DataError: As ``build_caches`` raises it.
    """
    folders = build_caches(recipe, data, caches, processes=processes)
    return [EvaluationSource(folder, source, data) for folder, source in zip(folders, recipe.sources, strict=True)]


def folder_source(
    root: Path, manifest: Manifest, caches: Path, *, kind: str | None = None, processes: int = 1
) -> EvaluationSource:
    """
    One data set at *root*, with its crops cut at *manifest*'s sampling and limits.

    Media without an official set count as ``train``. The cache's name tells folder, kind and settings apart.

    Raises:
        DataError: The folder is in no known layout, or cannot be read.
    """
    root = root.resolve()
    if not root.is_dir():
        raise DataError(f"there is no folder {root}")
    source = Source(kind=kind or guess_kind(root), path=Path(root.name))
    limits = manifest.preprocessing
    settings = CacheSettings(
        sample_fps=manifest.sampling.sample_fps,
        min_face_px=limits.min_face_px,
        min_sharpness=limits.min_sharpness,
        min_confidence=limits.min_confidence,
        detector_thresholds=limits.detector_thresholds,
    )
    identity = json.dumps([str(root), source.kind, settings.model_dump(mode="json")], sort_keys=True)
    folder = caches / f"{root.name}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
    build_source_cache(source, root.parent, folder, settings, processes=processes)
    return EvaluationSource(folder, source, root.parent)


def evaluate(
    checkpoint: Checkpoint,
    sources: Sequence[EvaluationSource],
    *,
    sets: Collection[str] = SETS,
    device: str | torch.device = "cpu",
    robustness: bool = True,
    limit: int = 60,
    rounds: int = ROUNDS,
    options: Mapping[str, Any] | None = None,
    media: Sequence[ScoredMedium] | None = None,
) -> Evaluation:
    """
    Evaluate *checkpoint*.

    Args:
        checkpoint: With its network on *device* already.
        sets: Of which media are scored.
        robustness: Whether to score disturbed faces, too.
        limit: Media of each data set and label for that.
        rounds: Of the bootstrap over all media.
        options: What else the report should say of how it was made.
        media: Of these sets, where the checkpoint has scored them already.

    Raises:
        DataError: No medium of these sets has a usable face.
    """
    caches = [source.cache for source in sources]
    if media is None:
        media = score_caches(checkpoint, caches, sets=sets, device=device)
    if not media:
        raise DataError(f"no medium of {', '.join(sorted(sets))} has a usable face")
    report = {
        "checkpoint": _about(checkpoint.manifest),
        "split": _split(sources),
        "options": {"sets": sorted(sets), "robustness": robustness, "limit": limit, **(options or {})},
        **figures(media, checkpoint.manifest, rounds=rounds),
    }
    unscored, report["by_source"] = _unscored(sources, media, sets)
    report["counts"]["unscored"] = len(unscored)
    report["unscored"] = unscored
    points = robustness_curves(checkpoint, caches, media, limit=limit, device=device) if robustness else []
    report["robustness"] = [asdict(point) for point in points]
    worst = worst_mistakes(media, checkpoint.manifest)
    report["worst"] = [_mistake(medium, face, checkpoint.manifest) for medium, face in worst]
    return Evaluation(report, _pictures(caches, worst))


def figures(media: Sequence[ScoredMedium], manifest: Manifest, *, rounds: int = ROUNDS) -> dict[str, Any]:
    """Every figure that follows from the scores alone, as plain values."""
    calibration = manifest.calibration
    few = min(rounds, SLICE_ROUNDS)
    labels = _labels(media)
    groups = [f"{medium.dataset}/{medium.group}" for medium in media]
    scores, verdicts = _judged(media, manifest)
    row_of = {id(medium): row for row, medium in enumerate(media)}
    by_frame = [medium.frame_scores(calibration.scale) for medium in media]
    frame_scores = np.concatenate(by_frame)
    frame_evidence = [evidence for medium in media for evidence in medium.frame_evidence()]
    frame_calls = Verdicts.of(calibration, frame_scores, frame_evidence).fake
    repeats = [len(frames) for frames in by_frame]
    frame_groups = [group for group, count in zip(groups, repeats, strict=True) for _ in range(count)]
    counts = {
        "media": len(media),
        "real": int((labels == 0).sum()),
        "fake": int((labels == 1).sum()),
        "groups": len(set(groups)),
        "frames": sum(repeats),
        "faces": sum(len(medium.faces) for medium in media),
    }
    slices = [
        {"by": way, "name": name, **_measured_slice(members, *_rows(members, row_of, scores, verdicts.fake), few)}
        for way, parts in slice_media(media).items()
        for name, members in parts.items()
    ]
    return {
        "counts": counts,
        "by_video": _measured(labels, scores, verdicts.fake, groups, rounds),
        "by_frame": _measured(np.repeat(labels, repeats), frame_scores, frame_calls, frame_groups, few),
        "verdicts": _verdicts(labels, verdicts),
        "pairs_above": _pairs_above(media, scores, rounds),
        "slices": slices,
    }


def worst_mistakes(media: Sequence[ScoredMedium], manifest: Manifest) -> list[tuple[ScoredMedium, ScoredFace]]:
    """
    The media on the wrong side of the threshold, the worst first, real ones before fakes; ``WORST`` of each at most.

    Returns:
        Each with its face that is furthest on the wrong side.
    """
    scores, verdicts = _judged(media, manifest)
    called = verdicts.fake
    order = np.argsort(scores, kind="stable").tolist()
    alarms = [media[row] for row in reversed(order) if called[row] and not media[row].is_fake][:WORST]
    misses = [media[row] for row in order if not called[row] and media[row].is_fake][:WORST]
    return [
        *((medium, max(medium.faces, key=lambda face: face.logit)) for medium in alarms),
        *((medium, min(medium.faces, key=lambda face: face.logit)) for medium in misses),
    ]


def _judged(media: Sequence[ScoredMedium], manifest: Manifest) -> tuple[Scores, Verdicts]:
    """The score of each medium, and what the service calls it."""
    scores = np.array([medium.fake_score(manifest.calibration.scale) for medium in media])
    called = np.array([medium.verdict(manifest) for medium in media])
    return scores, Verdicts(called == "fake", called == "inconclusive")


SCORED: Final[Mapping[str, Measure]] = {
    "roc_auc": roc_auc,
    "pr_auc": pr_auc,
    "log_loss": log_loss,
    "clipped_log_loss": clipped_log_loss,
    "equal_error_rate": equal_error_rate,
    "expected_calibration_error": expected_calibration_error,
    "best_f1": best_f1,
    "best_f1_threshold": best_f1_threshold,
}
"""Measures of scores."""
CALLED: Final = ("f1", "precision", "recall", "false_positive_rate", "balanced_accuracy")
"""Measures of what is called fake; see ``metrics.confusion``."""


def _of_calls(name: str) -> Measure:
    """The measure *name* of ``confusion``, in the form that ``bootstrap`` takes: calls stand as 0 and 1."""
    return lambda labels, calls: confusion(labels, calls > 0.5)[name]


def _intervals(
    names: Collection[str], labels: Labels, scores: Scores, called: Calls, groups: Sequence[str], rounds: int
) -> dict[str, tuple[float, float] | None]:
    calls = called.astype(np.float64)
    return {
        name: bootstrap(SCORED[name], labels, scores, groups, rounds=rounds)
        if name in SCORED
        else bootstrap(_of_calls(name), labels, calls, groups, rounds=rounds)
        for name in names
    }


def _measured(labels: Labels, scores: Scores, called: Calls, groups: Sequence[str], rounds: int) -> dict[str, Any]:
    return {
        **summary(labels, scores, called),
        "intervals": _intervals((*SCORED, *CALLED), labels, scores, called, groups, rounds),
        "by_fake_share": [_at_share(share, labels, called, groups, rounds) for share in FAKE_SHARES],
        "reliability": [asdict(part) for part in reliability(labels, scores)],
        "roc": _roc(labels, scores),
        "precision_recall": _precision_recall(labels, scores),
        "histogram": {
            name: np.histogram(scores[labels == label], HISTOGRAM_BINS, (0.0, 1.0))[0].tolist()
            for label, name in enumerate(("real", "fake"))
        },
    }


def _rows(
    members: Sequence[ScoredMedium], row_of: Mapping[int, int], scores: Scores, called: Calls
) -> tuple[Scores, Calls]:
    """Scores and calls of *members* alone."""
    rows = [row_of[id(medium)] for medium in members]
    return scores[rows], called[rows]


def _measured_slice(members: Sequence[ScoredMedium], scores: Scores, called: Calls, rounds: int) -> dict[str, Any]:
    labels = _labels(members)
    groups = [f"{medium.dataset}/{medium.group}" for medium in members]
    few = [name for label, name in enumerate(("real", "fake")) if 0 < (labels == label).sum() < FEW]
    return {
        **summary(labels, scores, called),
        "groups": len(set(groups)),
        "too_few": few,
        "intervals": _intervals(SLICE_MEASURES, labels, scores, called, groups, rounds),
    }


def _at_share(share: float, labels: Labels, called: Calls, groups: Sequence[str], rounds: int) -> dict[str, Any]:
    """
    Precision and F1, had *share* of the media been fake: from the recall and the false-positive rate, with intervals.

    Where no real medium was called fake, a bootstrap knows of no false positives. The lower ends then are those of the
    largest rate at which as many groups as there are with real media would show none.
    """

    def at(rates: Callable[[float], float], name: str) -> Measure:
        def measure(labels: Labels, calls: Scores) -> float | None:
            found = confusion(labels, calls > 0.5)
            recall, rate = found["recall"], found["false_positive_rate"]
            if recall is None or rate is None:
                return None
            return _AT[name](share, recall, rates(rate))

        return measure

    calls = called.astype(np.float64)
    real = {group for group, label in zip(groups, labels, strict=True) if label == 0}
    no_alarm = confusion(labels, called)["false_positive_rate"] == 0.0
    weakest: Callable[[float], float] = (lambda _: largest_rate(len(real))) if no_alarm else float
    found: dict[str, Any] = {"fake_share": share, "intervals": {}}
    for name in _AT:
        found[name] = at(float, name)(labels, calls)
        lows, highs = (bootstrap(at(rates, name), labels, calls, groups, rounds=rounds) for rates in (weakest, float))
        found["intervals"][name] = (lows[0], highs[1]) if lows is not None and highs is not None else None
    return found


def _labels(media: Sequence[ScoredMedium]) -> Labels:
    return np.array([int(medium.is_fake) for medium in media], np.int64)


def _roc(labels: Labels, scores: Scores) -> list[list[float]]:
    """Points of false-positive against true-positive rate; empty unless both classes are there."""
    if len(set(labels.tolist())) != 2:
        return []
    false_positives, true_positives, _ = curves.roc_curve(labels, scores)
    return _thinned(false_positives, true_positives)


def _precision_recall(labels: Labels, scores: Scores) -> list[list[float]]:
    """Points of recall against precision; empty unless both classes are there."""
    if len(set(labels.tolist())) != 2:
        return []
    precision, recall, _ = curves.precision_recall_curve(labels, scores)
    return _thinned(recall, precision)


def _thinned(x: NDArray[np.float64], y: NDArray[np.float64]) -> list[list[float]]:
    rows = np.unique(np.linspace(0, len(x) - 1, min(len(x), CURVE_POINTS)).round().astype(int))
    return [[round(float(x[row]), 5), round(float(y[row]), 5)] for row in rows]


def _verdicts(labels: Labels, verdicts: Verdicts) -> dict[str, dict[str, int]]:
    """How many media of each label the service would call what, if it calls the checkpoint trained."""
    return {
        name: {
            verdict: int((getattr(verdicts, verdict) & (labels == label)).sum())
            for verdict in ("real", "inconclusive", "fake")
        }
        for label, name in enumerate(("real", "fake"))
    }


def _pairs_above(media: Sequence[ScoredMedium], scores: Scores, rounds: int) -> dict[str, Any]:
    """Share of the fakes that score above the very medium they were made from, where both were scored."""
    rows = above_originals(media, scores.tolist())
    if not rows:
        return {"count": 0, "share": None, "interval": None}
    above = np.array([float(is_above) for _, is_above in rows])
    groups = [f"{medium.dataset}/{medium.group}" for medium, _ in rows]
    ones = np.ones(len(rows), np.int64)
    interval = bootstrap(lambda _, values: float(values.mean()), ones, above, groups, rounds=rounds)
    return {"count": len(rows), "share": float(above.mean()), "interval": interval}


def _about(manifest: Manifest) -> dict[str, Any]:
    return {
        "name": manifest.name,
        "version": manifest.version,
        "trained": manifest.trained,
        "weights_sha256": manifest.weights.sha256,
        **{
            part: getattr(manifest, part).model_dump(mode="json")
            for part in ("calibration", "architecture", "preprocessing", "sampling")
        },
        "training_data": manifest.training_data,
    }


def _split(sources: Sequence[EvaluationSource]) -> dict[str, Any]:
    parts = {source.source.path.as_posix(): source.split for source in sources}
    return {"digest": split_digest([source.cache for source in sources]), "sources": parts}


def _unscored(
    sources: Sequence[EvaluationSource], media: Sequence[ScoredMedium], sets: Collection[str]
) -> tuple[list[dict[str, str]], dict[str, dict[str, int]]]:
    """
    Media of *sets* without a score, and why: the code of an error, or that no face could be used.

    Returns:
        Those media, and for the path of each source how many of its media were judged and how many have no score.
    """
    scored = {(medium.dataset, medium.key) for medium in media}
    rows, counts = [], {}
    for source in sources:
        problems = {problem["key"]: problem["problem"] for problem in CropCache(source.cache).problems()}
        found = counts[source.source.path.as_posix()] = {"judged": 0, "unscored": 0}
        for medium in source.media():
            chosen = medium.set or "train"
            if chosen not in sets:
                continue
            if (medium.dataset, medium.key) in scored:
                found["judged"] += 1
                continue
            found["unscored"] += 1
            reason = problems.get(medium.key, "no_usable_face")
            row = {"dataset": medium.dataset, "key": medium.key, "set": chosen, "label": medium.label}
            rows.append({**row, "reason": reason})
    return rows, counts


def _mistake(medium: ScoredMedium, face: ScoredFace, manifest: Manifest) -> dict[str, Any]:
    scale = manifest.calibration.scale
    return {
        "dataset": medium.dataset,
        "key": medium.key,
        "set": medium.set,
        "label": medium.label,
        "method": medium.method,
        "fake_score": medium.fake_score(scale),
        "faces": len(medium.faces),
        "shown": {
            "time_s": face.time_s,
            "fake_score": round(face.fake_score(scale), 6),
            "size_px": face.size_px,
            "sharpness": face.sharpness,
        },
    }


def _pictures(caches: Sequence[Path], worst: Sequence[tuple[ScoredMedium, ScoredFace]]) -> list[bytes]:
    """The cached picture of each face, as JPEG; one more walk over the indices keeps everybody's rows small."""
    wanted = {
        (medium.dataset, medium.key, face.time_s, face.frame_box_px): row for row, (medium, face) in enumerate(worst)
    }
    pictures = [b""] * len(worst)
    for cache in map(CropCache, caches) if worst else ():
        for face in cache.faces():
            row = wanted.get((face.dataset, face.key, face.time_s, face.frame_box_px))
            if row is not None:
                picture = cv2.cvtColor(cache.picture(face), cv2.COLOR_RGB2BGR)
                side = min(240, picture.shape[0])
                small = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
                pictures[row] = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()
    return pictures
