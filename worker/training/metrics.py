"""Measures of a detector, from labels and scores. Labels: 1 is fake. Scores: 1 means fake."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics

Labels = NDArray[np.int64]
Scores = NDArray[np.float64]


def roc_auc(labels: Labels, scores: Scores) -> float | None:
    """Area under the receiver operating characteristic; None unless both classes are there."""
    return float(metrics.roc_auc_score(labels, scores)) if len(set(labels.tolist())) == 2 else None


def pr_auc(labels: Labels, scores: Scores) -> float | None:
    """Average precision; None without a fake."""
    return float(metrics.average_precision_score(labels, scores)) if labels.any() else None


def log_loss(labels: Labels, scores: Scores) -> float:
    """Mean negative logarithm of the probability given to the truth, with scores kept 1e-6 away from 0 and 1."""
    kept = np.clip(scores, 1e-6, 1 - 1e-6)
    return float(-np.where(labels == 1, np.log(kept), np.log1p(-kept)).mean())


def equal_error_rate(labels: Labels, scores: Scores) -> float | None:
    """Where the false-positive and the false-negative rate meet; None unless both classes are there."""
    if len(set(labels.tolist())) != 2:
        return None
    false_positives, true_positives, _ = metrics.roc_curve(labels, scores)
    misses = 1 - true_positives
    after = int(np.argmax(false_positives >= misses))
    if after == 0:
        return float(misses[0])
    gap_before = misses[after - 1] - false_positives[after - 1]
    gap_after = false_positives[after] - misses[after]
    share = gap_before / (gap_before + gap_after)
    return float(false_positives[after - 1] + share * (false_positives[after] - false_positives[after - 1]))


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Scores of one stretch of [0, 1], and how many of them were fakes."""

    low: float
    high: float
    count: int
    mean_score: float
    fake_share: float


def reliability(labels: Labels, scores: Scores, bins: int = 10) -> list[ReliabilityBin]:
    """The reliability curve over bins of equal width; empty ones are left out."""
    places = np.minimum((scores * bins).astype(int), bins - 1)
    return [
        ReliabilityBin(
            low=place / bins,
            high=(place + 1) / bins,
            count=int((places == place).sum()),
            mean_score=float(scores[places == place].mean()),
            fake_share=float(labels[places == place].mean()),
        )
        for place in range(bins)
        if (places == place).any()
    ]


def expected_calibration_error(labels: Labels, scores: Scores, bins: int = 10) -> float:
    """Mean distance between score and share of fakes over the reliability curve (Naeini et al., AAAI 2015)."""
    curve = reliability(labels, scores, bins)
    return sum(part.count * abs(part.mean_score - part.fake_share) for part in curve) / len(labels)


def confusion(labels: Labels, scores: Scores, threshold: float) -> dict[str, float | None]:
    """F1, precision, recall and false-positive rate where a score at or above *threshold* is called fake."""
    called = scores >= threshold
    fakes = labels == 1
    hits, alarms = int((called & fakes).sum()), int((called & ~fakes).sum())
    precision = hits / (hits + alarms) if hits + alarms else None
    recall = hits / int(fakes.sum()) if fakes.any() else None
    f1 = 2 * hits / (hits + alarms + int(fakes.sum())) if hits + alarms + int(fakes.sum()) else None
    rate = alarms / int((~fakes).sum()) if (~fakes).any() else None
    return {"f1": f1, "precision": precision, "recall": recall, "false_positive_rate": rate}


def summary(labels: Labels, scores: Scores, threshold: float) -> dict[str, float | int | None]:
    """Every measure of this module in one object."""
    if len(labels) == 0:
        return {"count": 0}
    return {
        "count": len(labels),
        "fakes": int(labels.sum()),
        "roc_auc": roc_auc(labels, scores),
        "pr_auc": pr_auc(labels, scores),
        "log_loss": log_loss(labels, scores),
        "equal_error_rate": equal_error_rate(labels, scores),
        "expected_calibration_error": expected_calibration_error(labels, scores),
        **confusion(labels, scores, threshold),
    }


def bootstrap(
    measure: Callable[[Labels, Scores], float | None],
    labels: Labels,
    scores: Scores,
    groups: Sequence[str],
    *,
    rounds: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float] | None:
    """
    Percentile confidence interval of a measure, drawing whole groups: clips of one person are not independent.

    Returns:
        Low and high; None if the measure is not defined for most draws.
    """
    rng = np.random.default_rng(seed)
    names, members = np.unique(np.asarray(groups), return_inverse=True)
    rows = [np.flatnonzero(members == number) for number in range(len(names))]
    values = []
    for _ in range(rounds):
        drawn = np.concatenate([rows[number] for number in rng.integers(len(rows), size=len(rows))])
        value = measure(labels[drawn], scores[drawn])
        if value is not None:
            values.append(value)
    if len(values) < rounds / 2:
        return None
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
