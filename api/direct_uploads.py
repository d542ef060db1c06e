"""Direct uploads: clients put large files into storage without passing them through the api."""

from flask import Response, jsonify
from flask_openapi3 import APIBlueprint, Tag

from api.admission import check_upload_quota
from api.audit import current_actor
from api.auth import caller, requires
from api.documentation import SECURITY, authenticated_problems
from api.errors import APIError
from api.schemas import UploadDocument, UploadRequest
from api.services import current_services
from shared.audit import record_event
from shared.containers import check_size
from shared.errors import Code
from shared.media.direct_uploads import begin_upload, incoming_key
from shared.models import new_id

blueprint = APIBlueprint("uploads", __name__, url_prefix="/v1", abp_tags=[Tag(name="jobs")], abp_security=SECURITY)


@blueprint.post(
    "/uploads", operation_id="beginUpload", responses={201: UploadDocument, **authenticated_problems(409, 413, 422)}
)
@requires("jobs:write")
def begin(body: UploadRequest) -> Response:
    """
    Get a presigned address for an upload.

    Put the file there with the headers given, then submit a job with `upload_id`. Services without storage in S3 answer
    `no_direct_uploads`; send the file to `POST /v1/jobs` instead.
    """
    services, settings = current_services(), current_services().settings
    check_size(body.size_bytes, settings.limits.for_media())
    lifetime_s = settings.storage.upload_valid_s
    owner, upload_id = caller().owner, new_id()
    # This is done before the transaction, since it may have to request credentials from the platform.
    signed = services.storage.presign_upload(incoming_key(upload_id), body.size_bytes, lifetime_s)
    if signed is None:
        raise APIError(Code.NO_DIRECT_UPLOADS, "this service has no direct uploads; send the file to POST /v1/jobs")
    with services.sessions.transaction() as session:
        check_upload_quota(session, settings.api, owner, body.size_bytes)
        upload = begin_upload(session, upload_id, owner=owner, size_bytes=body.size_bytes, lifetime_s=lifetime_s)
        record_event(session, "upload.announced", owner=owner, actor=current_actor(), size_bytes=body.size_bytes)
        document = {
            "id": str(upload.id),
            "method": "PUT",
            "url": signed.url,
            "headers": dict(signed.headers),
            "expires_at": upload.expires_at.isoformat(),
        }
    response = jsonify(document)
    response.status_code = 201
    return response
