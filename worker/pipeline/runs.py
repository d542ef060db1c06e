"""
Runs: stretches of one person's faces that are suspicious together, however short they are in a long medium.

The mean over each stretch of a person's faces is compared with a bound for its length (a scan statistic: Glaz, Naus
and Wallenstein, "Scan Statistics", 2001). A longer medium and more people make a high mean by chance more likely, so
the bound rises with both.
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

STEPS_IN_OCTAVE: Final = 2
"""Lengths that are tried between a length and its double, so that the cost grows as n log n."""
STEPS_IN_LENGTH: Final = 8
"""Windows of one length start at steps of this fraction of the length."""


class Run(NamedTuple):
    """Faces ``first`` to ``last`` of a sequence, both included, and their score."""

    first: int
    last: int
    fake_score: float
    """The mean over them, in [0, 1]."""
    excess: float
    """How far the score is above the bound, in log-odds."""

    @property
    def faces(self) -> int:
        """Number of faces in the run."""
        return self.last - self.first + 1


def has_run(scores: Sequence[float], bound: Callable[[int], float]) -> bool:
    """Return whether the mean of any stretch of *scores* reaches the bound for its length."""
    sums = _prefix_sums(scores)
    return any(bool((_window_means(sums, length) >= bound(length)).any()) for length in _window_lengths(len(scores)))


def find_runs(scores: Sequence[float], bound: Callable[[int], float]) -> list[Run]:
    """
    Find the stretches of *scores* whose mean reaches the bound for their length, without overlaps.

    Args:
        scores: Scores in [0, 1], in order of time.
        bound: Returns, for a number of faces, the mean score from which on they are suspicious.

    Returns:
        Runs in order of time. Of overlapping stretches the one farthest above its bound is kept; neighbours are joined.
    """
    values, sums = np.asarray(scores, np.float64), _prefix_sums(scores)
    taken = bytearray(len(values))
    best = np.full(len(values), -np.inf)
    for excess, start, length in find_windows(sums, bound):
        if taken.find(1, start, start + length) < 0:
            taken[start : start + length] = b"\1" * length
            best[start : start + length] = excess
    edges = np.flatnonzero(np.diff(np.concatenate([[0], np.frombuffer(taken, np.int8), [0]])))
    return [
        Run(int(begin), int(end) - 1, float(values[begin:end].mean()), float(best[begin:end].max()))
        for begin, end in zip(edges[::2], edges[1::2], strict=True)
    ]


def find_windows(sums: NDArray[np.float64], bound: Callable[[int], float]) -> list[tuple[float, int, int]]:
    """Return the excess, first face and length of each stretch that reaches its bound, the highest excess first."""
    excesses, starts, lengths = [np.zeros(0)], [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for length in _window_lengths(len(sums) - 1):
        min_mean = bound(length)
        # Long windows start at every eighth of their length, so that there are not many more windows than faces.
        places = np.arange(0, len(sums) - length, max(1, length // STEPS_IN_LENGTH))
        means = _window_means(sums, length)[places]
        above = means >= min_mean
        excesses.append(_log_odds(means[above]) - _log_odds(np.array(min(min_mean, 1.0))))
        starts.append(places[above])
        lengths.append(np.full(int(above.sum()), length))
    rows = np.concatenate(excesses), np.concatenate(starts), np.concatenate(lengths)
    order = np.lexsort((rows[2], rows[1], -rows[0]))
    return list(zip(*(column[order].tolist() for column in rows), strict=True))


def _prefix_sums(scores: Sequence[float]) -> NDArray[np.float64]:
    return np.concatenate([[0.0], np.cumsum(np.asarray(scores, np.float64))])


def _window_means(sums: NDArray[np.float64], length: int) -> NDArray[np.float64]:
    return np.asarray((sums[length:] - sums[:-length]) / length, np.float64)


def _window_lengths(count: int) -> list[int]:
    """Return the window lengths for *count* faces: in steps of about a factor of 1.4, and *count* itself."""
    lengths, octave = set[int](), 1
    while octave <= count:
        lengths |= {octave * (STEPS_IN_OCTAVE + step) // STEPS_IN_OCTAVE for step in range(STEPS_IN_OCTAVE)}
        octave *= 2
    return sorted(length for length in lengths | {count} if 0 < length <= count)


def _log_odds(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    inside = np.clip(scores, 1e-6, 1.0 - 1e-6)
    return np.asarray(np.log(inside / (1.0 - inside)), np.float64)
