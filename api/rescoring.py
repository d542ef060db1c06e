"""Scoring stored media again, and what changed by it."""

import hashlib
import json
import uuid
from datetime import timedelta
from typing import Any

from flask import Response
from sqlalchemy import func, select

from api.acceptance import JOB_RESPONSES, accepted, check_options, describe_accepted, start_job
from api.admission import check_capacity, hold_place
from api.audit import current_actor
from api.auth import caller, requires
from api.documentation import authenticated_problems
from api.errors import APIError
from api.jobs import blueprint
from api.ownership import find_own_job
from api.responses import document_response
from api.schemas import DiffPath, JobPath, Rescoring, SubmitHeaders
from api.services import Services, current_services
from api.waiting import requested_wait_s
from shared.audit import record_event
from shared.documents.diffs import DiffDocument, Interval, Side
from shared.documents.jobs import JobDocument
from shared.errors import Code, ObjectMissingError
from shared.jobs.creation import NewJob, create_job, find_replayed_job
from shared.jobs.differences import compare_segments, largest
from shared.jobs.segments import read_segments
from shared.manifests import Manifest, find_manifest
from shared.models import Job, Media
from shared.states import JobStatus


@blueprint.post(
    "/jobs/<string:job_id>/rescore",
    operation_id="rescoreJob",
    responses={**JOB_RESPONSES, **authenticated_problems(404, 409, 410, 422)},
)
@requires("jobs:write")
def rescore(path: JobPath, body: Rescoring, header: SubmitHeaders) -> Response:
    """
    Score the stored media of a job again, with another checkpoint or other options.

    The new job names this one in `parent_id`, and is independent of it: either can be erased. What the body leaves out
    is as it was in this job.
    """
    services, settings = current_services(), current_services().settings
    wait_s = requested_wait_s(header.prefer, settings.api.max_wait_s)
    options, owner = body.model_dump(exclude_none=True), caller().owner
    request_sha256 = _request_sha256(path.job_id, options)
    with services.sessions.transaction() as session:
        # Before everything that may have changed since: a repeated request gets its job even if the parent is erased.
        earlier = find_replayed_job(session, owner, header.idempotency_key, request_sha256)
        replayed = None if earlier is None else JobDocument.from_job(earlier, read_segments(session, earlier))
    if replayed is not None:
        return accepted(services, replayed, is_new=False, wait_s=wait_s)
    with services.sessions.transaction() as session:
        check_capacity(session, settings.api, owner, header.idempotency_key, stores_file=False)
        parent = find_own_job(session, path.job_id)
        manifest = find_manifest(settings.models.dir, options.get("model", parent.model))
        media_id = parent.media_id
        storage_key = None if parent.media is None else parent.media.storage_key
    check_options(services, options)
    if media_id is None or storage_key is None:
        raise ObjectMissingError(f"the media of job {path.job_id} is not stored, so it cannot be scored again")
    services.storage.size(storage_key)
    document, is_new = _create(
        services, path.job_id, media_id, options, manifest, (header.idempotency_key, request_sha256)
    )
    return accepted(services, document, is_new=is_new, wait_s=wait_s)


@blueprint.get(
    "/jobs/<string:job_id>/diff/<string:other_id>",
    operation_id="diffJobs",
    responses={200: DiffDocument, **authenticated_problems(404, 409, 422)},
)
@requires("jobs:read")
def diff(path: DiffPath) -> Response:
    """Show what changed between two jobs of the same media that have succeeded."""
    with current_services().sessions.transaction() as session:
        before, after = find_own_job(session, path.job_id), find_own_job(session, path.other_id)
        for job in (before, after):
            if job.status != JobStatus.SUCCEEDED:
                raise APIError(Code.JOB_NOT_FINAL, f"job {job.id} has no result to compare: it is {job.status}")
        if before.media_id is None or before.media_id != after.media_id:
            raise APIError(Code.INVALID_REQUEST, f"the jobs {before.id} and {after.id} are of different media")
        intervals = compare_segments(session, before, after)
        sides = [_side(job) for job in (before, after)]
    changed = {
        "model": sides[0].model != sides[1].model,
        "weights": sides[0].weights_sha256 != sides[1].weights_sha256,
        "sample_fps": sides[0].sample_fps != sides[1].sample_fps,
        "segment_seconds": sides[0].segment_seconds != sides[1].segment_seconds,
    }
    scores = [side.fake_score for side in sides]
    return document_response(
        DiffDocument(
            before=sides[0],
            after=sides[1],
            changed_options=[name for name, is_changed in changed.items() if is_changed],
            verdict_changed=sides[0].verdict != sides[1].verdict,
            score_change=None if scores[0] is None or scores[1] is None else round(scores[1] - scores[0], 6),
            intervals_total=len(intervals),
            intervals=[
                Interval(start_s=each.start_s, end_s=each.end_s, before=each.before, after=each.after)
                for each in largest(intervals)
            ],
        )
    )


def _create(
    services: Services,
    parent_id: uuid.UUID,
    media_id: uuid.UUID,
    options: dict[str, Any],
    manifest: Manifest,
    request: tuple[str | None, str],
) -> tuple[JobDocument, bool]:
    """
    Commit the job; return its document, and whether it is new.

    Args:
        request: The idempotency key, and the digest of the request.
    """
    settings, owner = services.settings, caller().owner
    with services.sessions.transaction() as session:
        media = session.scalars(select(Media).where(Media.id == media_id).with_for_update()).one_or_none()
        if media is None or media.storage_key is None:
            raise ObjectMissingError(f"the media of job {parent_id} was erased, so it cannot be scored again")
        # Read again: erasure locks the media before it changes a job, so that nothing of an erased job is copied.
        parent = find_own_job(session, parent_id)
        hold_place(session, settings.api, owner, request[0])
        job, is_new = create_job(
            session,
            NewJob(
                owner=owner,
                api_key_id=caller().key_id,
                media=media,
                source_url=None,
                source_key=None,
                source_sha256=None,
                manifest=manifest.pin(),
                sample_fps=options.get("sample_fps", parent.sample_fps),
                segment_seconds=options.get("segment_seconds", parent.segment_seconds),
                webhook_url=options.get("webhook_url"),
                webhook_events=options.get("webhook_events"),
                metadata=options.get("metadata", parent.client_metadata),
                idempotency_key=request[0],
                request_sha256=request[1],
                parent_id=parent.id,
                explain=options.get("explain", parent.explanation is not None),
            ),
        )
        if is_new:
            days = settings.jobs.media_retention_days
            media.expires_at = func.greatest(Media.expires_at, func.now() + timedelta(days=days))
            record_event(
                session, "job.rescored", owner=owner, actor=current_actor(), job_id=job.id, parent=str(parent.id)
            )
            start_job(session, job, manifest, source="rescoring", may_reuse=options.get("reuse", False))
        return describe_accepted(session, job), is_new


def _request_sha256(parent_id: uuid.UUID, options: dict[str, Any]) -> str:
    """Tells a repeated request from another one under the same idempotency key."""
    content = {"parent": str(parent_id), "options": options}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _side(job: Job) -> Side:
    return Side(
        id=job.id,
        model=job.model,
        weights_sha256=(job.model_description or {}).get("weights_sha256"),
        sample_fps=job.sample_fps,
        segment_seconds=job.segment_seconds,
        fake_score=job.fake_score,
        peak_score=job.peak_score,
        verdict=job.verdict,
        reasons=job.reasons,
        people_total=(job.findings or {}).get("people_total"),
    )
