"""Links to the report of a job."""

from datetime import datetime
from uuid import UUID

from pydantic import Field

from shared.documents.base import Document


class ShareDocument(Document):
    """A link, without the secret in it."""

    id: UUID
    created_at: datetime
    expires_at: datetime


class NewShareDocument(ShareDocument):
    """A link as it is shown once, when it is made."""

    url: str = Field(description="Shows the report to whoever has it, until `expires_at`. It is not shown again.")


class ShareList(Document):
    """The links of a job that work, newest first."""

    items: list[ShareDocument]
