"""Verdicts from scores, by the limits of a checkpoint."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from shared.evidence import Evidence
from shared.manifests import Calibration
from worker.training.scoring.metrics import Scores

Decisions = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Verdicts:
    """The verdicts of scores, each by the limits for its own evidence, as in the service."""

    fake: Decisions
    """Scores that reach the threshold."""
    inconclusive: Decisions
    """Scores below the threshold, but not below the band."""

    @classmethod
    def from_scores(cls, calibration: Calibration, scores: Scores, evidence: Sequence[Evidence]) -> Self:
        """Judge *scores*, (N,) in [0, 1], each by its *evidence*."""
        limits = [calibration.limits(each) for each in evidence]
        low, high = (np.array([getattr(limit, name) for limit in limits], np.float64) for name in ("low", "high"))
        return cls(scores >= high, (scores >= low) & (scores < high))

    @property
    def real(self) -> Decisions:
        """Scores below the band."""
        return ~self.fake & ~self.inconclusive
