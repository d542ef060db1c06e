"""Jobs: their progress, their media, what they were asked to do, and their result."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import Field

from shared.cursors import write_cursor
from shared.documents.base import DeclaredType, Document, ErrorDocument, Score
from shared.documents.findings import EvidenceDocument, ModelDescription, PersonVerdictDocument, SuspicionDocument
from shared.documents.segments import SegmentSummary
from shared.jobs.segments import JobSegments
from shared.models import Job, Media
from shared.states import JobStatus, Reason, Verdict


class Progress(Document):
    """How far a job is."""

    segments_total: int | None = Field(description="Null before the file was inspected.")
    segments_done: int
    fraction: Annotated[float, DeclaredType(Score)]

    @classmethod
    def from_job(cls, job: Job, segments_done: int) -> "Progress":
        """The progress of *job*; one that succeeded is done whatever its segments are."""
        total = job.segments_total
        # Rows that a person has changed by hand may be counted twice, and are no error of the server.
        share = min(1.0, round(segments_done / total, 4)) if total else 0.0
        fraction = 1.0 if job.status == JobStatus.SUCCEEDED else share
        return cls(segments_total=total, segments_done=segments_done, fraction=fraction)


class MediaDocument(Document):
    """The file; probed facts are null before the probe."""

    sha256: str
    size_bytes: int
    stored: bool = Field(description="False once the file is erased.")
    kind: Annotated[str | None, DeclaredType(Literal["image", "video"] | None)]
    container: Annotated[str | None, DeclaredType(str | None)]
    codec: Annotated[str | None, DeclaredType(str | None)]
    width_px: Annotated[int | None, DeclaredType(int | None)] = Field(description="As displayed.")
    height_px: Annotated[int | None, DeclaredType(int | None)]
    rotation_deg: Annotated[int | None, DeclaredType(int | None)]
    duration_s: Annotated[float | None, DeclaredType(float | None)] = Field(
        description="When the last picture ends, on the clock that players show; null for images."
    )
    frame_rate: Annotated[float | None, DeclaredType(float | None)]
    frame_count: Annotated[int | None, DeclaredType(int | None)]
    truncated: Annotated[bool | None, DeclaredType(bool | None)] = Field(
        description="Whether part of the file is missing or damaged."
    )
    video_track: Annotated[int | None, DeclaredType(int | None)] = Field(
        description="The track that was looked at, counted from 0 among all of the file: the one that players show."
    )
    other_video_tracks: Annotated[int | None, DeclaredType(int | None)] = Field(
        description="Tracks that a player could show, and nobody looked at."
    )
    dynamic_range: Annotated[str | None, DeclaredType(Literal["sdr", "pq", "hlg"] | None)] = Field(
        description="`pq` (HDR10, Dolby Vision) and `hlg` are mapped to SDR before faces are looked for."
    )

    @classmethod
    def from_media(cls, media: Media | None) -> "MediaDocument | None":
        """What is known of *media*; None before a URL source was fetched."""
        if media is None:
            return None
        facts, presentation = media.facts or {}, media.presentation or {}
        return cls(
            sha256=media.sha256,
            size_bytes=media.size_bytes,
            stored=media.storage_key is not None,
            **{name: facts.get(name) for name in MEDIA_FACTS},
            **{name: presentation.get(name) for name in PRESENTATION},
        )


PRESENTATION = ("video_track", "other_video_tracks", "dynamic_range")
"""Fields that the media's row keeps by themselves; null also where a release from before probed."""

MEDIA_FACTS = tuple(
    name for name in MediaDocument.model_fields if name not in {"sha256", "size_bytes", "stored", *PRESENTATION}
)
"""Probed facts that clients see; all null before the probe."""


class OptionsDocument(Document):
    """What the job was asked to do."""

    model: str
    sample_fps: float
    segment_seconds: float
    webhook_url: str | None


class _Job(Document):
    """What both forms of a job have in common."""

    id: UUID
    status: Annotated[str, DeclaredType(JobStatus)]
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    progress: Progress
    media: MediaDocument | None
    options: OptionsDocument
    metadata: Annotated[dict[str, Any], DeclaredType(dict[str, Any])]
    fake_score: Annotated[float | None, DeclaredType(Score | None)] = Field(
        description="Mean over scored segments; 1 means fake. How far to trust it stands in the model card."
    )
    peak_score: Annotated[float | None, DeclaredType(Score | None)] = Field(description="The highest segment.")
    verdict: Annotated[str | None, DeclaredType(Verdict | None)]
    reasons: Annotated[list[Any], DeclaredType(list[Reason])] = Field(
        description="Why the verdict is not simply the score's."
    )
    evidence: Annotated[dict[str, Any] | None, DeclaredType(EvidenceDocument | None)] = Field(
        description="Null before the verdict, and in results from before it was recorded."
    )
    model: Annotated[dict[str, Any] | None, DeclaredType(ModelDescription | None)]
    reused_from: UUID | None = Field(description="The job whose scores were taken over instead of scoring again.")
    error: ErrorDocument | None


class JobSummary(_Job):
    """A job without its segments."""

    @classmethod
    def from_job(cls, job: Job, segments_done: int) -> "JobSummary":
        """The document of *job* as it stands in lists."""
        return cls(**_fields(job, segments_done))


class JobDocument(_Job):
    """A job with the scores so far."""

    people_total: Annotated[int | None, DeclaredType(int | None)] = Field(
        description="How many people were distinguished; `people` lists 100 of them at most."
    )
    people: Annotated[list[Any] | None, DeclaredType(list[PersonVerdictDocument] | None)] = Field(
        description="Null before the verdict, and in results from before people were followed."
    )
    suspicious: Annotated[list[Any] | None, DeclaredType(list[SuspicionDocument] | None)] = Field(
        description="In order of time; empty where nothing stands out, and for images of a single page."
    )
    segments: list[SegmentSummary] = Field(description="The first 100 of them; see `segments_next_cursor`.")
    segments_next_cursor: str | None = Field(
        description="A `cursor` for `GET /v1/jobs/{id}/segments`, which has the rest; null where `segments` has all."
    )

    @classmethod
    def from_job(cls, job: Job, segments: JobSegments) -> "JobDocument":
        """The whole document of *job*."""
        findings, last = job.findings or {}, segments.first.last_index
        return cls(
            **_fields(job, segments.done),
            people_total=findings.get("people_total"),
            people=findings.get("people"),
            suspicious=findings.get("suspicious"),
            segments=[SegmentSummary.from_row(row) for row in segments.first.rows],
            segments_next_cursor=None if last is None else write_cursor(last),
        )


def _fields(job: Job, segments_done: int) -> dict[str, Any]:
    return {
        "id": job.id,
        "status": job.status,
        "created_at": job.created_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
        "progress": Progress.from_job(job, segments_done),
        "media": MediaDocument.from_media(job.media),
        "options": OptionsDocument(
            model=job.model,
            sample_fps=job.sample_fps,
            segment_seconds=job.segment_seconds,
            webhook_url=job.webhook_url,
        ),
        "metadata": job.client_metadata,
        "fake_score": job.fake_score,
        "peak_score": job.peak_score,
        "verdict": job.verdict,
        "reasons": job.reasons,
        "evidence": job.evidence,
        "model": job.model_description,
        "reused_from": job.reused_from,
        "error": ErrorDocument.from_columns(job.error_code, job.error_detail),
    }


class JobList(Document):
    """A page of jobs, newest first."""

    items: list[JobSummary]
    next_cursor: str | None
