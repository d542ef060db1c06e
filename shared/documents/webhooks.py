"""Documents of webhooks: the log of attempts, and the payload."""

from datetime import datetime
from typing import Annotated

from pydantic import Field

from shared.documents.base import DeclaredType, Document
from shared.documents.jobs import JobDocument
from shared.errors import Code
from shared.jobs.segments import JobSegments
from shared.models import Delivery, Job
from shared.states import DeliveryStatus


class DeliveryDocument(Document):
    """One attempt to deliver a webhook."""

    number: int
    event_id: str = Field(description="The `webhook-id`, the same in every attempt.")
    event: str
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


class WebhookPayload(Document):
    """
    The body of a webhook about the end of a job: the event, when it happened, and the job.

    The job is as ``GET /v1/jobs/{id}`` gives it.
    """

    type: str
    timestamp: datetime | None
    data: JobDocument

    @classmethod
    def from_job(cls, event: str, job: Job, segments: JobSegments) -> "WebhookPayload":
        """Build the payload for an *event* of a job that has ended."""
        document = JobDocument.from_job(job, segments)
        # An explanation may be made between two attempts, which are to say the same.
        return cls(type=event, timestamp=job.finished_at, data=document.model_copy(update={"explanation": None}))
