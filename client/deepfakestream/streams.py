"""Typed results of live streams and their events."""

from typing import Any, Final

from pydantic import Field
from pydantic.dataclasses import dataclass

from deepfakestream.results import Count, Document, Number, Problem, Timestamp

FINAL_STREAM_STATUSES: Final = frozenset({"succeeded", "failed", "cancelled"})


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamEvent(Document):
    """An event of a stream."""

    seq: Count
    """1 for the first event, then consecutive."""
    kind: str
    """``source``, ``segment``, ``alert`` or ``ended``; later releases may add others."""
    created_at: Timestamp
    data: dict[str, Any] = Field(repr=False)
    """What happened; docs/streams.md lists the fields of each kind. Times are seconds since the first picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Push(Document):
    """Where a publisher sends a stream."""

    protocol: str
    address: str
    """The server's address for the publisher."""
    key: str | None = Field(default=None, repr=False)
    """The stream key, which the service shows once: in what ``begin_stream`` returns. None otherwise."""

    @property
    def url(self) -> str | None:
        """Address and key in one, for programs that take them so; None without the key."""
        return None if self.key is None else f"{self.address}/{self.key}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream(Document):
    """A live stream."""

    id: str
    """Also the id of its job, for ``Client.get`` and reports."""
    status: str
    """That of its job."""
    state: str
    """``waiting``, ``connected``, ``away``, ``ending`` or ``ended``."""
    source: str
    """Scheme and host of the source."""
    push: Push | None = None
    """Where its publisher sends it; None for a stream that the service connects to itself."""
    verdict: str | None = None
    """Of the whole stream; None until it has ended."""
    fake_score: Number | None = None
    reasons: tuple[str, ...] = ()
    error: Problem | None = None
    source_error: Problem | None = None
    """Why the source was away last."""
    last_seq: Count
    """Number of the last event."""
    events: tuple[StreamEvent, ...] = Field(default=(), repr=False)
    """The events that were asked for."""
    poll_after_s: Number | None = None
    """When the service asks to be asked again; None once the stream has ended, and from older services."""
    raw: dict[str, Any] = Field(repr=False)
    """The document of the service."""

    @property
    def is_final(self) -> bool:
        """Whether the stream has ended."""
        return self.status in FINAL_STREAM_STATUSES

    @classmethod
    def _fields_from_document(cls, document: dict[str, Any]) -> dict[str, Any]:
        return {**document, "raw": document}
