"""The sources of jobs, and the jobs that are made of them: a file that has arrived, a URL, or a direct upload."""

import hashlib
import json
import uuid
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from api.auth import caller
from api.errors import APIError
from api.schemas import UploadSubmission, URLSubmission
from api.services import Services
from api.uploads import check_stored_header
from shared.errors import Code, ObjectMissingError
from shared.jobs.creation import NewJob
from shared.manifests import Manifest
from shared.media.direct_uploads import claim_upload, find_upload, incoming_key
from shared.media.files import StoredFile
from shared.models import Media


@dataclass(frozen=True, slots=True)
class Source:
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
        """The kind of source, for the metric of accepted jobs."""
        return "url" if self.url else "direct" if self.upload_id else "upload"


def read_source(fields: dict[str, Any]) -> tuple[dict[str, Any], Source]:
    """
    Return the options and the source of a JSON object that submits a job.

    Raises:
        APIError: It has not exactly one source.
        ValidationError: An option is unknown or has a wrong value.
    """
    _check_source(fields)
    # Strict, since "2" is not a number in JSON.
    kind = UploadSubmission if "upload_id" in fields else URLSubmission
    given = kind.model_validate(fields, strict=True).model_dump(exclude_none=True)
    return given, Source(**{name: given.pop(name) for name in ("url", "upload_id", "sha256") if name in given})


def new_job(
    source: Source,
    options: dict[str, Any],
    manifest: Manifest,
    *,
    media: Media | None = None,
    idempotency_key: str | None = None,
) -> NewJob:
    """
    Return the values of a job of the caller.

    Args:
        options: Options that were given; others are those of the checkpoint.
        media: The stored file of a source that is one.
    """
    return NewJob(
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
        webhook_events=options.get("webhook_events"),
        metadata=options.get("metadata", {}),
        idempotency_key=idempotency_key,
        request_sha256=_request_sha256(source, options),
        explain=options.get("explain", False),
    )


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


def claim(session: Session, upload_id: uuid.UUID) -> None:
    """Take a direct upload of the caller for a job. Raises APIError with ``not_found``."""
    if not claim_upload(session, owner=caller().owner, upload_id=upload_id):
        raise APIError(Code.NOT_FOUND, f"upload {upload_id} does not exist, has expired or belongs to another job")


def check_arrival(services: Services, upload_id: uuid.UUID) -> None:
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


def _request_sha256(source: Source, options: dict[str, Any]) -> str:
    """Return a digest that is equal for repetitions of a request, to check idempotency keys."""
    sha256 = source.upload.sha256 if source.upload else source.sha256
    content = {"file": sha256, "url": source.url, "options": options}
    if source.upload_id is not None and sha256 is None:
        # Without a digest of the file, only the same upload counts as a repetition.
        content["upload"] = str(source.upload_id)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
