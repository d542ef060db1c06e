"""What a score means: the one place of training's judging that reads a checkpoint's threshold and band."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from shared.manifests import Manifest
from worker.training.metrics import Scores


@dataclass(frozen=True, slots=True)
class Verdicts:
    """How a checkpoint's scores are called, as the service calls those of a trained one."""

    threshold: float
    """What reaches it is called fake, unless it is in the band."""
    band: tuple[float, float]
    """Half-open: what lies in it is inconclusive."""

    @classmethod
    def of(cls, manifest: Manifest) -> Self:
        """Those that *manifest* defines."""
        return cls(manifest.calibration.threshold, manifest.calibration.uncertainty_band)

    def are_inconclusive(self, scores: Scores) -> NDArray[np.bool_]:
        """Which of *scores* decide nothing."""
        low, high = self.band
        return (scores >= low) & (scores < high)

    def are_fake(self, scores: Scores) -> NDArray[np.bool_]:
        """Which of *scores* are called fake."""
        return ~self.are_inconclusive(scores) & (scores >= self.threshold)
