"""
Calibration: from what a checkpoint says of media it never saw to probabilities, and to limits that know the evidence.

Logits become probabilities by Platt's logistic function ("Probabilistic Outputs for Support Vector Machines", 1999),
here with a temperature (Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", ICML 2017) and an
offset. Limits are order statistics, counted as conformal prediction counts (Vovk, Gammerman and Shafer, "Algorithmic
Learning in a Random World", 2005), of each data set by itself: the weakest decides. A data set with too few media for
a bound gives its extreme score instead, which promises less: among n media, a further one lies beyond the extreme with
a chance of 1 / (n + 1).

A mean over many faces moves less than one face does, so videos get two bounds, one that holds for a single face and
one for many, between which ``shared.manifests.Bound`` passes over. The highest of several people lies higher than one:
by how much follows from the tail of single faces, and of means over many. In a video both bounds rise with the people,
so that it is as rare for one of many as for a single one to leave ``real``; in a picture the upper one alone does.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from shared.evidence import Evidence
from shared.manifests import Bound, Bounds, Calibration, Scale
from worker.training.errors import DataError
from worker.training.measuring.scored import ScoredMedium

FALSE_POSITIVES: Final = 0.05
"""Share of a data set's real media, at most, that may reach the threshold, from which on a medium is called fake."""
MISSES: Final = 0.15
"""Share of a data set's fakes, at most, below the band, where a medium is called real."""
MIN_LOW: Final = 0.05
"""The band does not begin below this, whatever the misses: nothing at all would be called real."""
MAX_LOW: Final = 0.5
"""Nor above this: what is rather fake than real is never called real, and what is rather real never fake."""
TEMPERATURES: Final = np.geomspace(0.2, 5.0, 81)
OFFSETS: Final = np.linspace(-6.0, 6.0, 49)
DIGITS: Final = 4
TAIL: Final = 0.2
"""The share of single faces that tells how far the highest of several people lies above one."""
SEVERAL: Final = 4
"""Faces of one person from which on their mean counts as one over many, for its tail."""
MIN_TAIL_SHARE: Final = 0.5
"""Of the tail of single faces, that the tail of means over many has at least."""
MAX_LOG_ODDS: Final = 12.0
"""Log-odds beyond which scores are no longer told apart."""

Edge = Callable[[NDArray[np.float64]], float]
"""From sorted values to the bound that a data set gives."""


def calibrate(media: Sequence[ScoredMedium], *, min_bits_per_pixel: float | None = None) -> Calibration:
    """
    Calibrate on *media*, which the checkpoint never saw.

    Args:
        min_bits_per_pixel: Passed on; it follows from copies that were encoded again, not from these media.

    Returns:
        With bands that end at the threshold: what reaches that is fake, what lies below the band real.

    Raises:
        DataError: One of the classes is missing.
    """
    if {medium.is_fake for medium in media} != {False, True}:
        raise DataError("calibration needs real and fake media")
    # Rounded before it is used, so that the scores that decide are those that serving will give.
    scale = Scale(*(round(value, DIGITS) for value in _scale(media)))
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
    # The strictest of one face of one person stand for a checkpoint where one number is asked for.
    high = max(Scale(1.0).probability(each.high.one) for each in bounds.values())
    low = min(Scale(1.0).probability(each.low.one) for each in bounds.values())
    threshold = min(1.0, _up(high))
    return Calibration(
        temperature=scale.temperature,
        offset=scale.offset,
        threshold=threshold,
        uncertainty_band=(min(_down(low), threshold), threshold),
        bounds=bounds,
        min_bits_per_pixel=min_bits_per_pixel,
    )


def _scale(media: Sequence[ScoredMedium]) -> Scale:
    """The one with the least log loss, where every data set's reals and fakes weigh alike."""
    faces = _Faces(media)
    found = min((faces.loss(float(t), float(o)), float(t), float(o)) for t in TEMPERATURES for o in OFFSETS)
    return Scale(*found[1:])


class _Faces:
    """All faces of some media as flat arrays: what they are worth at one scale is then a few array operations."""

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
        """Mean log loss of the media's scores, as ``metrics.log_loss`` takes it."""
        scores = Scale(temperature, offset).probabilities(self._logits, np.tanh)
        people = np.bincount(self._person, scores) / self._counts
        highest = np.zeros(len(self._medium))
        np.maximum.at(highest, self._segment, people)
        means = np.bincount(self._medium, highest) / np.bincount(self._medium)
        right = np.clip(np.where(self._is_fake, means, 1.0 - means), 1e-6, 1.0)
        return float(-(np.log(right) * self._weights).sum())


def _bounds(media: Sequence[ScoredMedium], odds: Mapping[int, float], seen: Mapping[int, Evidence]) -> Bounds:
    """Bounds of one kind of media, of which there are real and fake ones."""
    real = [medium for medium in media if not medium.is_fake]
    alone = [medium for medium in real if seen[id(medium)].people == 1]
    singles = [odds[id(medium)] for medium in alone if seen[id(medium)].faces == 1]
    means = [odds[id(medium)] for medium in alone if seen[id(medium)].faces >= SEVERAL]
    rise: dict[str, float] = {}
    if tail := _tail(singles):
        rise["doubling"] = round(tail * math.log(2.0), DIGITS)
        # A tail of few media is a guess: means are taken to scatter half as far as single faces at least.
        share = min(1.0, max(_tail(means) / tail, MIN_TAIL_SHARE))
        rise["doubling_many"] = round(share * tail * math.log(2.0), DIGITS)
    is_video = any(medium.is_video for medium in media)
    high = _bound(real, odds, seen, max, _high, Bound(one=0.0, many=0.0, **rise))
    falling = Bound(one=0.0, many=0.0, **(rise if is_video else {}))
    low = _bound([medium for medium in media if medium.is_fake], odds, seen, min, _low, falling)
    least, most = _log_odds(MIN_LOW), _log_odds(MAX_LOW)
    return Bounds(
        high=Bound(**{name: _up(max(value, most)) for name, value in high.items()}, **rise),
        low=Bound(
            **{name: _down(min(max(value, least), most)) for name, value in low.items()}, **rise if is_video else {}
        ),
    )


def _bound(
    media: Sequence[ScoredMedium],
    odds: Mapping[int, float],
    seen: Mapping[int, Evidence],
    weakest: Callable[[Sequence[float]], float],
    edge: Edge,
    rise: Bound,
) -> dict[str, float]:
    """``one`` and ``many`` of a bound on media of one label and kind, which moves with the people as *rise* does."""

    def alone(medium: ScoredMedium) -> float:
        return odds[id(medium)] - rise.odds_at(seen[id(medium)])

    singles = [medium for medium in media if seen[id(medium)].faces == 1]
    many = [medium for medium in media if seen[id(medium)].faces > 1]
    one = weakest(_edges(singles or many, alone, edge))

    def beyond(medium: ScoredMedium) -> float:
        """Where the bound for many would have to lie for the medium to stand right at its own."""
        share = 1.0 / seen[id(medium)].faces
        return (alone(medium) - one * share) / (1.0 - share)

    far = weakest(_edges(many, beyond, edge)) if many else one
    return {"one": one, "many": far}


def _edges(media: Sequence[ScoredMedium], value: Callable[[ScoredMedium], float], edge: Edge) -> list[float]:
    parts: dict[str, list[float]] = {}
    for medium in media:
        parts.setdefault(medium.dataset, []).append(value(medium))
    return [edge(np.sort(np.array(part))) for part in parts.values()]


def _tail(values: Sequence[float]) -> float:
    """How fast the upper tail thins out: the mean by which its members exceed where it begins (exponential tail)."""
    if len(values) < 1 / TAIL:
        return 0.0
    ordered = np.sort(np.array(values))
    begin = float(np.quantile(ordered, 1.0 - TAIL))
    return float((ordered[ordered > begin] - begin).mean()) if (ordered > begin).any() else 0.0


def _high(ordered: NDArray[np.float64]) -> float:
    """The value of which at most ``FALSE_POSITIVES`` of *ordered*, and of one more like them, lie above."""
    kept = math.ceil((len(ordered) + 1) * (1.0 - FALSE_POSITIVES))
    return float(ordered[min(kept, len(ordered)) - 1])


def _low(ordered: NDArray[np.float64]) -> float:
    """The value of which at most ``MISSES`` of *ordered*, and of one more like them, lie below."""
    missed = math.floor((len(ordered) + 1) * MISSES)
    return float(ordered[max(missed, 1) - 1])


def _log_odds(score: float) -> float:
    if not 0.0 < score < 1.0:
        return math.copysign(MAX_LOG_ODDS, score - 0.5)
    return max(-MAX_LOG_ODDS, min(MAX_LOG_ODDS, math.log(score / (1.0 - score))))


def _up(odds: float) -> float:
    """Above *odds*, so that the real medium that decided stays below it."""
    step = 10.0**-DIGITS
    return round((math.floor(odds / step) + 1) * step, DIGITS)


def _down(odds: float) -> float:
    step = 10.0**-DIGITS
    return round(math.floor(odds / step) * step, DIGITS)
