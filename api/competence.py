"""
Competence: how unlike its validation set a checkpoint's inputs are, and how many of its scores fall in the band.

It is what the digest, the metrics and the page for operators say of ``shared.jobs.inputs``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Final, Literal

from sqlalchemy.orm import Session

from shared.drift import CHANGED, STABLE, population_stability_index
from shared.errors import ModelError
from shared.inputs import InputKind, Property
from shared.jobs.inputs import InputTotals, last_days, read_inputs
from shared.manifests import list_manifests
from shared.references import JudgedReference, KindReference, Reference, read_reference

PERIODS_DAYS: Final = (1, 7, 30)
"""The periods that are compared, each with today as its last day (UTC)."""
MIN_JOBS: Final = 400
"""
The least number of jobs with a scored face before anything is said.

The faces of one job are alike, so that jobs count as the sample. Of n independent jobs and m independent media from one
distribution the index is about 9 (1/n + 1/m) on average, for ten bins: 0.045 for 400 and 400, when it is above
``STABLE`` once in fifty times; 0.18 for 100 and 100, which would be noise. The page shows nothing of fewer jobs either,
so that sums over all owners do not describe a few of them.
"""
MIN_REFERENCE_MEDIA: Final = 400
"""The least number of media in the reference, for the first of these reasons."""
PROPERTY_NAMES: Final = {Property.SIZE: "size", Property.SHARPNESS: "sharpness", Property.LUMA: "brightness"}
"""What people call the properties, in the digest and on the page."""
_DIRECTIONS: Final = {
    Property.SIZE: ("smaller", "larger"),
    Property.SHARPNESS: ("more blurred", "sharper"),
    Property.LUMA: ("darker", "brighter"),
}
"""Of each, the first is the worse: such faces keep fewer traces of a swap. The alert asks for these alone."""


@dataclass(frozen=True, slots=True)
class Unlikeness:
    """How unlike the validation set one property of faces is."""

    index: float
    """The population stability index."""
    direction: str
    """Whether faces are for instance ``smaller`` or ``larger`` than there, by their mean bin."""

    @property
    def level(self) -> str:
        """Return ``like`` below ``STABLE``, ``unlike`` above ``CHANGED``, and ``shifted`` between them."""
        return "like" if self.index < STABLE else "unlike" if self.index > CHANGED else "shifted"


@dataclass(frozen=True, slots=True)
class Comparison:
    """The inputs of one checkpoint and kind in a period, beside its validation set."""

    totals: InputTotals
    reference: KindReference | None
    """The faces of the validation set; None if nothing can be compared with it."""
    judged: Mapping[str, JudgedReference]
    """The verdicts on the validation set, by label; empty without a reference."""
    silence: str | None
    """Why nothing is said of unlikeness; None if something is."""
    unlikeness: Mapping[Property, Unlikeness]
    """Empty if nothing is said."""

    @property
    def is_of_few(self) -> bool:
        """Return whether there are too few jobs to say anything of them."""
        return self.totals.scores < MIN_JOBS

    @property
    def band_share(self) -> float | None:
        """Return the share of the scores that are between the two limits, in [0, 1]; None without a score."""
        return share(self.totals.scores_in_band, self.totals.scores)

    def to_json(self) -> dict[str, Any]:
        """Return plain values, rounded."""
        totals = self.totals
        return {
            "model": totals.model,
            "kind": totals.kind.value,
            "jobs": totals.jobs,
            "verdicts": dict(totals.verdicts),
            "band_share": _rounded(self.band_share),
            "band_share_validation": {
                label: _rounded(share(found.scores_in_band, found.media)) for label, found in self.judged.items()
            },
            "faces": totals.faces,
            "unscored_faces": {
                "too_small": totals.too_small,
                "too_blurred": totals.too_blurred,
                "turned": totals.turned,
            },
            "silence": self.silence,
            "unlikeness": {
                each.value: {"index": round(found.index, 4), "level": found.level, "direction": found.direction}
                for each, found in self.unlikeness.items()
            },
        }


class References:
    """The references of installed checkpoints, each read once."""

    def __init__(self, models_dir: Path) -> None:
        self._models_dir, self._manifests = models_dir, list_manifests(models_dir)
        self._found: dict[str, Reference | ModelError] = {}

    def find(self, model: str) -> Reference:
        """Return the reference of a checkpoint. Raises ModelError with a sentence for people if there is none."""
        if model not in self._found:
            self._found[model] = self._read(model)
        found = self._found[model]
        if isinstance(found, ModelError):
            raise found
        return found

    def _read(self, model: str) -> Reference | ModelError:
        if model not in self._manifests:
            return ModelError(f"checkpoint {model!r} is not installed any more")
        try:
            return read_reference(self._models_dir, self._manifests[model])
        except ModelError as error:
            return error


def compare_inputs(session: Session, references: References, end: date, days: int) -> list[Comparison]:
    """
    Compare the inputs of every checkpoint and kind with the validation set.

    Args:
        end: The last day of the period, in UTC.
        days: Length of the period.
    """
    first, last = last_days(end, days)
    return [compare(totals, references) for totals in read_inputs(session, first, last)]


def compare(totals: InputTotals, references: References) -> Comparison:
    """Compare the inputs of one checkpoint and kind with the validation set."""
    try:
        reference = references.find(totals.model)
    except ModelError as error:
        return Comparison(totals, None, {}, str(error), {})
    kind: Literal["image", "video"] = "image" if totals.kind is InputKind.IMAGE else "video"
    faces = reference.kinds.get(kind)
    judged: dict[str, JudgedReference] = dict(reference.judged.items())
    if faces is None or faces.media < MIN_REFERENCE_MEDIA:
        silence = (
            f"the validation set has {0 if faces is None else faces.media} {kind}s; {MIN_REFERENCE_MEDIA} are needed"
        )
        return Comparison(totals, None, judged, silence, {})
    if totals.scores < MIN_JOBS:
        silence = f"{totals.scores} jobs with a scored face are too few; {MIN_JOBS} are needed"
        return Comparison(totals, faces, judged, silence, {})
    unlikeness = {
        each: _measure(totals.bins[each], faces.counts(each), each) for each in Property if any(totals.bins[each])
    }
    return Comparison(totals, faces, judged, None, unlikeness)


def share(part: float, whole: float) -> float | None:
    """Return *part* of *whole*, in [0, 1]; None of nothing."""
    return part / whole if whole else None


def bin_shares_of(counts: Sequence[float]) -> list[float]:
    """Return the share of each of *counts*; zeros if all are."""
    total = sum(counts)
    return [count / total if total else 0.0 for count in counts]


def _measure(now: Sequence[float], then: Sequence[float], each: Property) -> Unlikeness:
    shares = bin_shares_of(now), bin_shares_of(then)
    means = [sum(number * part for number, part in enumerate(parts)) for parts in shares]
    return Unlikeness(population_stability_index(*shares), _DIRECTIONS[each][means[0] > means[1]])


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
