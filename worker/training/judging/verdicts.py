"""What a score means: the one place of training's judging that reads a checkpoint's limits."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from shared.evidence import Evidence
from shared.manifests import Calibration
from worker.training.measuring.metrics import Scores

Calls = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Verdicts:
    """How scores are called, each by the limits that its own evidence gives, as the service calls them."""

    fake: Calls
    """Which reach the threshold."""
    inconclusive: Calls
    """Which lie below it, and not below the band."""

    @classmethod
    def of(cls, calibration: Calibration, scores: Scores, evidence: Sequence[Evidence]) -> Self:
        """Call *scores*, (N,) in [0, 1], each made from its *evidence*."""
        limits = [calibration.limits(each) for each in evidence]
        low, high = (np.array([getattr(limit, name) for limit in limits], np.float64) for name in ("low", "high"))
        return cls(scores >= high, (scores >= low) & (scores < high))

    @property
    def real(self) -> Calls:
        """Which lie below the band."""
        return ~self.fake & ~self.inconclusive
