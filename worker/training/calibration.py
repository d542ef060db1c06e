"""
Calibration: from what a checkpoint says of media it never saw to a temperature, a threshold and an uncertainty band.

The temperature is Guo, Pleiss, Sun and Weinberger's, "On Calibration of Modern Neural Networks", ICML 2017: one
number that logits are divided by. Threshold and band are order statistics, counted as conformal prediction counts
(Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World", 2005), of each data set by itself: the weakest
decides. A data set with too few media for a bound gives its extreme score instead, which promises less: among n
media, a further one lies beyond the extreme with a chance of 1 / (n + 1).
"""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shared.manifests import Calibration
from worker.training.errors import DataError
from worker.training.metrics import log_loss
from worker.training.scored import ScoredMedium

FALSE_POSITIVES: Final = 0.05
"""Share of a data set's real media, at most, that may reach the threshold, from which on a medium is called fake."""
MISSES: Final = 0.15
"""Share of a data set's fakes, at most, below the band, where a medium is called real."""
LEAST_LOW: Final = 0.05
"""The band does not begin below this, whatever the misses: nothing at all would be called real."""
TEMPERATURES: Final = np.geomspace(0.2, 5.0, 81)
DIGITS: Final = 4


def calibrate(media: Sequence[ScoredMedium]) -> Calibration:
    """
    Calibrate on *media*, which the checkpoint never saw.

    Returns:
        With a band that ends at the threshold: what reaches that is fake, what lies below the band real.

    Raises:
        DataError: One of the classes is missing.
    """
    labels = np.array([int(medium.is_fake) for medium in media])
    if len(set(labels.tolist())) != 2:
        raise DataError("calibration needs real and fake media")
    # Rounded before it is used, so that the scores that decide are those that serving will give.
    temperature = round(_temperature(media, labels), DIGITS)
    scores = _scores(media, temperature)
    threshold = _rounded_up(max(_high(part) for part in _by_dataset(media, scores, is_fake=False)))
    low = max(LEAST_LOW, min(_low(part) for part in _by_dataset(media, scores, is_fake=True)))
    return Calibration(
        temperature=temperature,
        threshold=threshold,
        uncertainty_band=(min(_rounded_down(low), threshold), threshold),
    )


def _scores(media: Sequence[ScoredMedium], temperature: float) -> NDArray[np.float64]:
    return np.array([medium.fake_score(temperature) for medium in media], np.float64)


def _temperature(media: Sequence[ScoredMedium], labels: NDArray[np.int64]) -> float:
    """The one with the least log loss, where every data set's reals and fakes weigh alike."""
    groups = np.array([f"{medium.dataset}/{medium.label}" for medium in media])
    members = [groups == name for name in sorted(set(groups.tolist()))]
    losses = []
    for temperature in TEMPERATURES:
        scores = _scores(media, float(temperature))
        losses.append(np.mean([log_loss(labels[rows], scores[rows]) for rows in members]))
    return float(TEMPERATURES[int(np.argmin(losses))])


def _by_dataset(
    media: Sequence[ScoredMedium], scores: NDArray[np.float64], *, is_fake: bool
) -> list[NDArray[np.float64]]:
    """The sorted scores of each data set's fakes or reals; data sets without any are left out."""
    parts: dict[str, list[float]] = {}
    for medium, score in zip(media, scores.tolist(), strict=True):
        if medium.is_fake == is_fake:
            parts.setdefault(medium.dataset, []).append(score)
    return [np.sort(np.array(part)) for part in parts.values()]


def _high(ordered: NDArray[np.float64]) -> float:
    """The score of which at most ``FALSE_POSITIVES`` of *ordered*, and of one more like them, lie above."""
    kept = math.ceil((len(ordered) + 1) * (1.0 - FALSE_POSITIVES))
    return float(ordered[min(kept, len(ordered)) - 1])


def _low(ordered: NDArray[np.float64]) -> float:
    """The score of which at most ``MISSES`` of *ordered*, and of one more like them, lie below."""
    missed = math.floor((len(ordered) + 1) * MISSES)
    return float(ordered[max(missed, 1) - 1])


def _rounded_up(value: float) -> float:
    """Above *value*, so that the real medium that decided stays below it."""
    step = 10.0**-DIGITS
    return round(min(1.0, (math.floor(value / step) + 1) * step), DIGITS)


def _rounded_down(value: float) -> float:
    step = 10.0**-DIGITS
    return round(math.floor(value / step) * step, DIGITS)
