"""Documents of usage."""

import datetime as dt
from uuid import UUID

from pydantic import Field, field_validator

from shared.documents.base import Document


class UsageTotals(Document):
    """What was analysed."""

    jobs: int = Field(description="Jobs that ended, whatever their outcome.")
    media: int = Field(description="Jobs of which at least one segment was analysed.")
    seconds: float = Field(description="Duration of the analysed segments; images have none.")
    faces: int = Field(description="Scored faces.")
    bytes: int = Field(description="Size of the files of these media; live streams have none.")

    @field_validator("seconds")
    @classmethod
    def _round(cls, seconds: float) -> float:
        """Round to milliseconds: sums have digits that say nothing."""
        return round(seconds, 3)


class UsageDay(UsageTotals):
    """What was analysed for one key on one day."""

    day: dt.date = Field(description="In UTC, by the end of the jobs.")
    api_key_id: UUID
    key_name: str


class UsageDocument(Document):
    """What was analysed for an owner, by day and key."""

    first_day: dt.date
    last_day: dt.date
    total: UsageTotals
    items: list[UsageDay] = Field(description="In order of days; days without any job are left out.")
