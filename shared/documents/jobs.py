"""Documents of jobs: progress, media, options and result."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import Field

from shared.cursors import write_cursor
from shared.documents.base import EVENTS_SENT, DeclaredType, Document, ErrorDocument, Score
from shared.documents.explanations import ExplanationState
from shared.documents.findings import EvidenceDocument, ModelDescription, PersonVerdictDocument, SuspicionDocument
from shared.documents.provenance import ProvenanceDocument
from shared.documents.reviews import ReviewDocument
from shared.documents.segments import SegmentSummary
from shared.jobs.segments import JobSegments
from shared.models import Job, Media
from shared.states import JobStatus, Reason, Verdict, WebhookEvent


class Progress(Document):
    """The progress of a job."""

    segments_total: int | None = Field(description="Null until the file has been inspected.")
    segments_done: int
    fraction: Annotated[float, DeclaredType(Score)]

    @classmethod
    def from_job(cls, job: Job, segments_done: int) -> "Progress":
        """Return the progress of *job*. A job that succeeded is complete even if segments failed."""
        total = job.segments_total
        # Rows that were changed by hand may be counted twice, which must not cause a server error.
        share = min(1.0, round(segments_done / total, 4)) if total else 0.0
        fraction = 1.0 if job.status == JobStatus.SUCCEEDED else share
        return cls(segments_total=total, segments_done=segments_done, fraction=fraction)


class MediaDocument(Document):
    """The analysed file. Facts are null until it has been probed."""

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
        description="End of the last frame, in the time that players show; null for images."
    )
    frame_rate: Annotated[float | None, DeclaredType(float | None)]
    frame_count: Annotated[int | None, DeclaredType(int | None)]
    truncated: Annotated[bool | None, DeclaredType(bool | None)] = Field(
        description="Whether part of the file is missing or damaged."
    )
    video_track: Annotated[int | None, DeclaredType(int | None)] = Field(
        description="The track that was analysed, which players show by default; counted from 0 among all tracks."
    )
    other_video_tracks: Annotated[int | None, DeclaredType(int | None)] = Field(
        description="Number of other video tracks, which were not analysed."
    )
    dynamic_range: Annotated[str | None, DeclaredType(Literal["sdr", "pq", "hlg"] | None)] = Field(
        description="`pq` (HDR10, Dolby Vision) and `hlg` are tone-mapped to SDR before detection."
    )

    @classmethod
    def from_media(cls, media: Media | None) -> "MediaDocument | None":
        """Build the document of *media*; None until a URL source has been fetched."""
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
"""Fields from the column ``presentation``; null also in rows of older releases."""

MEDIA_FACTS = tuple(
    name for name in MediaDocument.model_fields if name not in {"sha256", "size_bytes", "stored", *PRESENTATION}
)
"""Fields from the column ``facts``; null until the file has been probed."""


class OptionsDocument(Document):
    """The options of a job."""

    model: str
    sample_fps: float
    segment_seconds: float
    webhook_url: str | None
    webhook_events: Annotated[list[Any] | None, DeclaredType(list[WebhookEvent] | None)] = Field(
        description=EVENTS_SENT
    )


class _Job(Document):
    """Fields that the summary and the whole document of a job share."""

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
        description="Mean over scored segments; 1 means fake. The model card says how reliable it is."
    )
    peak_score: Annotated[float | None, DeclaredType(Score | None)] = Field(
        description="The score of the highest-scoring segment."
    )
    verdict: Annotated[str | None, DeclaredType(Verdict | None)]
    reasons: Annotated[list[Any], DeclaredType(list[Reason])] = Field(
        description="Why the verdict is not simply that of the score."
    )
    evidence: Annotated[dict[str, Any] | None, DeclaredType(EvidenceDocument | None)] = Field(
        description="Null until the verdict, and in results of older releases."
    )
    model: Annotated[dict[str, Any] | None, DeclaredType(ModelDescription | None)]
    reused_from: UUID | None = Field(description="The job whose scores were reused instead of scoring again.")
    parent_id: UUID | None = Field(description="The job whose media this one scores again.")
    review: Annotated[dict[str, Any] | None, DeclaredType(ReviewDocument | None)] = Field(
        description="What a person found; the verdict is not changed by it."
    )
    explanation: ExplanationState | None = Field(
        description="Null if none was requested, and in webhooks; see `GET /v1/jobs/{id}/explanations`."
    )
    error: ErrorDocument | None


class JobSummary(_Job):
    """A job without its segments."""

    @classmethod
    def from_job(cls, job: Job, segments_done: int) -> "JobSummary":
        """Build the document of *job* for lists."""
        return cls(**_fields(job, segments_done))


class JobDocument(_Job):
    """A job with the scores so far."""

    provenance: Annotated[dict[str, Any] | None, DeclaredType(ProvenanceDocument | None)] = Field(
        description="The Content Credentials in the file, which are no part of the score. Null until it has been"
        " inspected, and for media that an earlier release inspected."
    )
    people_total: Annotated[int | None, DeclaredType(int | None)] = Field(
        description="Number of distinct people; `people` lists at most 100 of them."
    )
    people: Annotated[list[Any] | None, DeclaredType(list[PersonVerdictDocument] | None)] = Field(
        description="Null until the verdict, and in results of releases that did not follow people."
    )
    suspicious: Annotated[list[Any] | None, DeclaredType(list[SuspicionDocument] | None)] = Field(
        description="Suspicious intervals in order of time; empty if there are none, and for images of a single page."
    )
    segments: list[SegmentSummary] = Field(description="The first 100 segments; see `segments_next_cursor`.")
    segments_next_cursor: str | None = Field(
        description="The `cursor` of `GET /v1/jobs/{id}/segments` for the other segments; null if there are none."
    )

    @classmethod
    def from_job(cls, job: Job, segments: JobSegments) -> "JobDocument":
        """Build the whole document of *job*."""
        findings, last = job.findings or {}, segments.first.last_index
        return cls(
            **_fields(job, segments.done),
            provenance=None if job.media is None else job.media.provenance,
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
            webhook_events=job.webhook_events,
        ),
        "metadata": job.client_metadata,
        "fake_score": job.fake_score,
        "peak_score": job.peak_score,
        "verdict": job.verdict,
        "reasons": job.reasons,
        "evidence": job.evidence,
        "model": job.model_description,
        "reused_from": job.reused_from,
        "parent_id": job.parent_id,
        "review": job.review,
        "explanation": ExplanationState.from_job(job),
        "error": ErrorDocument.from_columns(job.error_code, job.error_detail),
    }


class JobList(Document):
    """A page of jobs, newest first."""

    items: list[JobSummary]
    next_cursor: str | None
