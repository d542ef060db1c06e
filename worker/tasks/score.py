"""The step score: one segment is scored. It is the only task that needs the network."""

import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from shared.errors import JobCancelledError, ObjectMissingError
from shared.jobs.leases import Lease, Step
from shared.jobs.queries import get_job
from shared.jobs.results import record_segment
from shared.manifests import Manifest
from shared.models import Segment
from shared.observability import FACES, FRAMES, GPU_MEMORY, GPU_UTILISATION, STAGE_SECONDS, get_logger
from shared.streams.faces import keeps_last_faces, record_faces
from worker.media import segments
from worker.media.probe import MediaFacts, probe
from worker.pipeline.detector import Detector
from worker.pipeline.devices import read_device_state
from worker.pipeline.results import SegmentResult
from worker.pipeline.scanning import scan_segments
from worker.pipeline.stages import Stages
from worker.tasks.context import Context
from worker.tasks.loading import cache_by_manifest
from worker.tasks.steps import IsLost, run_step

log = get_logger(__name__)


Detectors = Callable[[Manifest], Detector]
"""Returns the detector of the manifest that a job has pinned; raises ModelError if its weights are not installed."""


def load_detectors(models_dir: Path, device: str) -> Detectors:
    """Make a cache of the two detectors on *device* that were used last; each is loaded at its first use."""
    return cache_by_manifest(lambda manifest: Detector.load_pinned(models_dir, manifest, device), max_loaded=2)


def score_segment(context: Context, detectors: Detectors, job_id: uuid.UUID, index: int) -> None:
    """Score one segment, unless it is done or another worker scores it."""
    run_step(context, Step.SCORE, (job_id, index), partial(_score, context, detectors, index))


def _score(context: Context, detectors: Detectors, index: int, lease: Lease, is_lost: IsLost) -> None:
    began, stages = time.monotonic(), Stages()
    try:
        result = _scan_segment(context, detectors, lease, index, is_lost, stages)
        with stages.measure("record"), context.sessions.transaction() as session:
            record_segment(session, lease, fake_score=result.fake_score, result=result.to_json(), looks=result.looks)
            pictures = [(picture.person, picture.time_s, picture.jpeg) for picture in result.newest_faces]
            record_faces(session, lease.job_id, index, pictures)
    finally:
        for stage, seconds in stages.seconds.items():
            STAGE_SECONDS.labels(stage=stage).observe(seconds)
    FRAMES.inc(result.frames_decoded)
    FACES.labels(scored="yes").inc(result.faces_scored)
    FACES.labels(scored="no").inc(result.faces_found - result.faces_scored)
    log.info(
        "scored",
        fake_score=result.fake_score,
        frames=result.frames_decoded,
        faces=result.faces_found,
        seconds=round(time.monotonic() - began, 3),
    )


def _scan_segment(
    context: Context, detectors: Detectors, lease: Lease, index: int, is_lost: IsLost, stages: Stages
) -> SegmentResult:
    with context.sessions.transaction() as session:
        job = get_job(session, lease.job_id)
        if job is None:
            raise JobCancelledError("the job was deleted")
        segment = session.get_one(Segment, (lease.job_id, index))
        sample_fps, start_s, end_s = job.sample_fps, segment.start_s, segment.end_s
        # The pieces of a live stream are not probed before they are scored.
        storage_key, lead_s, facts = segment.storage_key, segment.lead_s, None
        if lead_s is None and job.media is not None and job.media.facts is not None:
            storage_key = job.media.storage_key
            facts = MediaFacts.from_json(job.media.facts, job.media.presentation)
        if storage_key is None:
            raise ObjectMissingError("the job's media was erased")
        manifest = context.manifest(job)
        keeps_faces = lead_s is not None and keeps_last_faces(session, job.id)
    with stages.measure("load"):
        detector = detectors(manifest)
    with ExitStack() as held_files:
        with stages.measure("fetch"):
            path = held_files.enter_context(context.storage.local_path(storage_key))
        limits, settings = context.settings.limits.for_media(), context.settings.worker
        shift_s = 0.0
        if facts is None:
            with stages.measure("probe"):
                facts = probe(path, limits, timeout_s=settings.probe_timeout_s)
            shift_s = start_s - (lead_s or 0.0)
        [result] = scan_segments(
            detector,
            path,
            facts,
            [segments.Segment(index, start_s - shift_s, end_s - shift_s)],
            sample_fps=sample_fps,
            timeout_s=settings.decode_timeout_s,
            limits=limits,
            should_stop=is_lost,
            stages=stages,
            keeps_faces=keeps_faces,
        )
    _report_device(detector)
    return result.shifted(shift_s) if shift_s else result


def _report_device(detector: Detector) -> None:
    state = read_device_state(detector.device)
    if state is not None:
        device = str(detector.device)
        GPU_MEMORY.labels(device=device, kind="used").set(state.used_bytes)
        GPU_MEMORY.labels(device=device, kind="total").set(state.total_bytes)
        if state.utilisation is not None:
            GPU_UTILISATION.labels(device=device).set(state.utilisation)
