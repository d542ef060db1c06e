"""Links by which people without an API key see the report of one job."""

import hashlib
import hmac
import secrets
import uuid
from datetime import timedelta
from http import HTTPStatus

from flask import Response, url_for
from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from api.audit import current_actor
from api.auth import caller, requires
from api.documentation import authenticated_problems
from api.errors import APIError
from api.jobs import blueprint
from api.ownership import find_own_job, lock_own_job
from api.responses import document_response
from api.schemas import JobPath, SharePath, ShareRequest
from api.services import current_services
from shared.audit import record_event
from shared.documents.shares import NewShareDocument, ShareDocument, ShareList
from shared.errors import Code
from shared.jobs.queries import get_job
from shared.models import Job, Share

MAX_TOKEN_CHARACTERS = 64
MAX_SHARES = 100
"""Links of one job that work at the same time."""


def digest_token(token: str) -> bytes:
    """Return the digest under which a token is stored."""
    return hashlib.sha256(token.encode()).digest()


def find_shared(session: Session, job_id: uuid.UUID, token: str) -> Job | None:
    """Return the job with its media if *token* is a link to its report that works, or else None."""
    if not token or len(token) > MAX_TOKEN_CHARACTERS:
        return None
    digest = digest_token(token)
    query = select(Share).where(Share.token_sha256 == digest, Share.job_id == job_id, Share.expires_at > func.now())
    share = session.scalars(query).one_or_none()
    # The lookup is by digest, whose timing tells nothing of the token; this comparison makes it plain.
    if share is None or not hmac.compare_digest(share.token_sha256, digest):
        return None
    return get_job(session, job_id)


@blueprint.post(
    "/jobs/<string:job_id>/shares",
    operation_id="shareReport",
    responses={201: NewShareDocument, **authenticated_problems(404, 409, 422)},
)
@requires("jobs:write")
def share(path: JobPath, body: ShareRequest) -> Response:
    """
    Make a link to the report of a job.

    Whoever has it sees this job's report and its media, and nothing else, until the link expires or is revoked.
    """
    token = secrets.token_urlsafe(32)
    with current_services().sessions.transaction() as session:
        job = lock_own_job(session, path.job_id)
        working = select(func.count()).where(Share.job_id == job.id, Share.expires_at > func.now())
        if (session.scalar(working) or 0) >= MAX_SHARES:
            raise APIError(Code.TOO_MANY_SHARES, f"job {job.id} has {MAX_SHARES} links already; revoke some of them")
        made = Share(
            job_id=job.id,
            api_key_id=caller().key_id,
            token_sha256=digest_token(token),
            expires_at=func.now() + timedelta(seconds=body.valid_s),
        )
        session.add(made)
        session.flush()
        session.refresh(made)
        record_event(
            session, "report.shared", owner=job.owner, actor=current_actor(), job_id=job.id, share=str(made.id)
        )
        url = url_for("web.report", job_id=job.id, token=token, _external=True)
        document = NewShareDocument(id=made.id, created_at=made.created_at, expires_at=made.expires_at, url=url)
    return document_response(document, HTTPStatus.CREATED)


@blueprint.get(
    "/jobs/<string:job_id>/shares",
    operation_id="listShares",
    responses={200: ShareList, **authenticated_problems(404, 422)},
)
@requires("jobs:read")
def list_shares(path: JobPath) -> Response:
    """List the links to the report of a job that work, newest first, without their secrets."""
    with current_services().sessions.transaction() as session:
        find_own_job(session, path.job_id)
        query = (
            select(Share).where(Share.job_id == path.job_id, Share.expires_at > func.now()).order_by(Share.id.desc())
        )
        items = [
            ShareDocument(id=row.id, created_at=row.created_at, expires_at=row.expires_at)
            for row in session.scalars(query)
        ]
    return document_response(ShareList(items=items))


@blueprint.delete(
    "/jobs/<string:job_id>/shares/<string:share_id>",
    operation_id="revokeShare",
    responses={"204": {"description": "Revoked."}, **authenticated_problems(404, 422)},
)
@requires("jobs:write")
def revoke(path: SharePath) -> Response:
    """Revoke a link: it shows nothing from now on."""
    with current_services().sessions.transaction() as session:
        job = lock_own_job(session, path.job_id)
        gone = session.execute(
            delete(Share).where(Share.job_id == job.id, Share.id == path.share_id).returning(Share.id)
        ).one_or_none()
        if gone is None:
            raise APIError(Code.NOT_FOUND, "this job has no such link")
        record_event(
            session, "report.unshared", owner=job.owner, actor=current_actor(), job_id=job.id, share=str(gone[0])
        )
    return Response(status=204)
