"""Endpoint to submit a job: its options, its file, and the commit that guarantees its end."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from flask import Response, request
from sqlalchemy.orm import Session

from api.acceptance import JOB_RESPONSES, accepted, check_options, describe_accepted, start_job
from api.admission import check_capacity, hold_place, upload_slot
from api.audit import current_actor
from api.auth import caller, requires
from api.documentation import authenticated_problems, submission_body
from api.errors import APIError
from api.forms import refuse_source_fields
from api.jobs import blueprint
from api.schemas import (
    QueryOptions,
    SubmitHeaders,
    UploadSubmission,
    URLSubmission,
)
from api.services import Services, current_services
from api.sources import Source, check_arrival, claim, new_job, read_source
from api.uploads import Submission, check_stored_header, is_raw, receive_body
from api.waiting import requested_wait_s
from shared.audit import record_event
from shared.documents.jobs import JobDocument
from shared.errors import Code
from shared.jobs.creation import create_job
from shared.manifests import Manifest, find_manifest
from shared.media.files import media_transaction
from shared.models import Media


@blueprint.post(
    "/jobs",
    operation_id="submitJob",
    responses={**JOB_RESPONSES, **authenticated_problems(404, 408, 409, 413, 415, 422)},
    openapi_extensions={
        "requestBody": submission_body(
            QueryOptions.model_json_schema(), URLSubmission.model_json_schema(), UploadSubmission.model_json_schema()
        )
    },
)
@requires("jobs:write")
def submit(header: SubmitHeaders, query: QueryOptions) -> Response:
    """
    Submit an image or a video.

    The answer is sent when the file is stored and the job is certain to end. Options can be in the query, in form
    fields, or in the JSON object, each once.
    """
    services, settings = current_services(), current_services().settings
    wait_s = requested_wait_s(header.prefer, settings.api.max_wait_s)
    with services.sessions.transaction() as session:
        check_capacity(session, settings.api, caller().owner, header.idempotency_key)
    check = partial(_check_before_body, services, query)
    check({})
    with (
        upload_slot(services),
        receive_body(request, services.storage, settings.limits.max_upload_bytes, check) as submission,
    ):
        options, source = _parse_options(submission, query)
        manifest = _find_manifest(services, options.get("model"))
        check_options(services, options, source.url)
        if source.upload is not None:
            check_stored_header(services.storage, source.upload, settings.limits.for_media())
        document, is_new = _create_job(services, source, options, manifest, header.idempotency_key)
    return accepted(services, document, is_new=is_new, wait_s=wait_s)


def _parse_options(submission: Submission, query: QueryOptions) -> tuple[dict[str, Any], Source]:
    """Return the options from body and query, and the job's source."""
    options = query.model_dump(exclude_none=True)
    source = Source(upload=submission.upload)
    if submission.is_json:
        given, source = read_source(submission.fields)
    else:
        refuse_source_fields(submission.fields, Code.UNKNOWN_OPTION)
        given = QueryOptions.model_validate(submission.fields).model_dump(exclude_none=True)
    twice = sorted(options.keys() & given.keys())
    if twice:
        raise APIError(Code.INVALID_REQUEST, f"the option {twice[0]!r} is given both in the query and in the body")
    return options | given, source


def _find_manifest(services: Services, name: str | None) -> Manifest:
    models = services.settings.models
    return find_manifest(models.dir, name or models.default)


def _check_before_body(services: Services, query: QueryOptions, fields: dict[str, Any]) -> None:
    """Refuse wrong options in query and form fields before a possibly large file is read."""
    options, _ = _parse_options(Submission(None, fields, is_json=False), query)
    _find_manifest(services, options.get("model"))
    check_options(services, options, is_complete=is_raw(request))


def _create_job(
    services: Services,
    source: Source,
    options: dict[str, Any],
    manifest: Manifest,
    idempotency_key: str | None,
) -> tuple[JobDocument, bool]:
    """Commit the job. Return its document, and whether it is new or from an earlier request with the same key."""
    if source.upload_id is not None:
        check_arrival(services, source.upload_id)
    with _job_transaction(services, source) as (session, media):
        hold_place(session, services.settings.api, caller().owner, idempotency_key, media=media)
        new = new_job(source, options, manifest, media=media, idempotency_key=idempotency_key)
        job, is_new = create_job(session, new)
        if is_new:
            if source.upload_id is not None:
                claim(session, source.upload_id)
            sha256 = source.upload.sha256 if source.upload else None
            record_event(session, "job.submitted", owner=job.owner, actor=current_actor(), job_id=job.id, sha256=sha256)
            may_reuse = media is not None and options.get("reuse", services.settings.jobs.reuse_results)
            start_job(session, job, manifest, source=source.kind, may_reuse=may_reuse)
        return describe_accepted(session, job), is_new


@contextmanager
def _job_transaction(services: Services, source: Source) -> Iterator[tuple[Session, Media | None]]:
    """Open a transaction in which the file from the request, if any, is attached as media."""
    if source.upload is None:
        with services.sessions.transaction() as session:
            yield session, None
    else:
        days = services.settings.jobs.media_retention_days
        file, owner = source.upload, caller().owner
        with media_transaction(services.sessions, services.storage, file, owner=owner, retention_days=days) as adopted:
            yield adopted
