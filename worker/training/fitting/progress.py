"""The progress of a run, and the table of its validations."""

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CURVES_FILE = "curves.csv"
SMOOTHING = 0.98
"""Smoothing of the loss in the progress bar and the curves: the share of the old value."""


@dataclass(slots=True)
class Progress:
    """The progress of a run."""

    step: int = 0
    loss: float | None = None
    """Smoothed training loss."""
    best: float = -math.inf
    """Largest ``selection`` of a validation so far."""
    stale: int = 0
    """Validations since the best one."""
    seconds: float = 0.0

    def record_loss(self, loss: float) -> None:
        """Update the smoothed loss with the loss of a step."""
        smoothing = SMOOTHING if self.loss is not None else 0.0
        self.loss = smoothing * (self.loss or 0.0) + (1 - smoothing) * loss


def append_curves(folder: Path, row: Mapping[str, float]) -> None:
    """Append *row* to the curves of the run in *folder*, and drop rows of a killed run at or after it."""
    path = folder / CURVES_FILE
    rows: list[Mapping[str, Any]] = []
    if path.exists():
        with path.open(newline="") as file:
            rows = [old for old in csv.DictReader(file) if int(old["images"]) < row["images"]]
    partial = path.with_name(f"{CURVES_FILE}.partial")
    with partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(key for each in (*rows, row) for key in each)))
        writer.writeheader()
        writer.writerows([*rows, row])
    partial.rename(path)
