"""What all requests that make a job have in common: their options, the start of the job, and the answer."""

from http import HTTPStatus
from typing import Any, Final

from flask import Response
from pydantic import Field
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from api.auth import caller
from api.metadata import check_metadata
from api.responses import accepted_response
from api.reuse import reuse_result
from api.services import Services
from api.waiting import wait_for_end
from api.webhook_events import require_receiver
from shared.db import after_commit
from shared.documents.base import POLL_AFTER_S
from shared.documents.jobs import JobDocument
from shared.jobs.queries import get_job
from shared.jobs.segments import NO_SEGMENTS, read_segments
from shared.manifests import Manifest
from shared.models import Job
from shared.observability import JOBS_ACCEPTED, get_logger
from shared.outbound import check_url
from shared.queues import INGEST
from shared.states import FINAL_JOB_STATUSES, JobStatus

log = get_logger(__name__)


class AcceptedJob(JobDocument):
    """A job that was accepted, as the answer 202 gives it."""

    poll_after_s: float | None = Field(
        description="Ask for the job again in so many seconds, or wait for it with `Prefer: wait=N`. Null if it has"
        " ended."
    )


JOB_RESPONSES: Final[dict[str | int, Any]] = {200: JobDocument, 201: JobDocument, 202: AcceptedJob}
"""The answers of ``accepted``."""


def check_options(
    services: Services, options: dict[str, Any], url: str | None = None, *, is_complete: bool = True
) -> None:
    """
    Refuse a webhook or a source to which no request may be sent, events for no webhook, and metadata that cannot be
    stored.

    Args:
        url: The address of the source, if the service is to fetch the file.
        is_complete: False if other options may follow in the body.
    """
    if is_complete:
        require_receiver(options)
    allow_insecure = services.settings.webhooks.allow_insecure
    for address in (options.get("webhook_url"), url):
        if address is not None:
            check_url(address, allow_insecure=allow_insecure)
    check_metadata(options.get("metadata", {}), services.settings.limits.max_metadata_bytes)


def start_job(session: Session, job: Job, manifest: Manifest, *, source: str, may_reuse: bool) -> None:
    """
    Count a new job, and ask the workers for it once this transaction is committed.

    Args:
        source: The kind of source, for the metric of accepted jobs.
        may_reuse: End it with the result of an equal job instead, if there is one.
    """
    after_commit(session).count(JOBS_ACCEPTED.labels(source=source).inc)
    if may_reuse:
        reuse_result(session, job, manifest)
    if job.status == JobStatus.QUEUED:
        after_commit(session).send(INGEST, job_id=job.id)


def describe_accepted(session: Session, job: Job) -> JobDocument:
    """Return the document of a job that a request has made or found; a new one has no segments to be read."""
    return JobDocument.from_job(job, read_segments(session, job) if job.segments_total else NO_SEGMENTS)


def accepted(services: Services, document: JobDocument, *, is_new: bool, wait_s: int) -> Response:
    """
    Return the answer to an accepted request, after the wait that the client prefers.

    It is 202, or after a wait in which the job ended 201, and 200 for the job of an earlier request.

    Args:
        document: The job as it was committed.
        is_new: False if an earlier request with the same idempotency key made it.
        wait_s: The longest wait; see ``requested_wait_s``.
    """
    has_waited = False
    try:
        has_waited = wait_for_end(services, document.id, wait_s)
        if has_waited:
            document = _reload_document(services, document)
    except SQLAlchemyError:
        # The job is committed: an answer that says anything else would make the sender send it again.
        log.warning("the database failed a wait", exc_info=True)
        has_waited = False
    has_ended = document.status in FINAL_JOB_STATUSES
    location = f"/v1/jobs/{document.id}"
    if has_waited and has_ended:
        status = HTTPStatus.CREATED if is_new else HTTPStatus.OK
        response = accepted_response(document, location, is_new=is_new, status=status)
    else:
        poll_after_s = None if has_ended else POLL_AFTER_S
        answer = AcceptedJob.model_construct(**dict(document), poll_after_s=poll_after_s)
        response = accepted_response(answer, location, is_new=is_new)
    if has_waited:
        response.headers["Preference-Applied"] = f"wait={wait_s}"
    return response


def _reload_document(services: Services, document: JobDocument) -> JobDocument:
    """Return the job as it is after a wait; as it was if it was erased meanwhile."""
    with services.sessions.transaction() as session:
        job = get_job(session, document.id, owner=caller().owner)
        return document if job is None else JobDocument.from_job(job, read_segments(session, job))
