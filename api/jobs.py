"""Endpoints to get, list, cancel and delete jobs."""

from flask import Response, request
from flask_openapi3 import APIBlueprint, Tag
from sqlalchemy import select
from sqlalchemy.orm import selectinload

from api.audit import current_actor
from api.auth import caller, requires
from api.documentation import SECURITY, authenticated_problems
from api.errors import APIError
from api.ownership import find_own_job, lock_own_job
from api.paging import created_between, newest_first, page_limit, parse_cursor
from api.responses import document_response
from api.schemas import MAX_SUMMARIES_PER_PAGE, GetHeaders, JobPath, JobsQuery, SegmentsQuery, SegmentsView
from api.services import current_services
from api.waiting import requested_wait_s, wait_for_end
from shared.audit import record_event
from shared.cursors import write_cursor
from shared.documents.jobs import JobDocument, JobList, JobSummary
from shared.documents.segments import SegmentDocument, SegmentList, SegmentSummary
from shared.errors import Code
from shared.jobs.ending import cancel_job, delete_job
from shared.jobs.segments import count_done, read_segment_page, read_segments
from shared.models import Job
from shared.states import JobStatus

blueprint = APIBlueprint("jobs", __name__, url_prefix="/v1", abp_tags=[Tag(name="jobs")], abp_security=SECURITY)


@blueprint.get(
    "/jobs/<string:job_id>",
    operation_id="getJob",
    responses={200: JobDocument, "304": {"description": "Unchanged."}, **authenticated_problems(404, 422)},
)
@requires("jobs:read")
def get(path: JobPath, header: GetHeaders) -> Response:
    """Get a job: its progress and the scores so far, or its result."""
    services = current_services()
    wait_s = requested_wait_s(header.prefer, services.settings.api.max_wait_s)
    has_waited = wait_for_end(services, path.job_id, wait_s)
    with services.sessions.transaction() as session:
        job = find_own_job(session, path.job_id)
        response = document_response(JobDocument.from_job(job, read_segments(session, job)))
    response.add_etag(weak=True)
    # Clients may cache the response, but must revalidate it each time.
    response.headers["Cache-Control"] = "private, no-cache"
    if has_waited:
        response.headers["Preference-Applied"] = f"wait={wait_s}"
    # ``If-Match`` is left out, since it is for requests that change something: the library would answer 412.
    response.make_conditional({name: value for name, value in request.environ.items() if name != "HTTP_IF_MATCH"})
    return response


@blueprint.get("/jobs", operation_id="listJobs", responses={200: JobList, **authenticated_problems(422)})
@requires("jobs:read")
def list_jobs(query: JobsQuery) -> Response:
    """List your jobs, newest first, without their segments."""
    services = current_services()
    limit = page_limit(services, query)
    loaded = selectinload(Job.media), selectinload(Job.explanation)
    wanted = select(Job).options(*loaded).where(Job.owner == caller().owner, Job.deleted_at.is_(None))
    if query.status is not None:
        wanted = wanted.where(Job.status == query.status)
    wanted = created_between(wanted, Job, query.created_after, query.created_before)
    wanted = newest_first(wanted, Job, query, limit)
    with services.sessions.transaction() as session:
        jobs = session.scalars(wanted).all()
        page, more = jobs[:limit], len(jobs) > limit
        done = count_done(session, page)
        items = [JobSummary.from_job(job, done[job.id]) for job in page]
    return document_response(JobList(items=items, next_cursor=write_cursor(page[-1].id) if more else None))


@blueprint.get(
    "/jobs/<string:job_id>/segments",
    operation_id="listSegments",
    responses={200: SegmentList, **authenticated_problems(404, 422)},
)
@requires("jobs:read")
def list_segments(path: JobPath, query: SegmentsQuery) -> Response:
    """List a job's segments with every person and face found in them, or summaries of them."""
    services = current_services()
    is_summary = query.view == SegmentsView.SUMMARY
    limit = page_limit(services, query, max_items=MAX_SUMMARIES_PER_PAGE if is_summary else None)
    after = -1 if query.cursor is None else parse_cursor(query.cursor, int)
    with services.sessions.transaction() as session:
        find_own_job(session, path.job_id)
        page = read_segment_page(session, path.job_id, after=after, limit=limit, with_faces=not is_summary)
    next_cursor = None if page.last_index is None else write_cursor(page.last_index)
    kind = SegmentSummary if is_summary else SegmentDocument
    return document_response(SegmentList(items=[kind.from_row(row) for row in page.rows], next_cursor=next_cursor))


@blueprint.post(
    "/jobs/<string:job_id>/cancel",
    operation_id="cancelJob",
    responses={200: JobDocument, **authenticated_problems(404, 409, 422)},
)
@requires("jobs:write")
def cancel(path: JobPath) -> Response:
    """Cancel a job. Cancelling it again changes nothing; if it has ended otherwise, the answer is 409."""
    with current_services().sessions.transaction() as session:
        job = lock_own_job(session, path.job_id)
        if job.is_final and job.status != JobStatus.CANCELLED:
            raise APIError(Code.JOB_ALREADY_FINAL, f"job {job.id} has already ended with status {job.status}")
        if not job.is_final:
            cancel_job(session, job)
            record_event(session, "job.cancelled", owner=job.owner, actor=current_actor(), job_id=job.id)
            session.refresh(job)
        document = JobDocument.from_job(job, read_segments(session, job))
    return document_response(document)


@blueprint.delete(
    "/jobs/<string:job_id>",
    operation_id="deleteJob",
    responses={"204": {"description": "Erased."}, **authenticated_problems(404, 422)},
)
@requires("jobs:write")
def delete(path: JobPath) -> Response:
    """Erase a job with its results, its deliveries and, unless another job of yours uses it, its file."""
    with current_services().sessions.transaction() as session:
        job = lock_own_job(session, path.job_id)
        delete_job(session, job)
        record_event(session, "job.erased", owner=job.owner, actor=current_actor(), job_id=job.id)
    return Response(status=204)
