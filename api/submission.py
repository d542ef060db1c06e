"""Endpoint to submit a job: its options, its file, and the commit that guarantees its end."""

import hashlib
import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from flask import Response, request
from sqlalchemy.orm import Session

from api.acceptance import JOB_RESPONSES, accepted, check_options, describe_accepted, start_job
from api.admission import check_capacity, upload_slot
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
from api.uploads import Submission, check_stored_header, receive_body
from api.waiting import requested_wait_s
from shared.audit import record_event
from shared.documents.jobs import JobDocument
from shared.errors import Code, ObjectMissingError
from shared.jobs.creation import NewJob, create_job
from shared.manifests import Manifest, find_manifest
from shared.media.direct_uploads import claim_upload, find_upload, incoming_key
from shared.media.files import StoredFile, media_transaction
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


@dataclass(frozen=True, slots=True)
class _Source:
    """The source of the job's file, one of three."""

    upload: StoredFile | None = None
    """The file from the request, already stored."""
    url: str | None = None
    """A URL that ingest fetches."""
    upload_id: uuid.UUID | None = None
    """A direct upload."""
    sha256: str | None = None
    """The expected digest of the direct upload."""

    @property
    def kind(self) -> str:
        return "url" if self.url else "direct" if self.upload_id else "upload"


def _parse_options(submission: Submission, query: QueryOptions) -> tuple[dict[str, Any], _Source]:
    """Return the options from body and query, and the job's source."""
    options = query.model_dump(exclude_none=True)
    source = _Source(upload=submission.upload)
    if submission.is_json:
        _check_source(submission.fields)
        # Strict, since "2" is not a number in JSON.
        kind = UploadSubmission if "upload_id" in submission.fields else URLSubmission
        given = kind.model_validate(submission.fields, strict=True).model_dump(exclude_none=True)
        source = _Source(**{name: given.pop(name) for name in ("url", "upload_id", "sha256") if name in given})
    else:
        refuse_source_fields(submission.fields, Code.UNKNOWN_OPTION)
        given = QueryOptions.model_validate(submission.fields).model_dump(exclude_none=True)
    twice = sorted(options.keys() & given.keys())
    if twice:
        raise APIError(Code.INVALID_REQUEST, f"the option {twice[0]!r} is given both in the query and in the body")
    return options | given, source


def _check_source(fields: dict[str, Any]) -> None:
    """Refuse a JSON object without exactly one source, with what to send instead."""
    if "url" in fields and "upload_id" in fields:
        raise APIError(Code.INVALID_REQUEST, "the JSON object has both 'url' and 'upload_id'; give one of them")
    if "url" not in fields and "upload_id" not in fields:
        hint = "; a JSON object takes no file: send it as the body, or in the field 'file' of multipart/form-data"
        raise APIError(
            Code.INVALID_REQUEST,
            f"the JSON object has neither 'url' nor 'upload_id'{hint if 'file' in fields else ''}",
        )


def _find_manifest(services: Services, name: str | None) -> Manifest:
    models = services.settings.models
    return find_manifest(models.dir, name or models.default)


def _check_before_body(services: Services, query: QueryOptions, fields: dict[str, Any]) -> None:
    """Refuse wrong options in query and form fields before a possibly large file is read."""
    options, _ = _parse_options(Submission(None, fields, is_json=False), query)
    _find_manifest(services, options.get("model"))
    check_options(services, options)


def _create_job(
    services: Services,
    source: _Source,
    options: dict[str, Any],
    manifest: Manifest,
    idempotency_key: str | None,
) -> tuple[JobDocument, bool]:
    """Commit the job. Return its document, and whether it is new or from an earlier request with the same key."""
    if source.upload_id is not None:
        _check_arrival(services, source.upload_id)
    with _job_transaction(services, source) as (session, media):
        job, is_new = create_job(
            session,
            NewJob(
                owner=caller().owner,
                api_key_id=caller().key_id,
                media=media,
                source_url=source.url,
                source_key=incoming_key(source.upload_id) if source.upload_id else None,
                source_sha256=source.sha256,
                manifest=manifest.pin(),
                sample_fps=options.get("sample_fps", manifest.sampling.sample_fps),
                segment_seconds=options.get("segment_seconds", manifest.sampling.segment_seconds),
                webhook_url=options.get("webhook_url"),
                metadata=options.get("metadata", {}),
                idempotency_key=idempotency_key,
                request_sha256=_request_sha256(source, options),
                explain=options.get("explain", False),
            ),
        )
        if is_new:
            if source.upload_id is not None:
                _claim_upload(session, source.upload_id)
            sha256 = source.upload.sha256 if source.upload else None
            record_event(session, "job.submitted", owner=job.owner, actor=current_actor(), job_id=job.id, sha256=sha256)
            may_reuse = media is not None and options.get("reuse", services.settings.jobs.reuse_results)
            start_job(session, job, manifest, source=source.kind, may_reuse=may_reuse)
        return describe_accepted(session, job), is_new


@contextmanager
def _job_transaction(services: Services, source: _Source) -> Iterator[tuple[Session, Media | None]]:
    """Open a transaction in which the file from the request, if any, is attached as media."""
    if source.upload is None:
        with services.sessions.transaction() as session:
            yield session, None
    else:
        days = services.settings.jobs.media_retention_days
        file, owner = source.upload, caller().owner
        with media_transaction(services.sessions, services.storage, file, owner=owner, retention_days=days) as adopted:
            yield adopted


def _claim_upload(session: Session, upload_id: uuid.UUID) -> None:
    if not claim_upload(session, owner=caller().owner, upload_id=upload_id):
        raise APIError(Code.NOT_FOUND, f"upload {upload_id} does not exist, has expired or belongs to another job")


def _check_arrival(services: Services, upload_id: uuid.UUID) -> None:
    """
    Refuse a direct upload that is incomplete or whose header is not acceptable.

    A claimed upload is not checked: a repeated request gets its job, and any other request fails to claim it.
    """
    with services.sessions.transaction() as session:
        size_bytes = find_upload(session, owner=caller().owner, upload_id=upload_id)
    if size_bytes is None:
        return
    key = incoming_key(upload_id)
    try:
        found = services.storage.size(key)
    except ObjectMissingError as error:
        raise APIError(Code.UPLOAD_INCOMPLETE, f"the file of upload {upload_id} has not been uploaded") from error
    if found != size_bytes:
        raise APIError(Code.UPLOAD_INCOMPLETE, f"the file has {found} bytes instead of the declared {size_bytes}")
    # Ingest computes the digest.
    check_stored_header(services.storage, StoredFile(key, "", found), services.settings.limits.for_media())


def _request_sha256(source: _Source, options: dict[str, Any]) -> str:
    """Return a digest that is equal for repetitions of a request, to check idempotency keys."""
    sha256 = source.upload.sha256 if source.upload else source.sha256
    content = {"file": sha256, "url": source.url, "options": options}
    if source.upload_id is not None and sha256 is None:
        # Without a digest of the file, only the same upload counts as a repetition.
        content["upload"] = str(source.upload_id)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
