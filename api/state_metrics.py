"""
Gauges of open work, storage, queues and score drift, read from rows and queues at each scrape.

Every api process reports the same values, so a dashboard takes their maximum, not their sum.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import func, select, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from api.input_metrics import collect_inputs
from shared.db import SessionFactory
from shared.drift import bin_shares, population_stability_index
from shared.manifests import list_manifests
from shared.models import Delivery, Explanation, Job, Media, Segment, Stream
from shared.observability import get_logger
from shared.queues import ALL_QUEUES, Sender
from shared.states import (
    OPEN_DELIVERY_STATUSES,
    OPEN_EXPLANATION_STATUSES,
    OPEN_JOB_STATUSES,
    OPEN_SEGMENT_STATUSES,
    JobStatus,
    StreamState,
)
from shared.streams.claims import is_free

log = get_logger(__name__)

RECENT_JOBS: Final = 5000
"""Number of recent jobs whose scores are compared with validation."""
MIN_JOBS: Final = 50
"""The least number of scores for a meaningful distribution."""
STATEMENT_TIMEOUT_MS: Final = 3000
"""Limits the load of a scrape on the database."""


class StateCollector(Collector):
    """A collector of gauges about the whole service."""

    def __init__(self, sessions: SessionFactory, sender: Sender, models_dir: Path) -> None:
        self._sessions, self._sender, self._models_dir = sessions, sender, models_dir

    def describe(self) -> Iterable[Metric]:
        """Return nothing, so that the registry does not query the database at registration."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges. Those whose source is unavailable are left out."""
        # Each has its own transaction, since the sum over all media is the first to time out.
        for part in (_collect_open_work, self._collect_drift, self._collect_inputs, _collect_stored_bytes):
            try:
                with self._sessions.transaction() as session:
                    session.execute(text(f"set local statement_timeout = {STATEMENT_TIMEOUT_MS}"))
                    yield from list(part(session))
            except SQLAlchemyError:
                log.warning("state not collected", part=part.__name__, exc_info=True)
        yield from self._collect_queue_depths()

    def _collect_queue_depths(self) -> Iterator[Metric]:
        waiting = GaugeMetricFamily("deepfakestream_messages", "Messages that wait in a queue.", labels=["queue"])
        try:
            for queue in ALL_QUEUES:
                waiting.add_metric([queue], self._sender.depth(queue))
        except Exception:
            log.warning("queue depths not collected", exc_info=True)
            return
        yield waiting

    def _collect_inputs(self, session: Session) -> Iterator[Metric]:
        yield from collect_inputs(session, self._models_dir)

    def _collect_drift(self, session: Session) -> Iterator[Metric]:
        manifests = list_manifests(self._models_dir)
        recent = select(Job.model, Job.fake_score).where(Job.finished_at.is_not(None))
        recent = recent.order_by(Job.finished_at.desc()).limit(RECENT_JOBS)
        found: defaultdict[str, list[float]] = defaultdict(list)
        for model, score in session.execute(recent):
            if score is not None:
                found[model].append(score)
        index = GaugeMetricFamily(
            "deepfakestream_score_psi",
            "Population stability index of recent scores against those of real media in validation.",
            labels=["model"],
        )
        counted = GaugeMetricFamily(
            "deepfakestream_scores_compared", "Recent scores that the index is made of.", labels=["model"]
        )
        for model, scores in sorted(found.items()):
            counted.add_metric([model], len(scores))
            reference = manifests[model].reference_shares if model in manifests else None
            if reference is not None and len(scores) >= MIN_JOBS:
                index.add_metric([model], population_stability_index(bin_shares(scores), reference))
        yield counted
        yield index


def _collect_open_work(session: Session) -> Iterator[Metric]:
    jobs = GaugeMetricFamily("deepfakestream_open_jobs", "Jobs that have not ended.", labels=["status"])
    segments = GaugeMetricFamily("deepfakestream_open_segments", "Segments of open jobs.", labels=["status"])
    oldest = GaugeMetricFamily(
        "deepfakestream_oldest_seconds", "Age of the oldest that waits or runs, by step.", labels=["step"]
    )
    is_open = Job.status.in_(OPEN_JOB_STATUSES)
    # A live stream is open for as long as it runs, which says nothing about what waits.
    is_file = ~select(Stream.job_id).where(Stream.job_id == Job.id).exists()
    counts = _count_by_status(session, select(Job.status, func.count()).where(is_open).group_by(Job.status))
    for waiting in OPEN_JOB_STATUSES:
        jobs.add_metric([waiting], counts.get(waiting, 0))
    running = select(Segment.status, func.count()).join(Job, Job.id == Segment.job_id).where(is_open)
    running = running.where(Segment.status.in_(OPEN_SEGMENT_STATUSES)).group_by(Segment.status)
    counts = _count_by_status(session, running)
    for status in OPEN_SEGMENT_STATUSES:
        segments.add_metric([status], counts.get(status, 0))
    ages = {
        "ingest": select(func.min(Job.created_at)).where(is_open, is_file, Job.segments_total.is_(None)),
        "score": select(func.min(Job.created_at)).where(is_open, is_file, Job.segments_total.is_not(None)),
        "explain": select(func.min(Explanation.send_after))
        .join(Job, Job.id == Explanation.job_id)
        .where(Explanation.status.in_(OPEN_EXPLANATION_STATUSES), Job.status == JobStatus.SUCCEEDED),
        "webhook": select(func.min(Delivery.due_at)).where(Delivery.status.in_(OPEN_DELIVERY_STATUSES)),
    }
    for step, query in ages.items():
        age = session.scalar(select(func.extract("epoch", func.clock_timestamp() - query.scalar_subquery())))
        # A retry may be due in the future.
        oldest.add_metric([step], max(0.0, float(age or 0.0)))
    streams = GaugeMetricFamily("deepfakestream_open_streams", "Live streams that have not ended.", labels=["state"])
    open_streams = select(Stream.state, func.count()).where(Stream.ended_at.is_(None)).group_by(Stream.state)
    counts = _count_by_status(session, open_streams)
    for state in StreamState:
        if state != StreamState.ENDED:
            streams.add_metric([state], counts.get(state, 0))
    unread = GaugeMetricFamily("deepfakestream_unread_streams", "Live streams that have no reader.")
    # One that is published has a reader as soon as its publisher comes.
    alone = select(func.count()).select_from(Stream).join(Job, Job.id == Stream.job_id)
    unread.add_metric([], session.scalar(alone.where(*is_free(), Stream.push_key_sha256.is_(None))) or 0)
    yield from (jobs, segments, oldest, streams, unread)


def _collect_stored_bytes(session: Session) -> Iterator[Metric]:
    stored = GaugeMetricFamily("deepfakestream_stored_bytes", "Bytes of media in storage.")
    total = select(func.coalesce(func.sum(Media.size_bytes), 0)).where(Media.storage_key.is_not(None))
    stored.add_metric([], float(session.scalar(total) or 0))
    yield stored


def _count_by_status(session: Session, query: Any) -> dict[str, int]:
    return {status: int(count) for status, count in session.execute(query)}
