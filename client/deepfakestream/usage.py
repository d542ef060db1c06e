"""Typed results of usage: what was analysed, by day and key."""

from datetime import date
from typing import Annotated, Any

from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass

from deepfakestream.results import Count, Document, Number


def _parse_day(value: Any) -> Any:
    """Parse a date in ISO 8601; pydantic would accept numbers, and strings of digits, as seconds."""
    if isinstance(value, str):
        return date.fromisoformat(value)
    # A datetime is a date as well, and would lose its time.
    if type(value) is not date:
        raise ValueError("not a date in ISO 8601")
    return value


Day = Annotated[date, BeforeValidator(_parse_day)]


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageTotals(Document):
    """What was analysed."""

    jobs: Count
    """Jobs that ended, whatever their outcome."""
    media: Count
    """Jobs of which at least one segment was analysed."""
    seconds: Number
    """Duration of the analysed segments; images have none."""
    faces: Count
    """Scored faces."""
    bytes: Count
    """Size of the files of these media; live streams have none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageDay(UsageTotals):
    """What was analysed for one key on one day."""

    day: Day
    """In UTC, by the end of the jobs."""
    api_key_id: str
    key_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage(Document):
    """What was analysed for you, by day and key."""

    first_day: Day
    last_day: Day
    total: UsageTotals
    items: tuple[UsageDay, ...] = ()
    """In order of days; days without any job are left out."""
    raw: dict[str, Any] = Field(repr=False)
    """The document of the service."""

    @classmethod
    def _fields_from_document(cls, document: dict[str, Any]) -> dict[str, Any]:
        return {**document, "raw": document}
