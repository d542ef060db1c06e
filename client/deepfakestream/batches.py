"""Batches: what is submitted in one, and the typed results of its state."""

import dataclasses
import datetime as dt
from collections.abc import Iterable
from typing import Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from deepfakestream.results import Count, Document, Number, Problem, Timestamp
from deepfakestream.sources import Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload(Document):
    """A file in the storage of the service, of which one job can be made."""

    id: str
    sha256: str
    """Digest of what was sent; a job fails if something else arrived."""
    size_bytes: Count
    expires_at: Timestamp | None = None
    """When the service removes it if no job was made of it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Submission:
    """
    One item of a batch, where it has options of its own.

    Attributes:
        source: What ``Client.submit`` takes as its file, or an ``Upload``.
        model: Name of a checkpoint; that of the batch if not given. So are ``sample_fps``, ``segment_seconds`` and
            ``explain``.
        webhook_url: Address that the service calls when the job of this item ends.
        metadata: Values of your own, which the job keeps; must be JSON.
        webhook_events: Names of the events that ``webhook_url`` is called for, such as ``job.failed``; all if not
            given.
    """

    source: Source | Upload
    model: str | None = None
    sample_fps: float | None = None
    segment_seconds: float | None = None
    webhook_url: str | None = None
    metadata: dict[str, Any] | None = None
    explain: bool | None = None
    webhook_events: Iterable[str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchCounts(Document):
    """How many items are in which state; together they are ``total``."""

    total: Count
    queued: Count = 0
    running: Count = 0
    succeeded: Count = 0
    failed: Count = 0
    cancelled: Count = 0
    refused: Count = 0
    """Items of which no job was made."""
    erased: Count = 0
    """Items whose job was erased."""

    @property
    def ended(self) -> int:
        """Number of items that change no more."""
        return self.total - self.queued - self.running


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchItem(Document):
    """One item of a batch: its job, or why there is none."""

    index: Count
    """Place in the submission, from 0."""
    job_id: str | None = None
    """None if the item was refused, or its job was erased."""
    status: str | None = None
    """Of the job; None without one."""
    verdict: str | None = None
    fake_score: Number | None = None
    reasons: tuple[str, ...] = ()
    metadata: dict[str, Any] = Field(default_factory=dict)
    error: Problem | None = None
    """Why the item was refused, or its job failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch(Document):
    """Jobs that were submitted together."""

    id: str
    created_at: Timestamp
    ended_at: Timestamp | None = None
    """None while a job of it is open."""
    webhook_url: str | None = None
    webhook_events: tuple[str, ...] | None = None
    """Events that ``webhook_url`` is called for; None is all of them."""
    metadata: dict[str, Any] = Field(default_factory=dict)
    counts: BatchCounts
    verdicts: dict[str, Count] = Field(default_factory=dict)
    """Number of jobs that succeeded, by verdict."""
    items: tuple[BatchItem, ...] = Field(default=(), repr=False)
    """All items in the order of the submission; none in a webhook and in a list of batches."""
    raw: dict[str, Any] = Field(repr=False)
    """The document of the service, with all items where there are some."""

    @property
    def is_final(self) -> bool:
        """Whether all of its jobs have ended."""
        return self.ended_at is not None

    @property
    def duration(self) -> dt.timedelta:
        """Time from the submission to the end, or until now."""
        return (self.ended_at or dt.datetime.now(dt.UTC)) - self.created_at

    @classmethod
    def _fields_from_document(cls, document: dict[str, Any]) -> dict[str, Any]:
        return {**document, "raw": document}
