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
STEPS_IN_LENGTH: Final = 8
"""Places within a long stretch's length at which another one of that length begins."""


class Run(NamedTuple):
    """Faces ``first`` to ``last`` of a sequence, both included, and what they amount to."""

    first: int
    last: int
    fake_score: float
    """The mean over them, in [0, 1]."""
    excess: float
    """By how much it lies above the bound, in log-odds."""

    @property
    def faces(self) -> int:
        """How many they are."""
        return self.last - self.first + 1


def stands_out(scores: Sequence[float], bound: Callable[[int], float]) -> bool:
    """Whether the mean of any stretch of *scores* reaches the bound for its length."""
    sums = _sums(scores)
    return any(bool((_means(sums, length) >= bound(length)).any()) for length in _lengths(len(scores)))


def find_runs(scores: Sequence[float], bound: Callable[[int], float]) -> list[Run]:
    """
    Find the stretches of *scores* whose mean reaches the bound for their length, without overlaps.

    Args:
        scores: In order of time, in [0, 1].
        bound: From a number of faces to the score from which on they are suspicious.

    Returns:
        In order of time. Of stretches that overlap, the one that lies farthest above its bound; neighbours are joined.
    """
    values, sums = np.asarray(scores, np.float64), _sums(scores)
    taken = bytearray(len(values))
    best = np.full(len(values), -np.inf)
    for excess, start, length in _windows(sums, bound):
        if taken.find(1, start, start + length) < 0:
            taken[start : start + length] = b"\1" * length
            best[start : start + length] = excess
    edges = np.flatnonzero(np.diff(np.concatenate([[0], np.frombuffer(taken, np.int8), [0]])))
    return [
        Run(int(begin), int(end) - 1, float(values[begin:end].mean()), float(best[begin:end].max()))
        for begin, end in zip(edges[::2], edges[1::2], strict=True)
    ]


def _windows(sums: NDArray[np.float64], bound: Callable[[int], float]) -> list[tuple[float, int, int]]:
    """Stretches that reach their bound, the farthest above it first: excess, first face and length of each."""
    excesses, starts, lengths = [np.zeros(0)], [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for length in _lengths(len(sums) - 1):
        least = bound(length)
        # Long ones begin at every eighth of their length, so that there are not many more of them than faces.
        places = np.arange(0, len(sums) - length, max(1, length // STEPS_IN_LENGTH))
        means = _means(sums, length)[places]
        above = means >= least
        excesses.append(_log_odds(means[above]) - _log_odds(np.array(min(least, 1.0))))
        starts.append(places[above])
        lengths.append(np.full(int(above.sum()), length))
    rows = np.concatenate(excesses), np.concatenate(starts), np.concatenate(lengths)
    order = np.lexsort((rows[2], rows[1], -rows[0]))
    return list(zip(*(column[order].tolist() for column in rows), strict=True))


def _sums(scores: Sequence[float]) -> NDArray[np.float64]:
    return np.concatenate([[0.0], np.cumsum(np.asarray(scores, np.float64))])


def _means(sums: NDArray[np.float64], length: int) -> NDArray[np.float64]:
    return np.asarray((sums[length:] - sums[:-length]) / length, np.float64)


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
