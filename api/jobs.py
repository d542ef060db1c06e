"""Jobs: look, list, cancel, delete."""

import uuid

from flask import Response, jsonify, request
from flask_openapi3 import APIBlueprint, Tag
from sqlalchemy import func, select
from sqlalchemy.orm import selectinload

from api.audit import current_actor
from api.auth import caller, requires
from api.documentation import SECURITY, guarded
from api.errors import APIError
from api.paging import page_limit, read_cursor, write_cursor
from api.schemas import (
    GetHeaders,
    JobDocument,
    JobList,
    JobPath,
    JobsQuery,
    Page,
    SegmentList,
)
from api.services import Services, services
from api.waiting import wait_for_end, wanted_wait_s
from shared.audit import record
from shared.documents import job_document, job_summary, segment_document
from shared.errors import Code
from shared.jobs.ending import cancel_job, delete_job
from shared.jobs.queries import get_job, get_segments, lock_job
from shared.media.removals import remove
from shared.models import Job, Segment
from shared.observability import JOBS_ENDED, get_logger
from shared.states import OPEN_SEGMENT_STATUSES, JobStatus

log = get_logger(__name__)
blueprint = APIBlueprint("jobs", __name__, url_prefix="/v1", abp_tags=[Tag(name="jobs")], abp_security=SECURITY)


@blueprint.get(
    "/jobs/<string:job_id>",
    operation_id="getJob",
    responses={200: JobDocument, "304": {"description": "Unchanged."}, **guarded(404, 422)},
)
@requires("jobs:read")
def get(path: JobPath, header: GetHeaders) -> Response:
    """Look at a job: its progress and the scores so far, or its result."""
    mine = services()
    wait_s = wanted_wait_s(header.prefer, mine.settings.api.max_wait_s)
    has_waited = wait_for_end(mine, path.job_id, wait_s)
    with mine.sessions.transaction() as session:
        job = get_job(session, path.job_id, owner=caller().owner)
        if job is None:
            raise _no_job(path.job_id)
        response = jsonify(job_document(job, get_segments(session, job.id)))
    response.add_etag(weak=True)
    # A private answer that may be kept, but must be asked about each time.
    response.headers["Cache-Control"] = "private, no-cache"
    if has_waited:
        response.headers["Preference-Applied"] = f"wait={wait_s}"
    response.make_conditional(request)
    return response


@blueprint.get("/jobs", operation_id="listJobs", responses={200: JobList, **guarded(422)})
@requires("jobs:read")
def list_jobs(query: JobsQuery) -> Response:
    """List your jobs, newest first, without their segments."""
    mine = services()
    limit = page_limit(mine, query)
    wanted = select(Job).options(selectinload(Job.media)).where(Job.owner == caller().owner, Job.deleted_at.is_(None))
    if query.status is not None:
        wanted = wanted.where(Job.status == query.status)
    if query.created_after is not None:
        wanted = wanted.where(Job.created_at > query.created_after)
    if query.created_before is not None:
        wanted = wanted.where(Job.created_at < query.created_before)
    if query.cursor is not None:
        wanted = wanted.where(Job.id < read_cursor(query.cursor, uuid.UUID))
    with mine.sessions.transaction() as session:
        jobs = session.scalars(wanted.order_by(Job.id.desc()).limit(limit + 1)).all()
        page, more = jobs[:limit], len(jobs) > limit
        done = dict(
            session.execute(
                select(Segment.job_id, func.count())
                .where(
                    Segment.job_id.in_([job.id for job in page]),
                    Segment.status.not_in(OPEN_SEGMENT_STATUSES),
                )
                .group_by(Segment.job_id)
            ).all()
        )
        items = [job_summary(job, done.get(job.id, 0)) for job in page]
    return jsonify({"items": items, "next_cursor": write_cursor(page[-1].id) if more else None})


@blueprint.get(
    "/jobs/<string:job_id>/segments",
    operation_id="listSegments",
    responses={200: SegmentList, **guarded(404, 422)},
)
@requires("jobs:read")
def list_segments(path: JobPath, query: Page) -> Response:
    """List a job's segments with every person and face found in them."""
    mine = services()
    limit = page_limit(mine, query)
    after = -1 if query.cursor is None else read_cursor(query.cursor, int)
    with mine.sessions.transaction() as session:
        if get_job(session, path.job_id, owner=caller().owner) is None:
            raise _no_job(path.job_id)
        wanted = select(Segment).where(Segment.job_id == path.job_id, Segment.index > after)
        segments = session.scalars(wanted.order_by(Segment.index).limit(limit + 1)).all()
        page, more = segments[:limit], len(segments) > limit
        items = [segment_document(segment) for segment in page]
    return jsonify({"items": items, "next_cursor": write_cursor(page[-1].index) if more else None})


@blueprint.post(
    "/jobs/<string:job_id>/cancel",
    operation_id="cancelJob",
    responses={200: JobDocument, **guarded(404, 409, 422)},
)
@requires("jobs:write")
def cancel(path: JobPath) -> Response:
    """Stop a job. Cancelling it again changes nothing; a job that has ended otherwise is a conflict."""
    mine = services()
    delivery_id = given_up = None
    with mine.sessions.transaction() as session:
        job = lock_job(session, path.job_id, owner=caller().owner)
        if job is None:
            raise _no_job(path.job_id)
        if job.is_final and job.status != JobStatus.CANCELLED:
            raise APIError(Code.JOB_ALREADY_FINAL, f"job {job.id} has ended already: it has {job.status}")
        if not job.is_final:
            given_up = job.source_key
            delivery_id = cancel_job(session, job)
            record(session, "job.cancelled", owner=job.owner, actor=current_actor(), job_id=job.id)
            JOBS_ENDED.labels(status=JobStatus.CANCELLED).inc()
            session.refresh(job)
        document = job_document(job, get_segments(session, job.id))
    if given_up is not None:
        remove(mine.sessions, mine.storage, [given_up])
    if delivery_id is not None:
        send_delivery(mine, delivery_id)
    return jsonify(document)


@blueprint.delete(
    "/jobs/<string:job_id>",
    operation_id="deleteJob",
    responses={"204": {"description": "Erased."}, **guarded(404, 422)},
)
@requires("jobs:write")
def delete(path: JobPath) -> Response:
    """Erase a job with its results, its deliveries and, unless another job of yours needs it, its file."""
    mine = services()
    with mine.sessions.transaction() as session:
        job = lock_job(session, path.job_id, owner=caller().owner)
        if job is None:
            raise _no_job(path.job_id)
        storage_key = delete_job(session, job)
        record(session, "job.erased", owner=job.owner, actor=current_actor(), job_id=job.id)
    if storage_key is not None:
        remove(mine.sessions, mine.storage, [storage_key])
    return Response(status=204)


def send_delivery(mine: Services, delivery_id: uuid.UUID) -> None:
    """Ask for a webhook delivery; if that fails, the sweep will."""
    try:
        mine.sender.deliver_webhook(delivery_id)
    except Exception:
        log.warning("message not sent", exc_info=True)


def _no_job(job_id: uuid.UUID) -> APIError:
    return APIError(Code.NOT_FOUND, f"there is no job {job_id}")
