"""
The digest for operators: what the service judged in a week, beside the week before.

Found by the command line as ``deepfakestream digest``; also ``python -m api.digest``, with access to the database.
"""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import click
from sqlalchemy import ColumnElement, DateTime, Float, and_, cast, func, or_, select
from sqlalchemy.orm import Session

from api.competence import PROPERTY_NAMES, Comparison, References, compare_inputs, share
from api.keys import in_transaction, operator_settings
from shared.drift import CHANGED, STABLE
from shared.models import Job, Stream
from shared.states import Finding, JobStatus, Verdict

MAX_LISTED: Final = 20
"""The most ids of disputed jobs in a digest."""


@dataclass(frozen=True, slots=True)
class Period:
    """The time ``[start, end)``."""

    start: datetime
    end: datetime

    def before(self) -> "Period":
        """Return the period of the same length that ends where this one begins."""
        return Period(self.start - (self.end - self.start), self.start)


@dataclass(frozen=True, slots=True)
class Figures:
    """What ended in a period, without jobs that are erased by now."""

    jobs: int
    """Jobs that ended, with those that scored media again and those of live streams."""
    streams: int
    """How many of them were live streams."""
    media: int
    """Different files among the others."""
    verdicts: dict[str, int]
    """Number of jobs for every verdict, 0 included."""
    cancelled: int
    failed: int
    failures: dict[str, int]
    """Number of failed jobs for each error code."""
    median_s: float | None
    """Median of the seconds from submission to the verdict, without live streams; None without any."""
    scores: int
    """Jobs with a score and with limits of ``real`` and ``fake``."""
    scores_in_band: int
    """How many of the scores are between the two limits, which makes them inconclusive."""
    band_share: float | None
    """Share of the scores that are between the two limits, 0 to 1; None without any."""
    reviews: dict[str, int]
    """Number of reviews in the period for every finding, 0 included, whenever their jobs ended."""
    contradicted: int
    """Reviews among them that confirm the opposite of the verdict ``real`` or ``fake``."""
    disputed: list[str]
    """The ids of the jobs that were disputed last, at most ``MAX_LISTED``."""


def measure(session: Session, period: Period, owner: str | None = None) -> Figures:
    """
    Measure one period.

    Args:
        owner: Only the jobs of this owner.
    """
    ended = and_(*_of_owner(owner), Job.finished_at >= period.start, Job.finished_at < period.end)
    is_stream = select(Stream.job_id).where(Stream.job_id == Job.id).exists()
    counts = dict[Any, int](_rows(session, select(Job.status, func.count()).where(ended).group_by(Job.status)))
    verdicts = dict[Any, int](_rows(session, select(Job.verdict, func.count()).where(ended).group_by(Job.verdict)))
    failures = select(Job.error_code, func.count()).where(ended, Job.status == JobStatus.FAILED)
    by_code = _rows(session, failures.group_by(Job.error_code).order_by(func.count().desc(), Job.error_code))
    duration = func.extract("epoch", Job.finished_at - Job.created_at)
    median = session.scalar(
        select(func.percentile_cont(0.5).within_group(duration)).where(
            ended, Job.status == JobStatus.SUCCEEDED, ~is_stream
        )
    )
    low, high = (cast(Job.evidence[name].astext, Float) for name in ("real_below", "fake_from"))
    is_scored = and_(ended, Job.fake_score.is_not(None), low.is_not(None), high.is_not(None))
    scores = session.scalar(select(func.count()).where(is_scored)) or 0
    in_band = session.scalar(select(func.count()).where(is_scored, Job.fake_score >= low, Job.fake_score < high)) or 0
    return Figures(
        jobs=sum(counts.values()),
        streams=session.scalar(select(func.count()).where(ended, is_stream)) or 0,
        media=session.scalar(select(func.count(func.distinct(Job.media_id))).where(ended)) or 0,
        verdicts={verdict.value: verdicts.get(verdict, 0) for verdict in Verdict},
        cancelled=counts.get(JobStatus.CANCELLED, 0),
        failed=counts.get(JobStatus.FAILED, 0),
        failures={code or "unknown": count for code, count in by_code},
        median_s=None if median is None else round(float(median), 3),
        scores=scores,
        scores_in_band=in_band,
        band_share=round(in_band / scores, 4) if scores else None,
        **_reviews(session, period, owner),
    )


def _reviews(session: Session, period: Period, owner: str | None) -> dict[str, Any]:
    finding = Job.review["finding"].astext
    reviewed_at = cast(Job.review["reviewed_at"].astext, DateTime(timezone=True))
    reviewed = and_(*_of_owner(owner), Job.review.is_not(None), reviewed_at >= period.start, reviewed_at < period.end)
    counts = dict(_rows(session, select(finding, func.count()).where(reviewed).group_by(finding)))
    opposite = or_(
        and_(finding == Finding.CONFIRMED_FAKE, Job.verdict == Verdict.REAL),
        and_(finding == Finding.CONFIRMED_REAL, Job.verdict == Verdict.FAKE),
    )
    disputed = select(Job.id).where(reviewed, finding == Finding.DISPUTED).order_by(reviewed_at.desc())
    return {
        "reviews": {each.value: counts.get(each.value, 0) for each in Finding},
        "contradicted": session.scalar(select(func.count()).where(reviewed, opposite)) or 0,
        "disputed": [str(job_id) for job_id in session.scalars(disputed.limit(MAX_LISTED))],
    }


def compare_period(session: Session, period: Period, references: References) -> list[Comparison]:
    """
    Compare what was judged in a period with the validation sets, for the whole service.

    Inputs are counted by day (UTC): a period includes the day of its last moment, and as many days as it is long. The
    counts outlive jobs, so that they include those that are erased by now.
    """
    last = (period.end - timedelta(microseconds=1)).astimezone(UTC).date()
    days = max(1, round((period.end - period.start) / timedelta(days=1)))
    return compare_inputs(session, references, last, days)


def describe_comparisons(compared: Sequence[Comparison]) -> str:
    """Return the comparisons with the validation sets as lines for people, in plain text."""
    lines = [
        "inputs beside the validation set, with those of jobs that are erased by now",
        f"(population stability index: below {STABLE} alike, above {CHANGED} unlike)",
    ]
    for found in compared:
        totals = found.totals
        lines.append(f"  {totals.model}, {totals.kind}: {totals.faces} faces of {totals.scores} jobs")
        if found.silence is not None:
            lines.append(f"    {found.silence}")
        for each, measured in found.unlikeness.items():
            how = "" if measured.level == "like" else f", {measured.direction}"
            lines.append(f"    {PROPERTY_NAMES[each]:<10} {measured.index:.2f} {measured.level}{how}")
        if found.band_share is not None:
            shares = [(label, share(judged.scores_in_band, judged.media)) for label, judged in found.judged.items()]
            then = ", ".join(f"{value:.1%} of {label} media" for label, value in shares if value is not None)
            lines.append(f"    in band    {found.band_share:.1%}" + (f"; whole validation set: {then}" if then else ""))
    return "\n".join(lines)


def _of_owner(owner: str | None) -> list[ColumnElement[bool]]:
    return [Job.deleted_at.is_(None), *([] if owner is None else [Job.owner == owner])]


def _rows(session: Session, query: Any) -> Iterator[tuple[Any, int]]:
    return ((value, int(count)) for value, count in session.execute(query))


def describe(period: Period, now: Figures, before: Figures, owner: str | None = None) -> str:
    """Return the digest as a table for people, in plain text."""
    days = (period.end - period.start).total_seconds() / 86400
    whose = f", owner {owner}" if owner is not None else ""
    rows: list[tuple[str, Callable[[Figures], str]]] = [
        ("media", lambda found: str(found.media)),
        ("jobs ended", lambda found: str(found.jobs)),
        ("  of live streams", lambda found: str(found.streams)),
        *((f"  {verdict.replace('_', ' ')}", _verdict_of(verdict)) for verdict in now.verdicts),
        ("  cancelled", lambda found: str(found.cancelled)),
        ("  failed", lambda found: str(found.failed)),
        ("median seconds", lambda found: "-" if found.median_s is None else f"{found.median_s:.1f}"),
        ("scores in band", _describe_band),
        ("reviews", lambda found: str(sum(found.reviews.values()))),
        ("  disputed", lambda found: str(found.reviews[Finding.DISPUTED])),
        ("  against verdict", lambda found: str(found.contradicted)),
    ]
    lines = [
        f"{period.start:%Y-%m-%d %H:%M} to {period.end:%Y-%m-%d %H:%M} UTC, beside the {days:g} days before{whose}",
        "",
        f"{'':<20} {'now':>16} {'before':>16}",
        *(f"{name:<20} {show(now):>16} {show(before):>16}" for name, show in rows),
    ]
    if now.failures:
        lines += ["", "failures: " + ", ".join(f"{count} {code}" for code, count in now.failures.items())]
    if now.disputed:
        lines += ["", "disputed:", *(f"  {job_id}" for job_id in now.disputed)]
    return "\n".join(lines)


def _verdict_of(verdict: str) -> Callable[[Figures], str]:
    return lambda found: str(found.verdicts[verdict])


def _describe_band(found: Figures) -> str:
    return "-" if found.band_share is None else f"{found.band_share:.1%} of {found.scores}"


@click.command("digest")
@click.option("--days", type=click.IntRange(1, 366), default=7, show_default=True, help="Length of the period in days.")
@click.option("--until", type=click.DateTime(), help="End of the period, UTC; now by default.")
@click.option("--owner", help="Only this owner's jobs.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def commands(days: int, until: datetime | None, owner: str | None, as_json: bool) -> None:
    """
    Sum up a week beside the week before: media, verdicts, failures, seconds, inconclusive scores and reviews.

    Jobs that are erased by now are not counted. Without --owner, size, sharpness and brightness of the faces that were
    judged are also compared with the validation sets of the checkpoints; these counts are kept without jobs, and so
    include the erased ones.
    """

    def work(session: Session) -> tuple[Period, Figures, Figures, list[Comparison]]:
        end = until.replace(tzinfo=UTC) if until is not None else session.execute(select(func.now())).scalar_one()
        period = Period(end.astimezone(UTC) - timedelta(days=days), end.astimezone(UTC))
        # Inputs are counted without owners.
        compared = compare_period(session, period, References(operator_settings().models.dir)) if owner is None else []
        return period, measure(session, period, owner), measure(session, period.before(), owner), compared

    period, now, before, compared = in_transaction(work)
    if not as_json:
        click.echo(describe(period, now, before, owner))
        if compared:
            click.echo(f"\n{describe_comparisons(compared)}")
        return
    document = {
        "from": period.start.isoformat(),
        "until": period.end.isoformat(),
        "owner": owner,
        "now": asdict(now),
        "before": asdict(before),
        "inputs": [found.to_json() for found in compared],
    }
    click.echo(json.dumps(document))


if __name__ == "__main__":
    sys.exit(commands())
