"""Documents of batches: counts, items and their jobs."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import Field

from shared.documents.base import EVENTS_SENT, DeclaredType, Document, ErrorDocument, Score
from shared.models import Batch, BatchItem
from shared.states import JobStatus, Reason, Verdict, WebhookEvent


class BatchCounts(Document):
    """How many items of a batch are in which state; together they are ``total``."""

    total: int
    queued: int = 0
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    refused: int = Field(default=0, description="Items that made no job; each says why in `error`.")
    erased: int = Field(default=0, description="Items whose job was erased.")


class BatchSummary(Document):
    """A batch without its items, as the webhook `batch.ended` and the list of batches have it."""

    id: UUID
    created_at: datetime
    ended_at: datetime | None = Field(description="Null while a job of it is open.")
    webhook_url: str | None
    webhook_events: Annotated[list[Any] | None, DeclaredType(list[WebhookEvent] | None)] = Field(
        description=EVENTS_SENT
    )
    metadata: Annotated[dict[str, Any], DeclaredType(dict[str, Any])]
    counts: BatchCounts
    verdicts: dict[str, int] = Field(description="Number of jobs that succeeded, by verdict.")


class BatchItemDocument(Document):
    """One item of a batch: its job, or why it was refused."""

    index: int = Field(description="Place in the request, from 0.")
    job_id: UUID | None = Field(description="Null if the item was refused, or its job was erased.")
    status: Annotated[str, DeclaredType(JobStatus)] | None = Field(description="Null without a job.")
    verdict: Annotated[str | None, DeclaredType(Verdict | None)]
    fake_score: Annotated[float | None, DeclaredType(Score | None)]
    reasons: Annotated[list[Any], DeclaredType(list[Reason])]
    metadata: Annotated[dict[str, Any], DeclaredType(dict[str, Any])]
    error: ErrorDocument | None = Field(description="Why the item was refused, or why its job failed.")

    @classmethod
    def from_row(cls, item: BatchItem) -> "BatchItemDocument":
        """Build the document of an item with its job."""
        job = None if item.job is None or item.job.deleted_at is not None else item.job
        if job is None:
            error = ErrorDocument.from_columns(item.error_code, item.error_detail)
            return cls(
                index=item.index,
                job_id=None,
                status=None,
                verdict=None,
                fake_score=None,
                reasons=[],
                metadata={},
                error=error,
            )
        return cls(
            index=item.index,
            job_id=job.id,
            status=job.status,
            verdict=job.verdict,
            fake_score=job.fake_score,
            reasons=job.reasons,
            metadata=job.client_metadata,
            error=ErrorDocument.from_columns(job.error_code, job.error_detail),
        )


class BatchDocument(BatchSummary):
    """A batch with a page of its items."""

    items: list[BatchItemDocument]
    next_cursor: str | None = Field(description="The `cursor` for the other items; null if there are none.")


class BatchList(Document):
    """A page of batches, newest first."""

    items: list[BatchSummary]
    next_cursor: str | None


def summarise(batch: Batch, counts: Mapping[str, int], verdicts: Mapping[str, int]) -> BatchSummary:
    """
    Return the document of *batch*.

    Args:
        counts: Number of items by the field of ``BatchCounts``, without the total.
        verdicts: Number of jobs by verdict.
    """
    known = {name: number for name, number in counts.items() if name in BatchCounts.model_fields}
    return BatchSummary(
        id=batch.id,
        created_at=batch.created_at,
        ended_at=batch.ended_at,
        webhook_url=batch.webhook_url,
        webhook_events=batch.webhook_events,
        metadata=batch.client_metadata,
        counts=BatchCounts(total=sum(counts.values()), **known),
        verdicts=dict(verdicts),
    )
