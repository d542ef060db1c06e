"""
Inputs: what checkpoints are given to judge, by day (UTC) and kind, which outlives the jobs and names nobody.

As for usage, every job that is judged adds a row, in the transaction that ends it, and ``tidy`` folds rows into one for
each day, checkpoint and kind. Jobs whose result is a copy of another job's add none.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, Integer, delete, func, literal, select, type_coerce
from sqlalchemy.dialects.postgresql import array
from sqlalchemy.orm import Session

from shared.inputs import BINS_VERSION, INPUT_BINS, Counts, FaceCounts, InputKind, Property
from shared.jobs.folding import TODAY, fold_rows
from shared.models import InputCount, Job
from shared.states import Verdict

KEPT_DAYS: Final = 366
"""Rows of earlier days are removed."""
_SUMS: Final = (
    *("jobs", "fake", "real", "inconclusive", "not_applicable", "scores", "scores_in_band"),
    *("faces", "too_small", "too_blurred", "turned"),
)


@dataclass(frozen=True, slots=True)
class JobInputs:
    """What one job gave its checkpoint to judge."""

    kind: InputKind
    counts: FaceCounts


@dataclass(frozen=True, slots=True)
class InputTotals:
    """What the jobs of one checkpoint and kind gave it to judge in some days; see ``InputCount`` for the fields."""

    model: str
    kind: InputKind
    jobs: int
    verdicts: Mapping[str, int]
    """Jobs by verdict, 0 included."""
    scores: int
    scores_in_band: int
    faces: int
    too_small: int
    too_blurred: int
    turned: int
    bins: Counts


def record_inputs(session: Session, job: Job, inputs: JobInputs) -> None:
    """Add the inputs of a job that has just been judged."""
    evidence, counts = job.evidence or {}, inputs.counts
    low, high = evidence.get("real_below"), evidence.get("fake_from")
    is_in_band = job.fake_score is not None and low is not None and high is not None and low <= job.fake_score < high
    session.add(
        InputCount(
            day=TODAY,
            model=job.model,
            kind=inputs.kind,
            bins=BINS_VERSION,
            jobs=1,
            **{verdict.value: int(job.verdict == verdict) for verdict in Verdict},
            scores=int(job.fake_score is not None),
            scores_in_band=int(is_in_band),
            faces=counts.faces,
            too_small=counts.problems["face_too_small"],
            too_blurred=counts.problems["face_too_blurred"],
            turned=counts.problems["face_turned"],
            **{each.value: list(counts.bins[each]) for each in Property},
        )
    )


def fold_inputs(session: Session) -> None:
    """Replace the rows of each day, checkpoint and kind by one, and remove those of days long ago."""
    old = select(InputCount.id).where(InputCount.day < TODAY - literal(KEPT_DAYS, Integer))
    # In order, as folding does, so that two sessions that do so at once wait for each other.
    locked = old.order_by(InputCount.id).with_for_update().cte("locked")
    session.execute(delete(InputCount).where(InputCount.id.in_(select(locked.c.id))))
    sums: dict[str, Callable[[Any], Any]] = dict.fromkeys(_SUMS, func.sum)
    sums |= {each.value: lambda column: array(_sum_bins(column)) for each in Property}
    fold_rows(session, InputCount, ("model", "kind", "bins"), sums)


def read_inputs(session: Session, first: date, last: date) -> Sequence[InputTotals]:
    """Return the sums of the days from *first* to *last*, both included, in order of checkpoint and kind."""
    bins = [total for each in Property for total in _sum_bins(getattr(InputCount, each))]
    query = (
        select(InputCount.model, InputCount.kind, *(func.sum(getattr(InputCount, name)) for name in _SUMS), *bins)
        .where(InputCount.day.between(first, last), InputCount.bins == BINS_VERSION)
        .group_by(InputCount.model, InputCount.kind)
        .order_by(InputCount.model, InputCount.kind)
    )
    return [_to_totals(row) for row in session.execute(query) if row[1] in set(InputKind)]


def today(session: Session) -> date:
    """Return the day of the database (UTC), by which rows are counted."""
    found: date = session.execute(select(type_coerce(TODAY, InputCount.day.type))).scalar_one()
    return found


def last_days(end: date, days: int) -> tuple[date, date]:
    """Return the first and the last of as many *days*, of which *end* is the last."""
    return end - timedelta(days=days - 1), end


def _sum_bins(column: Any) -> list[ColumnElement[float]]:
    return [func.sum(column[number]) for number in range(1, INPUT_BINS + 1)]


def _to_totals(row: Sequence[Any]) -> InputTotals:
    model, kind, *rest = row
    named = dict(zip(_SUMS, map(int, rest[: len(_SUMS)]), strict=True))
    weights = rest[len(_SUMS) :]
    bins = {
        each: tuple(float(weight) for weight in weights[number * INPUT_BINS : (number + 1) * INPUT_BINS])
        for number, each in enumerate(Property)
    }
    verdicts = {verdict.value: named.pop(verdict.value) for verdict in Verdict}
    return InputTotals(model=model, kind=InputKind(kind), verdicts=verdicts, bins=bins, **named)
