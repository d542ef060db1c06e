"""
Runs: stretches of one person's faces that are suspicious together, however short they are in a long medium.

The mean over every stretch of a person's faces is held against the bound for so many faces (a scan statistic: Glaz,
Naus and Wallenstein, "Scan Statistics", 2001). A longer medium and more people give chance more opportunities to
produce a high mean, so the bound rises with their number.
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

STEPS_IN_OCTAVE: Final = 2
"""Lengths that are tried between a length and its double, so that the cost grows as n log n."""


class Run(NamedTuple):
    """Faces ``first`` to ``last`` of a sequence, both included, and what they amount to."""

    first: int
    last: int
    fake_score: float
    """The mean over them, in [0, 1]."""
    excess: float
    """By how much it lies above the bound, in log-odds."""


def find_runs(scores: Sequence[float], bound: Callable[[int], float]) -> list[Run]:
    """
    Find the stretches of *scores* whose mean reaches the bound for their length, without overlaps.

    Args:
        scores: In order of time, in [0, 1].
        bound: From a number of faces to the score from which on they are suspicious.

    Returns:
        In order of time. Of stretches that overlap, the one that lies farthest above its bound; neighbours are joined.
    """
    values = np.asarray(scores, np.float64)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    found: list[tuple[float, int, int]] = []
    for length in _lengths(len(values)):
        least = bound(length)
        means = (sums[length:] - sums[:-length]) / length
        above = _log_odds(means) - _log_odds(np.array(min(least, 1.0)))
        found += [(float(above[start]), int(start), length) for start in np.flatnonzero(means >= least)]
    found.sort(key=lambda window: (-window[0], window[1], window[2]))
    taken = np.zeros(len(values), np.bool_)
    best = np.full(len(values), -np.inf)
    for excess, start, length in found:
        if not taken[start : start + length].any():
            taken[start : start + length] = True
            best[start : start + length] = excess
    edges = np.flatnonzero(np.diff(np.concatenate([[False], taken, [False]]).astype(np.int8)))
    return [
        Run(int(begin), int(end) - 1, float(values[begin:end].mean()), float(best[begin:end].max()))
        for begin, end in zip(edges[::2], edges[1::2], strict=True)
    ]


def _lengths(count: int) -> list[int]:
    """The lengths that are tried among *count* faces: all of them together, and steps of about a factor 1.4."""
    lengths, octave = set[int](), 1
    while octave <= count:
        lengths |= {octave * (STEPS_IN_OCTAVE + step) // STEPS_IN_OCTAVE for step in range(STEPS_IN_OCTAVE)}
        octave *= 2
    return sorted(length for length in lengths | {count} if 0 < length <= count)


def _log_odds(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    inside = np.clip(scores, 1e-6, 1.0 - 1e-6)
    return np.asarray(np.log(inside / (1.0 - inside)), np.float64)
