"""
Calibration on media that a checkpoint never saw: probabilities from logits, and limits that depend on the evidence.

Logits become probabilities by Platt's logistic function ("Probabilistic Outputs for Support Vector Machines", 1999),
here with a temperature (Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", ICML 2017) and an
offset. Limits are order statistics, counted as conformal prediction counts (Vovk, Gammerman and Shafer, "Algorithmic
Learning in a Random World", 2005), for each data set separately: the worst one decides. A data set with too few
media for a bound gives its extreme score instead, which is a weaker guarantee: a further medium is beyond the extreme
of n media with probability 1 / (n + 1).

A mean over many faces varies less than the score of one, so videos get two bounds, for a single face and for many,
between which ``shared.manifests.Bound`` interpolates. The highest score of several people is higher than that of one:
by how much follows from the tail of single faces, and of means over many. In a video both bounds rise with the number
of people, so that real media of many people leave ``real`` as rarely as those of one; in a picture only the upper one
rises.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from shared.evidence import Evidence
from shared.manifests import Bound, Bounds, Calibration, Scale
from worker.training.errors import DataError
from worker.training.scoring.scored_media import ScoredMedium

MAX_FALSE_POSITIVES: Final = 0.05
"""Largest share of a data set's real media that may reach the threshold, at which a medium is called fake."""
MAX_MISSES: Final = 0.15
"""Largest share of a data set's fakes that may be below the band, where a medium is called real."""
MIN_LOW: Final = 0.05
"""Smallest lower end of the band, whatever the misses: below it nothing would be called real."""
MAX_LOW: Final = 0.5
"""Largest lower end of the band, and smallest threshold: what is more likely fake is never called real, and the
reverse."""
TEMPERATURES: Final = np.geomspace(0.2, 5.0, 81)
OFFSETS: Final = np.linspace(-6.0, 6.0, 49)
DIGITS: Final = 4
TAIL_SHARE: Final = 0.2
"""Share of single faces in the tail, from which the rise for several people is estimated."""
MIN_AVERAGED_FACES: Final = 4
"""Smallest number of faces of a person whose mean counts as one over many, for its tail."""
MIN_TAIL_SHARE: Final = 0.5
"""Smallest tail of means over many, as a share of the tail of single faces."""
MAX_LOG_ODDS: Final = 12.0
"""Log-odds at which scores are clipped."""

BoundEstimator = Callable[[NDArray[np.float64]], float]
"""Maps the sorted values of a data set to its bound."""


def calibrate(media: Sequence[ScoredMedium], *, min_bits_per_pixel: float | None = None) -> Calibration:
    """
    Calibrate on *media*, which the checkpoint never saw.

    Args:
        min_bits_per_pixel: Copied to the result; it follows from copies that were encoded again, not from these media.

    Returns:
        A calibration whose bands end at the threshold: scores that reach it are fake, scores below the band real.

    Raises:
        DataError: One of the classes is missing.
    """
    if {medium.is_fake for medium in media} != {False, True}:
        raise DataError("calibration needs real and fake media")
    # Rounded before use, so that the limits follow from the scores that serving will give.
    scale = Scale(*(round(value, DIGITS) for value in _fit_scale(media)))
    odds = {id(medium): _log_odds(medium.fake_score(scale)) for medium in media}
    seen = {id(medium): medium.evidence(scale) for medium in media}
    kinds: dict[Literal["image", "video"], Sequence[ScoredMedium]] = {
        "image": [medium for medium in media if not medium.is_video],
        "video": [medium for medium in media if medium.is_video],
    }
    bounds = {
        kind: _bounds(part, odds, seen)
        for kind, part in kinds.items()
        if {medium.is_fake for medium in part} == {False, True}
    }
    if not bounds:
        raise DataError("calibration needs real and fake media of one kind: pictures, or videos")
    # Where a single threshold is needed, the strictest limits for one face of one person are used.
    high = max(Scale(1.0).probability(each.high.one) for each in bounds.values())
    low = min(Scale(1.0).probability(each.low.one) for each in bounds.values())
    threshold = min(1.0, _round_up(high))
    return Calibration(
        temperature=scale.temperature,
        offset=scale.offset,
        threshold=threshold,
        uncertainty_band=(min(_round_down(low), threshold), threshold),
        bounds=bounds,
        min_bits_per_pixel=min_bits_per_pixel,
    )


def _fit_scale(media: Sequence[ScoredMedium]) -> Scale:
    """Find the scale with the smallest log loss, with equal weights for each data set's real and fake media."""
    faces = _FlatScores(media)
    found = min((faces.loss(float(t), float(o)), float(t), float(o)) for t in TEMPERATURES for o in OFFSETS)
    return Scale(*found[1:])


class _FlatScores:
    """All faces of some media as flat arrays, so that the loss at one scale takes a few array operations."""

    def __init__(self, media: Sequence[ScoredMedium]) -> None:
        faces = [(row, face) for row, medium in enumerate(media) for face in medium.faces]
        self._logits = np.array([face.logit for _, face in faces])
        segments = np.array([(row, face.segment, 0) for row, face in faces])
        people = np.array([(row, face.segment, face.person) for row, face in faces])
        _, first, self._person = np.unique(people, axis=0, return_index=True, return_inverse=True)
        self._counts = np.bincount(self._person)
        kept, self._segment = np.unique(segments[first], axis=0, return_inverse=True)
        self._medium = kept[:, 0]
        self._is_fake = np.array([medium.is_fake for medium in media])
        names = [f"{medium.dataset}/{medium.label}" for medium in media]
        _, group, sizes = np.unique(names, return_inverse=True, return_counts=True)
        self._weights = 1.0 / sizes[group] / len(sizes)

    def loss(self, temperature: float, offset: float) -> float:
        """Return the mean log loss of the media's scores, as ``metrics.log_loss`` computes it."""
        scores = Scale(temperature, offset).probabilities(self._logits, np.tanh)
        people = np.bincount(self._person, scores) / self._counts
        highest = np.zeros(len(self._medium))
        np.maximum.at(highest, self._segment, people)
        means = np.bincount(self._medium, highest) / np.bincount(self._medium)
        right = np.clip(np.where(self._is_fake, means, 1.0 - means), 1e-6, 1.0)
        return float(-(np.log(right) * self._weights).sum())


def _bounds(media: Sequence[ScoredMedium], odds: Mapping[int, float], seen: Mapping[int, Evidence]) -> Bounds:
    """Compute the bounds of one kind of media, with real and fake ones."""
    real = [medium for medium in media if not medium.is_fake]
    alone = [medium for medium in real if seen[id(medium)].people == 1]
    singles = [odds[id(medium)] for medium in alone if seen[id(medium)].faces == 1]
    means = [odds[id(medium)] for medium in alone if seen[id(medium)].faces >= MIN_AVERAGED_FACES]
    rise: dict[str, float] = {}
    if tail := _mean_excess(singles):
        rise["doubling"] = round(tail * math.log(2.0), DIGITS)
        # A tail of few media is uncertain: means are assumed to vary at least half as much as single faces.
        share = min(1.0, max(_mean_excess(means) / tail, MIN_TAIL_SHARE))
        rise["doubling_many"] = round(share * tail * math.log(2.0), DIGITS)
    is_video = any(medium.is_video for medium in media)
    high = _bound(real, odds, seen, max, _estimate_high, Bound(one=0.0, many=0.0, **rise))
    falling = Bound(one=0.0, many=0.0, **(rise if is_video else {}))
    low = _bound([medium for medium in media if medium.is_fake], odds, seen, min, _estimate_low, falling)
    least, most = _log_odds(MIN_LOW), _log_odds(MAX_LOW)
    return Bounds(
        high=Bound(**{name: _round_up(max(value, most)) for name, value in high.items()}, **rise),
        low=Bound(
            **{name: _round_down(min(max(value, least), most)) for name, value in low.items()},
            **rise if is_video else {},
        ),
    )


def _bound(
    media: Sequence[ScoredMedium],
    odds: Mapping[int, float],
    seen: Mapping[int, Evidence],
    combine: Callable[[Sequence[float]], float],
    estimate: BoundEstimator,
    rise: Bound,
) -> dict[str, float]:
    """Compute ``one`` and ``many`` of a bound on media of one label and kind, given how it rises with the people."""

    def alone(medium: ScoredMedium) -> float:
        return odds[id(medium)] - rise.log_odds_at(seen[id(medium)])

    singles = [medium for medium in media if seen[id(medium)].faces == 1]
    many = [medium for medium in media if seen[id(medium)].faces > 1]
    one = combine(_estimate_per_data_set(singles or many, alone, estimate))

    def beyond(medium: ScoredMedium) -> float:
        """Return the bound for many at which the medium would be exactly at its own bound."""
        share = 1.0 / seen[id(medium)].faces
        return (alone(medium) - one * share) / (1.0 - share)

    far = combine(_estimate_per_data_set(many, beyond, estimate)) if many else one
    return {"one": one, "many": far}


def _estimate_per_data_set(
    media: Sequence[ScoredMedium], value: Callable[[ScoredMedium], float], estimate: BoundEstimator
) -> list[float]:
    parts: dict[str, list[float]] = {}
    for medium in media:
        parts.setdefault(medium.dataset, []).append(value(medium))
    return [estimate(np.sort(np.array(part))) for part in parts.values()]


def _mean_excess(values: Sequence[float]) -> float:
    """Fit an exponential upper tail: the mean by which its members exceed its beginning."""
    if len(values) < 1 / TAIL_SHARE:
        return 0.0
    ordered = np.sort(np.array(values))
    begin = float(np.quantile(ordered, 1.0 - TAIL_SHARE))
    return float((ordered[ordered > begin] - begin).mean()) if (ordered > begin).any() else 0.0


def _estimate_high(ordered: NDArray[np.float64]) -> float:
    """Return the value that at most ``MAX_FALSE_POSITIVES`` of *ordered*, and of one further value, exceed."""
    kept = math.ceil((len(ordered) + 1) * (1.0 - MAX_FALSE_POSITIVES))
    return float(ordered[min(kept, len(ordered)) - 1])


def _estimate_low(ordered: NDArray[np.float64]) -> float:
    """Return the value that at most ``MAX_MISSES`` of *ordered*, and of one further value, are below."""
    missed = math.floor((len(ordered) + 1) * MAX_MISSES)
    return float(ordered[max(missed, 1) - 1])


def _log_odds(score: float) -> float:
    if not 0.0 < score < 1.0:
        return math.copysign(MAX_LOG_ODDS, score - 0.5)
    return max(-MAX_LOG_ODDS, min(MAX_LOG_ODDS, math.log(score / (1.0 - score))))


def _round_up(odds: float) -> float:
    """Round *odds* up, so that the real medium that decided stays below."""
    step = 10.0**-DIGITS
    return round((math.floor(odds / step) + 1) * step, DIGITS)


def _round_down(odds: float) -> float:
    step = 10.0**-DIGITS
    return round(math.floor(odds / step) * step, DIGITS)
