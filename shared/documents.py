"""
Jobs, segments and checkpoints as JSON documents: one form for the API, webhooks and local scans.

The api's schemas describe and check exactly these documents.
"""

from datetime import datetime
from pathlib import Path
from typing import Any

from shared.cursors import write_cursor
from shared.jobs.segments import JobSegments
from shared.manifests import DEFAULT_CHECKPOINT, PACKAGED_MODELS_DIR, Manifest, list_manifests
from shared.models import Delivery, Job


def job_document(job: Job, segments: JobSegments) -> dict[str, Any]:
    """A job with its progress and the scores so far, and its first segments."""
    findings = job.findings or {}
    last = segments.first.last_index
    return {
        **job_summary(job, segments.done),
        "people_total": findings.get("people_total"),
        "people": findings.get("people"),
        "suspicious": findings.get("suspicious"),
        "segments": [segment_summary(segment) for segment in segments.first.rows],
        "segments_next_cursor": None if last is None else write_cursor(last),
    }


def job_summary(job: Job, segments_done: int) -> dict[str, Any]:
    """A job without its segments, as it stands in lists."""
    total = job.segments_total
    return {
        "id": str(job.id),
        "status": job.status,
        "created_at": _time(job.created_at),
        "started_at": _time(job.started_at),
        "finished_at": _time(job.finished_at),
        "progress": {
            "segments_total": total,
            "segments_done": segments_done,
            "fraction": 1.0 if job.status == "succeeded" else round(segments_done / total, 4) if total else 0.0,
        },
        "media": media_document(job),
        "options": {
            "model": job.model,
            "sample_fps": job.sample_fps,
            "segment_seconds": job.segment_seconds,
            "webhook_url": job.webhook_url,
        },
        "metadata": job.client_metadata,
        "fake_score": job.fake_score,
        "peak_score": job.peak_score,
        "verdict": job.verdict,
        "reasons": job.reasons,
        "evidence": job.evidence,
        "model": job.model_description,
        "reused_from": str(job.reused_from) if job.reused_from else None,
        "error": _error(job.error_code, job.error_detail),
    }


def media_document(job: Job) -> dict[str, Any] | None:
    """What is known of the job's media; null before a URL source was fetched."""
    media = job.media
    if media is None:
        return None
    facts, presentation = media.facts or {}, media.presentation or {}
    return {
        "sha256": media.sha256,
        "size_bytes": media.size_bytes,
        "stored": media.storage_key is not None,
        **{name: facts.get(name) for name in MEDIA_FACTS},
        **{name: presentation.get(name) for name in PRESENTATION},
    }


MEDIA_FACTS = (
    "kind",
    "container",
    "codec",
    "width_px",
    "height_px",
    "rotation_deg",
    "duration_s",
    "frame_rate",
    "frame_count",
    "truncated",
)
"""Probed facts that clients see; all null before the probe."""

PRESENTATION = ("video_track", "other_video_tracks", "dynamic_range")
"""More of them; null also where a release from before probed."""


def segment_summary(segment: Any) -> dict[str, Any]:
    """A segment without its faces, as it stands in the job's document; *segment* has the columns of ``SUMMARY``."""
    return {
        "index": segment.index,
        "start_s": segment.start_s,
        "end_s": segment.end_s,
        "status": segment.status,
        "fake_score": segment.fake_score,
        "reasons": segment.reasons,
        "people": segment.people_count,
        "faces_found": segment.faces_found,
        "faces_scored": segment.faces_scored,
        "frames_decoded": segment.frames_decoded,
        "engine": segment.engine,
        "error": _error(segment.error_code, segment.error_detail),
    }


def segment_document(segment: Any) -> dict[str, Any]:
    """A segment with its people and every face found: boxes in pixels, times in seconds of the media."""
    return {
        **segment_summary(segment),
        "started_at": _time(segment.started_at),
        "finished_at": _time(segment.finished_at),
        "people": segment.people or [],
    }


def delivery_document(delivery: Delivery) -> dict[str, Any]:
    """One line of the webhook log."""
    return {
        "number": delivery.number,
        "event_id": delivery.event_id,
        "event": delivery.event,
        "url": delivery.url,
        "status": delivery.status,
        "due_at": _time(delivery.due_at),
        "started_at": _time(delivery.started_at),
        "finished_at": _time(delivery.finished_at),
        "response_status": delivery.response_status,
        "response_excerpt": delivery.response_excerpt,
        "error_code": delivery.error_code,
    }


def webhook_payload(event: str, job: Job, segments: JobSegments) -> dict[str, Any]:
    """The body of a webhook: the event, when it happened, and the job as ``GET /v1/jobs/{id}`` gives it."""
    return {"type": event, "timestamp": _time(job.finished_at), "data": job_document(job, segments)}


def checkpoint_document(manifest: Manifest, models_dir: Path, *, is_default: bool) -> dict[str, Any]:
    """A checkpoint with its model card."""
    card = models_dir / manifest.name / "MODEL_CARD.md"
    return {
        "name": manifest.name,
        "version": manifest.version,
        "trained": manifest.trained,
        "is_default": is_default,
        "threshold": manifest.calibration.threshold,
        "uncertainty_band": list(manifest.calibration.uncertainty_band),
        **manifest.calibration.model_dump(mode="json", include={"bounds", "min_bits_per_pixel"}),
        "sampling": manifest.sampling.model_dump(),
        "weights_sha256": manifest.weights.sha256,
        "training_data": manifest.training_data,
        "metrics": manifest.metrics,
        "licence": manifest.licence,
        "model_card": card.read_text() if card.exists() else "",
    }


def installed_checkpoints() -> list[dict[str, Any]]:
    """The checkpoints that come with the project, for the command line where no service answers."""
    return [
        checkpoint_document(manifest, PACKAGED_MODELS_DIR, is_default=manifest.name == DEFAULT_CHECKPOINT)
        for manifest in list_manifests(PACKAGED_MODELS_DIR).values()
    ]


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat().replace("+00:00", "Z")


def _error(code: str | None, detail: str | None) -> dict[str, str] | None:
    return None if code is None else {"code": code, "detail": detail or ""}
