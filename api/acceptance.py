"""The answer to a request that made a job, or found the one that it made before."""

from http import HTTPStatus

from flask import Response
from sqlalchemy.exc import SQLAlchemyError

from api.auth import caller
from api.responses import document_response
from api.services import Services
from api.waiting import requested_wait_s, wait_for_end
from shared.documents.jobs import JobDocument
from shared.jobs.queries import get_job
from shared.jobs.segments import read_segments
from shared.observability import get_logger

log = get_logger(__name__)


def accepted(services: Services, document: JobDocument, *, is_new: bool, prefer: str | None) -> Response:
    """
    Return the answer 202, after the wait that the client prefers.

    Args:
        document: The job as it was committed.
        is_new: False if an earlier request with the same idempotency key made it.
        prefer: The header ``Prefer``.
    """
    wait_s = requested_wait_s(prefer, services.settings.api.max_wait_s)
    has_waited = False
    try:
        has_waited = wait_for_end(services, document.id, wait_s)
        if has_waited:
            document = _reload_document(services, document)
    except SQLAlchemyError:
        # The job is committed: an answer that says anything else would make the sender send it again.
        log.warning("the database failed a wait", exc_info=True)
        has_waited = False
    response = document_response(document, HTTPStatus.ACCEPTED)
    if has_waited:
        response.headers["Preference-Applied"] = f"wait={wait_s}"
    response.headers["Location"] = f"/v1/jobs/{document.id}"
    if not is_new:
        response.headers["Idempotent-Replayed"] = "true"
    return response


def _reload_document(services: Services, document: JobDocument) -> JobDocument:
    """Return the job as it is after a wait; as it was if it was erased meanwhile."""
    with services.sessions.transaction() as session:
        job = get_job(session, document.id, owner=caller().owner)
        return document if job is None else JobDocument.from_job(job, read_segments(session, job))
