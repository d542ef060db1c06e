"""
Drift of scores and of inputs against the validation of their checkpoint.

It is measured by the population stability index: the sum over bins of (p - q) ln(p / q), with the current shares p and
the reference shares q. Below 0.1 a distribution counts as stable, above 0.25 as changed (Siddiqi, "Credit Risk
Scorecards", Wiley 2006).
"""

import math
from collections.abc import Iterable, Sequence
from typing import Final

BINS: Final = 10
"""Number of bins, of equal width over [0, 1]; the last includes 1."""
STABLE: Final = 0.1
"""Below this index a distribution counts as stable."""
CHANGED: Final = 0.25
"""Above this index a distribution counts as changed."""
MIN_SHARE: Final = 0.005
"""The least share that is used: an empty bin would make the index infinite."""


def bin_shares(scores: Iterable[float]) -> list[float]:
    """Return the share of *scores*, each in [0, 1], in each bin; zeros without scores."""
    counts = [0] * BINS
    for score in scores:
        counts[min(BINS - 1, int(score * BINS))] += 1
    total = sum(counts)
    return [count / total if total else 0.0 for count in counts]


def population_stability_index(now: Sequence[float], then: Sequence[float]) -> float:
    """Return the distance of two distributions over the same bins, 0 or more."""
    if len(now) != len(then):
        raise ValueError(f"{len(now)} bins cannot be compared with {len(then)}")
    pairs = [(max(p, MIN_SHARE), max(q, MIN_SHARE)) for p, q in zip(now, then, strict=True)]
    return sum((p - q) * math.log(p / q) for p, q in pairs)
