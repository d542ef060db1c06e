"""The scan of one file in this process: the same pipeline, without a server or database."""

import hashlib
import uuid
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from shared.config import Limits
from shared.containers import MediaLimits, check_size
from shared.documents.jobs import JobDocument
from shared.errors import EmptyFileError
from shared.jobs.segments import JobSegments, SegmentPage, set_result
from shared.manifests import DEFAULT_CHECKPOINT, PACKAGED_MODELS_DIR, find_manifest
from shared.models import Job, Media, Segment, new_id
from shared.states import JobStatus
from shared.storage import BLOCK_BYTES
from worker.config import Provenance, Worker
from worker.media.probe import probe
from worker.media.provenance import read_provenance
from worker.media.segments import plan_segments
from worker.pipeline.detector import Detector
from worker.pipeline.scanning import scan_segments
from worker.tasks.finish import judge


def scan(
    path: Path,
    *,
    model: str | None = None,
    sample_fps: float | None = None,
    segment_seconds: float | None = None,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
    device: str = "cpu",
) -> dict[str, Any]:
    """
    Score the image or video at *path*.

    Args:
        model: Name of a checkpoint; the default checkpoint if not given.
        sample_fps: Sampled frames per second; the checkpoint's default if not given.
        segment_seconds: Length of a segment; the checkpoint's default if not given.
        on_progress: Called with the number of finished segments and their total.

    Returns:
        The job as the API's JSON.

    Raises:
        DeepfakeStreamError: The file cannot be scanned; the code is that of the service.
    """
    job, segments = scan_file(
        path,
        model=model,
        sample_fps=sample_fps,
        segment_seconds=segment_seconds,
        on_progress=on_progress,
        device=device,
    )
    return JobDocument.from_job(job, JobSegments(SegmentPage(segments, last_index=None), done=len(segments))).to_json()


def scan_file(
    path: Path,
    *,
    model: str | None = None,
    sample_fps: float | None = None,
    segment_seconds: float | None = None,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
    device: str = "cpu",
) -> tuple[Job, list[Segment]]:
    """
    Score the image or video at *path*; arguments and errors are those of ``scan``.

    Returns:
        The job, with its media and its facts, and its segments, whose results hold every face; rows of no database.
    """
    limits, worker = Limits(), Worker()
    detector = _load(model or DEFAULT_CHECKPOINT, device)
    sampling = detector.manifest.sampling
    media = _media(path, limits.for_media())
    job = Job(
        id=new_id(),
        owner="local",
        api_key_id=uuid.UUID(int=0),
        status=JobStatus.RUNNING,
        model=detector.manifest.name,
        sample_fps=sample_fps or sampling.sample_fps,
        segment_seconds=segment_seconds or sampling.segment_seconds,
        client_metadata={},
        reasons=[],
        created_at=_now(),
        started_at=_now(),
    )
    facts = probe(path, limits.for_media(), timeout_s=worker.probe_timeout_s)
    media.facts, media.video_bytes, media.presentation = facts.to_json(), facts.video_bytes, facts.presentation()
    found = read_provenance(path, facts.container, trust_anchors_file=None, timeout_s=Provenance().timeout_s)
    media.provenance = found.to_json()
    job.media = media
    plan = plan_segments(facts.duration_s, job.segment_seconds, first_s=facts.first_s, pictures=facts.frame_count)
    job.segments_total = len(plan)
    segments = []
    on_progress(0, len(plan))
    results = scan_segments(
        detector,
        path,
        facts,
        plan,
        sample_fps=job.sample_fps,
        timeout_s=worker.decode_timeout_s,
        limits=limits.for_media(),
    )
    with closing(results):
        for part, result in zip(plan, results, strict=True):
            segment = Segment(job_id=job.id, index=part.index, start_s=part.start_s, end_s=part.end_s)
            segment.status = set_result(
                segment, fake_score=result.fake_score, result=result.to_json(), looks=result.looks
            )
            segments.append(segment)
            on_progress(len(segments), len(plan))
    judge(job, segments, detector.manifest).write_to(job)
    job.status, job.finished_at = JobStatus.SUCCEEDED, _now()
    return job, segments


@lru_cache(maxsize=1)
def _load(model: str, device: str) -> Detector:
    """Load the detector, once for all files of a command."""
    find_manifest(PACKAGED_MODELS_DIR, model)
    return Detector.load(PACKAGED_MODELS_DIR, model, device)


def _media(path: Path, limits: MediaLimits) -> Media:
    size_bytes = path.stat().st_size
    if size_bytes == 0:
        raise EmptyFileError("the file is empty")
    check_size(size_bytes, limits)
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
    return Media(sha256=digest.hexdigest(), size_bytes=size_bytes, storage_key=None)


def _now() -> datetime:
    return datetime.now(UTC)
