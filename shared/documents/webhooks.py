"""Documents of webhooks: the log of attempts, and the payload of each event."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field

from shared.documents.base import DeclaredType, Document
from shared.documents.batches import BatchSummary
from shared.documents.jobs import JobDocument
from shared.documents.streams import AlertDocument
from shared.errors import Code
from shared.jobs.segments import JobSegments
from shared.models import Delivery, Job
from shared.states import DeliveryStatus, WebhookEvent


class DeliveryDocument(Document):
    """One attempt to deliver a webhook."""

    number: int
    event_id: str = Field(description="The `webhook-id`, the same in every attempt.")
    event: Annotated[str, DeclaredType(WebhookEvent)]
    url: str
    status: Annotated[str, DeclaredType(DeliveryStatus)]
    due_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    response_status: int | None
    response_excerpt: str | None = Field(description="At most 1 KB.")
    error_code: Annotated[str | None, DeclaredType(Code | None)]

    @classmethod
    def from_delivery(cls, delivery: Delivery) -> "DeliveryDocument":
        """Build the document of one attempt."""
        return cls(**{name: getattr(delivery, name) for name in cls.model_fields})


class DeliveryList(Document):
    """The webhook log of a job."""

    items: list[DeliveryDocument]


class JobPayload(Document):
    """
    The body of a webhook about the end of a job: the event, when it happened, and the job.

    The job is as ``GET /v1/jobs/{id}`` gives it.
    """

    type: Annotated[str, DeclaredType(WebhookEvent)]
    timestamp: Annotated[datetime | None, DeclaredType(datetime)] = Field(description="When the job ended.")
    data: JobDocument

    @classmethod
    def from_job(cls, event: str, job: Job, segments: JobSegments) -> Self:
        """Build the payload for an *event* of a job that has ended."""
        document = JobDocument.from_job(job, segments)
        # An explanation may be made between two attempts, which are to say the same.
        return cls(type=event, timestamp=job.finished_at, data=document.model_copy(update={"explanation": None}))


class StoredPayload(Document):
    """The body of a webhook whose data was stored when the event happened."""

    type: Annotated[str, DeclaredType(WebhookEvent)]
    timestamp: Annotated[Any, DeclaredType(datetime)] = Field(description="When it happened.")
    data: Annotated[dict[str, Any], DeclaredType(dict[str, Any])]

    @classmethod
    def from_delivery(cls, delivery: Delivery) -> Self:
        """Build the payload of a *delivery* with stored data, which an earlier release may have stored."""
        data = delivery.payload or {}
        return cls(type=delivery.event, timestamp=data.get("ended_at") or data.get("created_at"), data=data)


class JobSucceededPayload(JobPayload):
    """The body of the webhook `job.succeeded`."""

    type: Annotated[str, DeclaredType(Literal[WebhookEvent.JOB_SUCCEEDED])]


class JobFailedPayload(JobPayload):
    """The body of the webhook `job.failed`: the job's `error` says why."""

    type: Annotated[str, DeclaredType(Literal[WebhookEvent.JOB_FAILED])]


class JobCancelledPayload(JobPayload):
    """The body of the webhook `job.cancelled`."""

    type: Annotated[str, DeclaredType(Literal[WebhookEvent.JOB_CANCELLED])]


class StreamEndedPayload(JobPayload):
    """The body of the webhook `stream.ended`: the job of the stream."""

    type: Annotated[str, DeclaredType(Literal[WebhookEvent.STREAM_ENDED])]


class StreamAlertPayload(StoredPayload):
    """The body of the webhook `stream.alert`."""

    type: Annotated[str, DeclaredType(Literal[WebhookEvent.STREAM_ALERT])]
    data: Annotated[dict[str, Any], DeclaredType(AlertDocument)]


class BatchEndedPayload(StoredPayload):
    """The body of the webhook `batch.ended`: the batch without its items."""

    type: Annotated[str, DeclaredType(Literal[WebhookEvent.BATCH_ENDED])]
    data: Annotated[dict[str, Any], DeclaredType(BatchSummary)]


PAYLOADS: Final[Mapping[WebhookEvent, type[JobPayload | StoredPayload]]] = {
    WebhookEvent.JOB_SUCCEEDED: JobSucceededPayload,
    WebhookEvent.JOB_FAILED: JobFailedPayload,
    WebhookEvent.JOB_CANCELLED: JobCancelledPayload,
    WebhookEvent.STREAM_ALERT: StreamAlertPayload,
    WebhookEvent.STREAM_ENDED: StreamEndedPayload,
    WebhookEvent.BATCH_ENDED: BatchEndedPayload,
}
"""Event → model of its body."""
