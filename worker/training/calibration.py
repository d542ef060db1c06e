"""
Calibration: from what a checkpoint says of media it never saw to a temperature, a threshold and an uncertainty band.

The temperature is Guo, Pleiss, Sun and Weinberger's, "On Calibration of Modern Neural Networks", ICML 2017: one
number that logits are divided by. The threshold is the least one that keeps false positives within a bound in every
data set by itself, counted as conformal prediction counts (Vovk, Gammerman and Shafer, "Algorithmic Learning in a
Random World", 2005): among n real media it leaves room for one more that was not seen. The band holds what would
otherwise be called wrongly too often, on either side.
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
"""Share of real media, at most, that may reach the threshold."""
SURE_FALSE_POSITIVES: Final = 0.01
"""Share of real media, at most, above the band."""
MISSES: Final = 0.15
"""Share of fake media, at most, below the band."""
WIDEST_LOW: Final = 0.05
"""The band's low end is not put below this: a checkpoint that would need that says hardly anything."""
TEMPERATURES: Final = np.geomspace(0.2, 5.0, 81)
DIGITS: Final = 4


def calibrate(media: Sequence[ScoredMedium]) -> Calibration:
    """
    Calibrate on *media*, which the checkpoint never saw.

    Raises:
        DataError: One of the classes is missing.
    """
    labels = np.array([int(medium.label == "fake") for medium in media])
    if len(set(labels.tolist())) != 2:
        raise DataError("calibration needs real and fake media")
    temperature = _temperature(media, labels)
    scores = _scores(media, temperature)
    datasets = np.array([medium.dataset for medium in media])
    threshold = _reached_by(scores, labels, datasets, FALSE_POSITIVES)
    high = max(threshold, _upper_quantile(scores[labels == 0], SURE_FALSE_POSITIVES))
    low = max(WIDEST_LOW, float(np.quantile(scores[labels == 1], MISSES)))
    threshold, high = _rounded_up(threshold), _rounded_up(high)
    return Calibration(
        temperature=round(temperature, DIGITS),
        threshold=threshold,
        uncertainty_band=(round(min(low, threshold), DIGITS), high),
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


def _reached_by(
    scores: NDArray[np.float64], labels: NDArray[np.int64], datasets: NDArray[np.str_], share: float
) -> float:
    """The least threshold that at most *share* of the real media of any data set reach."""
    names = sorted(set(datasets[labels == 0].tolist()))
    return max(_upper_quantile(scores[(labels == 0) & (datasets == name)], share) for name in names)


def _upper_quantile(scores: NDArray[np.float64], share: float) -> float:
    """Just above the score that at most *share* of *scores*, and of one more like them, exceed."""
    ordered = np.sort(scores)
    kept = min(len(ordered), math.ceil((len(ordered) + 1) * (1.0 - share)))
    return float(min(1.0, ordered[kept - 1]))


def _rounded_up(value: float) -> float:
    """So that the real medium that decided stays below it."""
    step = 10.0**-DIGITS
    return round(min(1.0, (math.floor(value / step) + 1) * step), DIGITS)
