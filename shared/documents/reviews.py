"""What people find who look at a job's result."""

from datetime import datetime

from pydantic import Field

from shared.documents.base import Document
from shared.states import Finding


class ReviewDocument(Document):
    """A person's finding, kept beside the outcome of the job."""

    finding: Finding
    note: str | None
    reviewed_at: datetime
    reviewer: str = Field(description="The name of the API key by which it was recorded.")
