"""The figures of an evaluation that follow from scores alone, with bootstrap confidence intervals."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics as curves

from shared.manifests import Manifest
from worker.training.evaluation.slices import slice_media
from worker.training.evaluation.verdicts import Decisions, Verdicts
from worker.training.scoring.metrics import (
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
    log_loss,
    pr_auc,
    precision_at,
    reliability,
    roc_auc,
    summary,
    upper_rate_limit,
)
from worker.training.scoring.scored_media import ScoredMedium, compare_with_originals

ROUNDS: Final = 1000
"""Rounds of the bootstrap over all media; slices and frames have at most ``SLICE_ROUNDS``."""
SLICE_ROUNDS: Final = 200
SLICE_MEASURES: Final = ("roc_auc", "f1", "recall", "false_positive_rate")
CURVE_POINTS: Final = 200
HISTOGRAM_BINS: Final = 20
FAKE_SHARES: Final = (0.01, 0.1, 0.5)
"""Shares of fakes among all media for which precision and F1 are reported."""
MIN_COMPARABLE_MEDIA: Final = 20
"""Number of media of a class below which a slice is marked as too small to compare."""
Measure = Callable[[Labels, Scores], float | None]
_METRICS_AT_SHARE: Final[Mapping[str, Callable[[float, float, float], float | None]]] = {
    "precision": precision_at,
    "f1": f1_at,
}
SCORE_METRICS: Final[Mapping[str, Measure]] = {
    "roc_auc": roc_auc,
    "pr_auc": pr_auc,
    "log_loss": log_loss,
    "clipped_log_loss": clipped_log_loss,
    "equal_error_rate": equal_error_rate,
    "expected_calibration_error": expected_calibration_error,
    "best_f1": best_f1,
    "best_f1_threshold": best_f1_threshold,
}
"""Metrics of scores."""
DECISION_METRICS: Final = ("f1", "precision", "recall", "false_positive_rate", "balanced_accuracy")
"""Metrics of decisions; see ``metrics.confusion``."""


def compute_figures(media: Sequence[ScoredMedium], manifest: Manifest, *, rounds: int = ROUNDS) -> dict[str, Any]:
    """Return every figure that follows from the scores alone, as plain values."""
    calibration = manifest.calibration
    few = min(rounds, SLICE_ROUNDS)
    labels = _labels(media)
    groups = [f"{medium.dataset}/{medium.group}" for medium in media]
    scores, verdicts = score_and_judge(media, manifest)
    row_of = {id(medium): row for row, medium in enumerate(media)}
    by_frame = [medium.frame_scores(calibration.scale) for medium in media]
    frame_scores = np.concatenate(by_frame)
    frame_evidence = [evidence for medium in media for evidence in medium.frame_evidence()]
    frame_calls = Verdicts.from_scores(calibration, frame_scores, frame_evidence).fake
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
        {"by": way, "name": name, **_measure_slice(members, *_rows(members, row_of, scores, verdicts.fake), few)}
        for way, parts in slice_media(media).items()
        for name, members in parts.items()
    ]
    return {
        "counts": counts,
        "by_video": _measure(labels, scores, verdicts.fake, groups, rounds),
        "by_frame": _measure(np.repeat(labels, repeats), frame_scores, frame_calls, frame_groups, few),
        "verdicts": _count_verdicts(labels, verdicts),
        "pairs_above": _share_above_originals(media, scores, rounds),
        "slices": slices,
    }


def score_and_judge(media: Sequence[ScoredMedium], manifest: Manifest) -> tuple[Scores, Verdicts]:
    """Return the score of each medium, and the service's verdicts."""
    scores = np.array([medium.fake_score(manifest.calibration.scale) for medium in media])
    called = np.array([medium.verdict(manifest) for medium in media])
    return scores, Verdicts(called == "fake", called == "inconclusive")


def _decision_metric(name: str) -> Measure:
    """Return the metric *name* of ``confusion`` as ``bootstrap`` takes it, with decisions as 0 and 1."""
    return lambda labels, calls: confusion(labels, calls > 0.5)[name]


def _intervals(
    names: Collection[str], labels: Labels, scores: Scores, called: Decisions, groups: Sequence[str], rounds: int
) -> dict[str, tuple[float, float] | None]:
    calls = called.astype(np.float64)
    return {
        name: bootstrap(SCORE_METRICS[name], labels, scores, groups, rounds=rounds)
        if name in SCORE_METRICS
        else bootstrap(_decision_metric(name), labels, calls, groups, rounds=rounds)
        for name in names
    }


def _measure(labels: Labels, scores: Scores, called: Decisions, groups: Sequence[str], rounds: int) -> dict[str, Any]:
    return {
        **summary(labels, scores, called),
        "intervals": _intervals((*SCORE_METRICS, *DECISION_METRICS), labels, scores, called, groups, rounds),
        "by_fake_share": [_measure_at_share(share, labels, called, groups, rounds) for share in FAKE_SHARES],
        "reliability": [asdict(part) for part in reliability(labels, scores)],
        "roc": _roc(labels, scores),
        "precision_recall": _precision_recall(labels, scores),
        "histogram": {
            name: np.histogram(scores[labels == label], HISTOGRAM_BINS, (0.0, 1.0))[0].tolist()
            for label, name in enumerate(("real", "fake"))
        },
    }


def _rows(
    members: Sequence[ScoredMedium], row_of: Mapping[int, int], scores: Scores, called: Decisions
) -> tuple[Scores, Decisions]:
    """Return the scores and decisions of *members* alone."""
    rows = [row_of[id(medium)] for medium in members]
    return scores[rows], called[rows]


def _measure_slice(members: Sequence[ScoredMedium], scores: Scores, called: Decisions, rounds: int) -> dict[str, Any]:
    labels = _labels(members)
    groups = [f"{medium.dataset}/{medium.group}" for medium in members]
    few = [name for label, name in enumerate(("real", "fake")) if 0 < (labels == label).sum() < MIN_COMPARABLE_MEDIA]
    return {
        **summary(labels, scores, called),
        "groups": len(set(groups)),
        "too_few": few,
        "intervals": _intervals(SLICE_MEASURES, labels, scores, called, groups, rounds),
    }


def _measure_at_share(
    share: float, labels: Labels, called: Decisions, groups: Sequence[str], rounds: int
) -> dict[str, Any]:
    """
    Return precision and F1, with intervals, if *share* of the media were fake: from recall and false-positive rate.

    If no real medium was called fake, a bootstrap draws no false positives. The lower ends are then those of the upper
    confidence limit of the false-positive rate, with one trial for each group that has real media.
    """

    def at(rates: Callable[[float], float], name: str) -> Measure:
        def measure(labels: Labels, calls: Scores) -> float | None:
            found = confusion(labels, calls > 0.5)
            recall, rate = found["recall"], found["false_positive_rate"]
            if recall is None or rate is None:
                return None
            return _METRICS_AT_SHARE[name](share, recall, rates(rate))

        return measure

    calls = called.astype(np.float64)
    real = {group for group, label in zip(groups, labels, strict=True) if label == 0}
    no_alarm = confusion(labels, called)["false_positive_rate"] == 0.0
    weakest: Callable[[float], float] = (lambda _: upper_rate_limit(len(real))) if no_alarm else float
    found: dict[str, Any] = {"fake_share": share, "intervals": {}}
    for name in _METRICS_AT_SHARE:
        found[name] = at(float, name)(labels, calls)
        lows, highs = (bootstrap(at(rates, name), labels, calls, groups, rounds=rounds) for rates in (weakest, float))
        found["intervals"][name] = (lows[0], highs[1]) if lows is not None and highs is not None else None
    return found


def _labels(media: Sequence[ScoredMedium]) -> Labels:
    return np.array([int(medium.is_fake) for medium in media], np.int64)


def _roc(labels: Labels, scores: Scores) -> list[list[float]]:
    """Return points of false-positive against true-positive rate; none unless both classes are present."""
    if len(set(labels.tolist())) != 2:
        return []
    false_positives, true_positives, _ = curves.roc_curve(labels, scores)
    return _thin_curve(false_positives, true_positives)


def _precision_recall(labels: Labels, scores: Scores) -> list[list[float]]:
    """Return points of recall against precision; none unless both classes are present."""
    if len(set(labels.tolist())) != 2:
        return []
    precision, recall, _ = curves.precision_recall_curve(labels, scores)
    return _thin_curve(recall, precision)


def _thin_curve(x: NDArray[np.float64], y: NDArray[np.float64]) -> list[list[float]]:
    rows = np.unique(np.linspace(0, len(x) - 1, min(len(x), CURVE_POINTS)).round().astype(int))
    return [[round(float(x[row]), 5), round(float(y[row]), 5)] for row in rows]


def _count_verdicts(labels: Labels, verdicts: Verdicts) -> dict[str, dict[str, int]]:
    """Count the verdicts that the service would give the media of each label."""
    return {
        name: {
            verdict: int((getattr(verdicts, verdict) & (labels == label)).sum())
            for verdict in ("real", "inconclusive", "fake")
        }
        for label, name in enumerate(("real", "fake"))
    }


def _share_above_originals(media: Sequence[ScoredMedium], scores: Scores, rounds: int) -> dict[str, Any]:
    """Return the share of fakes that score above the medium they were made from, where both were scored."""
    rows = compare_with_originals(media, scores.tolist())
    if not rows:
        return {"count": 0, "share": None, "interval": None}
    above = np.array([float(is_above) for _, is_above in rows])
    groups = [f"{medium.dataset}/{medium.group}" for medium, _ in rows]
    ones = np.ones(len(rows), np.int64)
    interval = bootstrap(lambda _, values: float(values.mean()), ones, above, groups, rounds=rounds)
    return {"count": len(rows), "share": float(above.mean()), "interval": interval}
