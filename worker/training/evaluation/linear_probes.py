"""Linear probes, cross-validated over groups of people: how well given statistics separate fakes from real media."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Final, Literal

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from worker.training.evaluation.background_statistics import CLUES, NAMES, PIXEL_NAMES, PIXELS, Features
from worker.training.scoring.metrics import Labels, Scores, bootstrap, roc_auc

FOLDS: Final = 8
MIN_GROUPS: Final = 4
"""Smallest number of groups of real media, and of fakes, or of pairs: with fewer, a probe has too little to learn."""
ROUNDS: Final = 500
"""Rounds of the bootstrap."""
MAX_SINGLES: Final = 3
"""Number of single statistics that are named."""
SEED: Final = 0
How = Literal["media", "couples"]


@dataclass(frozen=True, slots=True)
class ProbeArea:
    """The area under the ROC curve of one probe, on media of groups that it had not seen."""

    statistics: str
    """``outside``, all pixels outside the face, or one family."""
    roc_auc: float
    interval: tuple[float, float] | None
    """95 % confidence interval, over groups."""
    telling: tuple[tuple[str, float], ...]
    """The single statistics with the most extreme areas, which are above one half where fakes have larger values."""

    @property
    def is_chance(self) -> bool:
        """Whether the interval contains one half."""
        return self.interval is not None and self.interval[0] <= 0.5 <= self.interval[1]


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """The results for one data set, or for one kind of fakes that training makes."""

    name: str
    how: How
    """``media``: each by itself; ``couples``: each fake beside its original."""
    media: int
    fakes: int
    groups: int
    left_out: int
    """Media, or pairs, with too little outside the face."""
    outside_px: int
    """Median number of pixels outside the face in a picture."""
    outside_share: float
    areas: tuple[ProbeArea, ...]

    def as_json(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Statistics:
    """A medium, with the means of its pictures' statistics."""

    group: str
    is_fake: bool
    values: Features
    """Values in the order of ``NAMES``."""
    outside_px: float
    outside_share: float


def score_cross_validated(rows: Features, labels: Labels, groups: Sequence[str], folds: int = FOLDS) -> Scores:
    """
    Score each of *rows* with a linear probe that was trained on the rows of other groups.

    Args:
        rows: (N, F) statistics.

    Returns:
        (N,) decision values, larger for fakes.
    """
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, class_weight="balanced"))
    # The training part of every fold needs both classes.
    classes = [{group for group, label in zip(groups, labels, strict=True) if label == value} for value in (0, 1)]
    division = StratifiedGroupKFold(min(folds, *map(len, classes)), shuffle=True, random_state=SEED)
    scores = cross_val_predict(model, rows, labels, groups=np.array(groups), cv=division, method="decision_function")
    return np.asarray(scores, np.float64)


def format_table(found: Sequence[ProbeResult]) -> str:
    """Return the results as a table in Markdown."""
    lines = [
        "| data set | compared | media | groups | outside the face | statistics | ROC-AUC | tell most |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for one in found:
        about = [
            one.name,
            one.how,
            f"{one.media} ({one.fakes} fake)",
            str(one.groups),
            f"{one.outside_px} px, {one.outside_share:.0%}",
        ]
        for area in one.areas:
            interval = "" if area.interval is None else f" [{area.interval[0]:.3f}, {area.interval[1]:.3f}]"
            telling = "" if area.is_chance else ", ".join(f"{name} {value:.2f}" for name, value in area.telling)
            lines.append(f"| {' | '.join([*about, area.statistics, f'{area.roc_auc:.3f}{interval}', telling])} |")
            about = [""] * len(about)
    return "\n".join(lines) + "\n"


def probe_set(
    name: str, alone: Sequence[Statistics | None], beside: Sequence[tuple[Statistics, Statistics] | None], rounds: int
) -> list[ProbeResult]:
    """Probe media and pairs, each if there are enough groups."""
    found = []
    media = [one for one in alone if one is not None]
    if min(_groups(media).values()) >= MIN_GROUPS:
        rows = np.array([one.values for one in media])
        found.append(_probed(name, "media", media, rows, len(alone) - len(media), rounds))
    pairs = [both for both in beside if both is not None]
    if len({one.group for one, _ in pairs}) >= MIN_GROUPS:
        values = np.array([[one.values for one in both] for both in pairs])  # (N, 2, F)
        rows = (values - values.mean(axis=1, keepdims=True)).reshape(2 * len(pairs), -1)
        media = [one for both in pairs for one in both]
        found.append(_probed(name, "couples", media, rows, len(beside) - len(pairs), rounds))
    return found


def _groups(media: Sequence[Statistics]) -> dict[str, int]:
    """Count the groups with a real medium, and those with a fake."""
    return {
        label: len({one.group for one in media if one.is_fake == is_fake})
        for label, is_fake in (("real", False), ("fake", True))
    }


def explain_too_small(name: str, alone: Sequence[Statistics | None]) -> str:
    """Return the sentence that says that a data set has too few groups for a probe."""
    media = [one for one in alone if one is not None]
    groups = _groups(media)
    return (
        f"{name} is too small to be probed: {groups['real']} people or single pictures that are real and "
        f"{groups['fake']} that are fake show enough outside the face, and {MIN_GROUPS} of each are needed"
    )


def _probed(name: str, how: How, seen: Sequence[Statistics], rows: Features, left_out: int, rounds: int) -> ProbeResult:
    groups, labels = [one.group for one in seen], np.array([int(one.is_fake) for one in seen], np.int64)
    areas = []
    for family, names in {"outside": PIXEL_NAMES, **PIXELS, **CLUES}.items():
        # A constant statistic, such as the quantisation of PNG files, is no use to a probe.
        places = [place for place in map(NAMES.index, names) if np.ptp(rows[:, place]) > 0]
        if not places:
            if family not in CLUES:
                areas.append(ProbeArea(family, 0.5, (0.5, 0.5), ()))  # The same to the byte.
            continue
        scores = score_cross_validated(rows[:, places], labels, groups)
        single = [(NAMES[place], roc_auc(labels, rows[:, place]) or 0.0) for place in places]
        single.sort(key=lambda row: -abs(row[1] - 0.5))
        interval = bootstrap(roc_auc, labels, scores, groups, rounds=rounds)
        areas.append(ProbeArea(family, roc_auc(labels, scores) or 0.0, interval, tuple(single[:MAX_SINGLES])))
    return ProbeResult(
        name=name,
        how=how,
        media=len(seen),
        fakes=int(labels.sum()),
        groups=len(set(groups)),
        left_out=left_out,
        outside_px=round(median(one.outside_px for one in seen)),
        outside_share=median(one.outside_share for one in seen),
        areas=tuple(areas),
    )
