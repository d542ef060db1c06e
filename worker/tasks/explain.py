"""The step explain: the faces of a job that has succeeded are explained. No job waits for it or changes by it."""

import time
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from shared.errors import JobCancelledError, ObjectMissingError
from shared.jobs.explanations import new_images_key, store_images
from shared.jobs.leases import Lease, Step
from shared.jobs.queries import get_job
from shared.jobs.results import record_explanation
from shared.jobs.segments import read_segment_page
from shared.manifests import Manifest
from shared.media.removals import unclaimed_file
from shared.observability import get_logger
from worker.explain.choosing import FaceChoice
from worker.explain.maps import Explainer
from worker.explain.people import Explained, explain_people
from worker.media.probe import MediaFacts
from worker.media.segments import Segment
from worker.tasks.context import Context
from worker.tasks.loading import cache_by_manifest
from worker.tasks.steps import IsLost, run_step

log = get_logger(__name__)

SEGMENTS_ON_A_PAGE = 20
"""Segments with their faces in memory at a time; one of 60 s at 30 frames a second can have thousands of faces."""
BUDGET_SHARE = 0.75
"""The share of the task's time limit after which an explanation ends with the people that it has."""

Explainers = Callable[[Manifest], Explainer]
"""Returns the explainer of the manifest that a job has pinned; raises ModelError if its weights are not installed."""


def load_explainers(models_dir: Path, device: str) -> Explainers:
    """Make a cache of the last explainer on *device*: they are needed seldom, and are as large as a detector."""
    return cache_by_manifest(lambda manifest: Explainer.load_pinned(models_dir, manifest, device), max_loaded=1)


def explain(context: Context, explainers: Explainers, job_id: uuid.UUID) -> None:
    """Explain the faces of a job, unless that is done or another worker does it."""
    run_step(context, Step.EXPLAIN, (job_id,), partial(_explain, context, explainers))


def _explain(context: Context, explainers: Explainers, lease: Lease, is_lost: IsLost) -> None:
    began = time.monotonic()
    explained, manifest = _explain_job(context, explainers, lease, is_lost, began)
    if explained.images:
        key = new_images_key()
        # A worker that dies before the commit leaves a file without a row, which ``tidy`` removes.
        with unclaimed_file(context.storage, key):
            places = store_images(context.storage, key, explained.images)
            _record(context, lease, {**explained.to_json(manifest), "images": places}, key)
    else:
        _record(context, lease, {**explained.to_json(manifest), "images": {}}, None)
    log.info(
        "explained",
        people=len(explained.people),
        image_bytes=sum(map(len, explained.images.values())),
        seconds=round(time.monotonic() - began, 3),
    )


def _record(context: Context, lease: Lease, result: dict[str, Any], key: str | None) -> None:
    with context.sessions.transaction() as session:
        record_explanation(session, lease, result, key)


def _explain_job(
    context: Context, explainers: Explainers, lease: Lease, is_lost: IsLost, began: float
) -> tuple[Explained, Manifest]:
    worker = context.settings.worker
    with context.sessions.transaction() as session:
        job = get_job(session, lease.job_id)
        if job is None:
            raise JobCancelledError("the job was deleted")
        if job.media is None or job.media.storage_key is None or job.media.facts is None:
            raise ObjectMissingError("the job's media was erased")
        storage_key, facts = job.media.storage_key, MediaFacts.from_json(job.media.facts, job.media.presentation)
        sample_fps, manifest = job.sample_fps, context.manifest(job)
    choice, plan = read_faces(context, lease.job_id, is_lost)
    chosen = choice.choose(plan)
    if not chosen:
        return Explained([], {}), manifest
    explainer = explainers(manifest)
    with context.storage.local_path(storage_key) as path:
        explained = explain_people(
            path,
            facts,
            plan,
            chosen,
            explainer,
            sample_fps=sample_fps,
            timeout_s=worker.decode_timeout_s,
            limits=context.settings.limits.for_media(),
            budget_s=max(0.0, BUDGET_SHARE * worker.score_time_limit_s - (time.monotonic() - began)),
            should_stop=is_lost,
        )
    return explained, manifest


def read_faces(context: Context, job_id: uuid.UUID, is_lost: IsLost) -> tuple[FaceChoice, dict[int, Segment]]:
    """
    Read the scored faces of a job, a page of segments at a time, and its segments without their faces.

    Raises:
        JobCancelledError: The lease was lost, or the job was erased.
    """
    choice, plan = FaceChoice(), {}
    after: int | None = -1
    while after is not None:
        if is_lost():
            raise JobCancelledError("the lease was lost, or the job was erased")
        with context.sessions.transaction() as session:
            page = read_segment_page(session, job_id, after=after, limit=SEGMENTS_ON_A_PAGE, with_faces=True)
        for row in page.rows:
            choice.add(row.index, row.people or [])
            plan[row.index] = Segment(row.index, row.start_s, row.end_s)
        after = page.last_index
    return choice, plan
