"""Metrics of a detector, from labels and scores, of which 1 means fake in both."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]
Scores = NDArray[np.float64]

MIN_CLIPPED_SCORE: Final = 0.01


def roc_auc(labels: Labels, scores: Scores) -> float | None:
    """Return the area under the receiver operating characteristic; None unless both classes are present."""
    fakes = int(labels.sum())
    if fakes in {0, len(labels)}:
        return None
    # The share of pairs in the right order, of which those with equal scores count half (Mann and Whitney).
    _, places, counts = np.unique(scores, return_inverse=True, return_counts=True)
    middles = np.cumsum(counts) - (counts - 1) / 2
    above = middles[places][labels == 1].sum() - fakes * (fakes + 1) / 2
    return float(above / (fakes * (len(labels) - fakes)))


def pr_auc(labels: Labels, scores: Scores) -> float | None:
    """Return the average precision; None without a fake."""
    if not labels.any():
        return None
    hits, called, _ = _rank_by_score(labels, scores)
    return float(np.diff(hits, prepend=0) @ (hits / called) / hits[-1])


def log_loss(labels: Labels, scores: Scores, *, min_score: float = 1e-6) -> float:
    """Return the mean negative log-likelihood, with scores clipped to [*min_score*, 1 - *min_score*]."""
    kept = np.clip(scores, min_score, 1 - min_score)
    return float(-np.where(labels == 1, np.log(kept), np.log1p(-kept)).mean())


def clipped_log_loss(labels: Labels, scores: Scores) -> float:
    """
    Return the log loss with scores clipped by ``MIN_CLIPPED_SCORE``: a few confident mistakes do not dominate it.

    The DeepFake Detection Challenge ranked by log loss, for which entries often clipped their scores in some such way.
    """
    return log_loss(labels, scores, min_score=MIN_CLIPPED_SCORE)


def equal_error_rate(labels: Labels, scores: Scores) -> float | None:
    """Return the rate at which false positives and false negatives are equal; None unless both classes are present."""
    fakes = int(labels.sum())
    if fakes in {0, len(labels)}:
        return None
    hits, called, _ = _rank_by_score(labels, scores)
    false_positives = np.append(0, called - hits) / (len(labels) - fakes)
    misses = 1 - np.append(0, hits) / fakes
    after = int(np.argmax(false_positives >= misses))
    if after == 0:
        return float(misses[0])
    gap_before = misses[after - 1] - false_positives[after - 1]
    gap_after = false_positives[after] - misses[after]
    share = gap_before / (gap_before + gap_after)
    return float(false_positives[after - 1] + share * (false_positives[after] - false_positives[after - 1]))


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """The scores in one bin of [0, 1], and the share of fakes among them."""

    low: float
    high: float
    count: int
    mean_score: float
    fake_share: float


def reliability(labels: Labels, scores: Scores, bins: int = 10) -> list[ReliabilityBin]:
    """Return the reliability curve over bins of equal width, without empty ones."""
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
    """Return the mean distance of score and share of fakes over the reliability curve (Naeini et al., AAAI 2015)."""
    curve = reliability(labels, scores, bins)
    return sum(part.count * abs(part.mean_score - part.fake_share) for part in curve) / len(labels)


def confusion(labels: Labels, called: NDArray[np.bool_]) -> dict[str, float | None]:
    """
    Return the metrics of decisions: *called*, (N,), is true where a medium is called fake.

    Returns:
        ``f1``, ``precision``, ``recall``, ``false_positive_rate`` and ``balanced_accuracy``, the mean of the accuracies
        on fakes and on real media; None where a denominator is 0.
    """
    fakes = labels == 1
    hits, alarms = int((called & fakes).sum()), int((called & ~fakes).sum())
    precision = hits / (hits + alarms) if hits + alarms else None
    recall = hits / int(fakes.sum()) if fakes.any() else None
    f1 = 2 * hits / (hits + alarms + int(fakes.sum())) if hits + alarms + int(fakes.sum()) else None
    rate = alarms / int((~fakes).sum()) if (~fakes).any() else None
    balanced = (recall + 1 - rate) / 2 if recall is not None and rate is not None else None
    return {
        "f1": f1,
        "precision": precision,
        "recall": recall,
        "false_positive_rate": rate,
        "balanced_accuracy": balanced,
    }


def best_f1(labels: Labels, scores: Scores) -> float | None:
    """Return the largest F1 over all thresholds; None without a fake. It is optimistic, as any maximum."""
    best = _find_best_f1(labels, scores)
    return best and best[0]


def best_f1_threshold(labels: Labels, scores: Scores) -> float | None:
    """Return the threshold of ``best_f1``, the highest if there are several; None without a fake."""
    best = _find_best_f1(labels, scores)
    return best and best[1]


def _find_best_f1(labels: Labels, scores: Scores) -> tuple[float, float] | None:
    if not labels.any():
        return None
    hits, called, thresholds = _rank_by_score(labels, scores)
    values = 2 * hits / (called + labels.sum())
    place = int(np.argmax(values))
    return float(values[place]), float(thresholds[place])


def _rank_by_score(labels: Labels, scores: Scores) -> tuple[Labels, Labels, Scores]:
    """Return true positives and all positives at each score that occurs, the highest first, and these scores."""
    # Not by scikit-learn, whose validation of arguments would dominate the thousand calls of a bootstrap.
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    ends = np.flatnonzero(np.append(np.diff(ranked) != 0, True))
    return np.cumsum(labels[order])[ends], ends + 1, ranked[ends]


def precision_at(share: float, recall: float, false_positive_rate: float) -> float | None:
    """
    Return the precision if *share* of all media are fake; None if nothing is called fake.

    At 1 % it is close to the weighted precision of Dolhansky et al., "The DeepFake Detection Challenge (DFDC) Dataset",
    2020, which counts a false positive a hundredfold.
    """
    called = share * recall + (1 - share) * false_positive_rate
    return share * recall / called if called else None


def f1_at(share: float, recall: float, false_positive_rate: float) -> float:
    """Return F1 if *share* of all media, above 0, are fake."""
    return 2 * share * recall / (share * recall + (1 - share) * false_positive_rate + share)


def upper_rate_limit(count: int, *, level: float = 0.95) -> float:
    """Return the upper confidence limit (two-sided) of a rate without a hit in *count* independent trials."""
    return float(1.0 - ((1.0 - level) / 2) ** (1.0 / count))


def summary(labels: Labels, scores: Scores, called: NDArray[np.bool_]) -> dict[str, float | int | None]:
    """Return every metric of this module in one object; *called* is true where a medium is called fake."""
    if len(labels) == 0:
        return {"count": 0}
    return {
        "count": len(labels),
        "fakes": int(labels.sum()),
        "roc_auc": roc_auc(labels, scores),
        "pr_auc": pr_auc(labels, scores),
        "log_loss": log_loss(labels, scores),
        "clipped_log_loss": clipped_log_loss(labels, scores),
        "equal_error_rate": equal_error_rate(labels, scores),
        "expected_calibration_error": expected_calibration_error(labels, scores),
        "best_f1": best_f1(labels, scores),
        "best_f1_threshold": best_f1_threshold(labels, scores),
        **confusion(labels, called),
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
    Return the percentile confidence interval of a metric, drawing whole groups: clips of a person are not independent.

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
