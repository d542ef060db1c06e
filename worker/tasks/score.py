"""Scoring one segment: the only task that needs the network."""

import time
import uuid
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from shared.errors import JobCancelledError, ObjectMissingError
from shared.jobs.leases import Lease, lease_segment
from shared.jobs.queries import get_job
from shared.jobs.results import record_segment
from shared.models import Segment
from shared.observability import FACES, FRAMES, GPU_MEMORY, GPU_UTILISATION, STAGE_SECONDS, get_logger
from worker.media import segments
from worker.media.probe import MediaFacts
from worker.pipeline.detector import Detector
from worker.pipeline.devices import device_state
from worker.pipeline.results import SegmentResult
from worker.pipeline.scanning import scan_segments
from worker.pipeline.stages import Stages
from worker.tasks.context import Context, LeaseKeeper, leased_step

log = get_logger(__name__)


class Detectors(Protocol):
    """Loaded detectors by checkpoint name."""

    def __call__(self, name: str) -> Detector:
        """The detector; loaded at its first use."""


def load_detectors(models_dir: Path, device: str, *, most: int = 2) -> Detectors:
    """Detectors on *device*, loaded when first asked for; the *most* recently used ones stay in memory."""

    @lru_cache(maxsize=most)
    def get(name: str) -> Detector:
        return Detector.load(models_dir, name, device)

    return get


def score_segment(context: Context, detectors: Detectors, job_id: uuid.UUID, index: int) -> None:
    """Score one segment, unless it is done or being done."""
    with context.sessions.transaction() as session:
        lease = lease_segment(session, job_id, index, context.settings.jobs.lease_s)
    if lease is None:
        log.info("nothing to score")
        return
    is_last = False
    with leased_step(context, lease, "score_segment") as keeper:
        began, stages = time.monotonic(), Stages()
        try:
            result = _score(context, detectors, lease, index, keeper, stages)
            with stages.measure("record"), context.sessions.transaction() as session:
                is_last = record_segment(
                    session, lease, fake_score=result.fake_score, result=result.to_json(), looks=result.looks
                )
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
    if is_last:
        context.sender.finish(job_id)


def _score(
    context: Context, detectors: Detectors, lease: Lease, index: int, keeper: LeaseKeeper, stages: Stages
) -> SegmentResult:
    with context.sessions.transaction() as session:
        job = get_job(session, lease.job_id)
        if job is None:
            raise JobCancelledError("the job was deleted")
        if job.media is None or job.media.storage_key is None or job.media.facts is None:
            raise ObjectMissingError("the job's media was erased")
        segment = session.get_one(Segment, (lease.job_id, index))
        storage_key, facts = job.media.storage_key, MediaFacts.from_json(job.media.facts, job.media.presentation)
        model, sample_fps, start_s, end_s = job.model, job.sample_fps, segment.start_s, segment.end_s
    with stages.measure("load"):
        detector = detectors(model)
    with ExitStack() as held:
        with stages.measure("fetch"):
            path = held.enter_context(context.storage.local_path(storage_key))
        part = segments.Segment(index, start_s, end_s)
        timeout_s = context.settings.worker.decode_timeout_s
        [result] = scan_segments(
            detector,
            path,
            facts,
            [part],
            sample_fps=sample_fps,
            timeout_s=timeout_s,
            limits=context.settings.limits.for_media(),
            should_stop=keeper.is_lost,
            stages=stages,
        )
    _report(detector)
    return result


def _report(detector: Detector) -> None:
    state = device_state(detector.device)
    if state is not None:
        device = str(detector.device)
        GPU_MEMORY.labels(device=device, kind="used").set(state.used_bytes)
        GPU_MEMORY.labels(device=device, kind="total").set(state.total_bytes)
        if state.utilisation is not None:
            GPU_UTILISATION.labels(device=device).set(state.utilisation)
