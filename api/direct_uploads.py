"""
Direct uploads: clients send files before they submit jobs, and past the api where they can reach storage.

Where they cannot, as with storage in a folder, the api gives an address of its own, and streams the file to storage.
"""

import secrets
import uuid
from typing import Final

from flask import Response, jsonify, request, url_for
from flask_openapi3 import APIBlueprint, Tag

from api.admission import CONTENT, UPLOAD_RETRY_AFTER_S, check_upload_quota, upload_slot
from api.audit import current_actor
from api.auth import caller, requires
from api.documentation import SECURITY, authenticated_problems, problems
from api.errors import APIError
from api.schemas import UploadDocument, UploadPath, UploadRequest, UploadToken
from api.services import Services, current_services
from api.shares import digest_token
from api.uploads import receive_exactly
from shared.audit import record_event
from shared.containers import check_size
from shared.errors import Code
from shared.media.direct_uploads import begin_upload, discard_late_file, find_expected_size, incoming_key
from shared.models import new_id

_TAGS = [Tag(name="jobs")]
blueprint = APIBlueprint("uploads", __name__, url_prefix="/v1", abp_tags=_TAGS, abp_security=SECURITY)
content = APIBlueprint(CONTENT, __name__, url_prefix="/v1", abp_tags=_TAGS)

BODIES_PER_UPLOAD: Final = 2
"""
Bodies that a process takes for one upload at a time: a client that comes back need not wait until the loss of its
earlier connection is noticed, and no address takes all slots for uploads, or the disk.
"""


@blueprint.post(
    "/uploads", operation_id="beginUpload", responses={201: UploadDocument, **authenticated_problems(413, 422)}
)
@requires("jobs:write")
def begin(body: UploadRequest) -> Response:
    """
    Get an address for an upload.

    Put the file there with the headers given, then submit a job or a batch with `upload_id`. It is an address of
    storage in S3, if clients can reach that, and one of this service otherwise.
    """
    services, settings = current_services(), current_services().settings
    check_size(body.size_bytes, settings.limits.for_media())
    lifetime_s = settings.storage.upload_valid_s
    owner, upload_id = caller().owner, new_id()
    # This is done before the transaction, since it may have to request credentials from the platform.
    signed = services.storage.presign_upload(incoming_key(upload_id), body.size_bytes, lifetime_s)
    token = secrets.token_urlsafe(32) if signed is None else None
    with services.sessions.transaction() as session:
        check_upload_quota(session, settings.api, owner, body.size_bytes)
        upload = begin_upload(
            session,
            upload_id,
            owner=owner,
            size_bytes=body.size_bytes,
            lifetime_s=lifetime_s,
            token_sha256=None if token is None else digest_token(token),
        )
        record_event(session, "upload.announced", owner=owner, actor=current_actor(), size_bytes=body.size_bytes)
        expires_at = upload.expires_at.isoformat()
    if signed is None:
        url = url_for(f"{CONTENT}.put_content", upload_id=upload_id, token=token, _external=True)
        headers = {"Content-Length": str(body.size_bytes)}
    else:
        url, headers = signed.url, dict(signed.headers)
    response = jsonify(
        {"id": str(upload_id), "method": "PUT", "url": url, "headers": headers, "expires_at": expires_at}
    )
    response.status_code = 201
    return response


@content.put(
    "/uploads/<string:upload_id>/content",
    operation_id="putUpload",
    responses={"200": {"description": "The whole file is stored."}, **problems(404, 413, 429)},
    openapi_extensions={
        "requestBody": {
            "required": True,
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
def put_content(path: UploadPath, query: UploadToken) -> Response:
    """
    Send the file of an upload to the address that `POST /v1/uploads` gave, without an API key.

    It takes exactly the announced number of bytes, with `Content-Length`. Until a job has the upload, the file can be
    sent again, and replaces the earlier one when all of it has arrived.
    """
    services, upload_id = current_services(), path.upload_id
    size_bytes = _expected_size(services, upload_id, query.token)
    refusal = APIError(
        Code.TOO_MANY_UPLOADS,
        "this file is being sent by others already; nothing was accepted, retry later",
        headers={"Retry-After": str(UPLOAD_RETRY_AFTER_S)},
    )
    with (
        services.receiving.hold(upload_id, refusal),
        upload_slot(services),
        receive_exactly(request, services.storage, incoming_key(upload_id), size_bytes) as upload,
    ):
        # A job may have taken an earlier file meanwhile, which must not be replaced then.
        _expected_size(services, upload_id, query.token)
        upload.commit()
    # What ended the upload since then did not find this file to remove it. A job that took it since then gets either
    # the earlier file or this one, as a whole.
    with services.sessions.transaction() as session:
        is_late = discard_late_file(session, upload_id)
    if is_late:
        raise _not_open()
    return Response(status=200)


def _expected_size(services: Services, upload_id: uuid.UUID, token: str) -> int:
    """Return the announced size of an open upload. Raises the same APIError for whatever is wrong."""
    with services.sessions.transaction() as session:
        size_bytes = find_expected_size(session, upload_id, digest_token(token))
    if size_bytes is None:
        raise _not_open()
    return size_bytes


def _not_open() -> APIError:
    return APIError(
        Code.NOT_FOUND,
        "no file is expected at this address: it is wrong or has expired, or a job has the upload already; request"
        " another one by POST /v1/uploads",
    )
