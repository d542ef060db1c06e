"""Pictures of the newest faces in a live stream that was asked to keep them while it runs."""

import uuid
from typing import Final

from flask import Response
from sqlalchemy.orm import Session

from api.auth import requires
from api.documentation import authenticated_problems
from api.errors import APIError
from api.schemas import FacePath
from api.services import current_services
from api.streams import blueprint, find_own_stream
from shared.errors import Code
from shared.streams.faces import find_face

MEDIA_TYPE: Final = "image/jpeg"


@blueprint.get(
    "/streams/<string:stream_id>/faces/<int:person>",
    operation_id="getLastFace",
    responses={
        "200": {
            "description": "112 × 112 pixels.",
            "content": {MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}},
        },
        **authenticated_problems(404, 422),
    },
)
@requires("jobs:read")
def get_last_face(path: FacePath) -> Response:
    """
    Get the picture of a person's newest face, of a stream with `last_faces` that runs.

    It is erased once there is a newer one, when the person has not been seen for half a minute, and when the stream
    ends; while the source is away, it stays. Of a stream with very many people, only the 20 who were seen last have
    one.
    """
    with current_services().sessions.transaction() as session:
        job, _ = find_own_stream(session, path.stream_id)
        return send_face(session, job.id, path.person)


def send_face(session: Session, job_id: uuid.UUID, person: int) -> Response:
    """Return the picture of a person's newest face. Raises APIError with ``not_found`` if none is kept."""
    jpeg = find_face(session, job_id, person)
    if jpeg is None:
        raise APIError(Code.NOT_FOUND, f"no picture of person {person} is kept")
    response = Response(jpeg, mimetype=MEDIA_TYPE)
    response.headers["Cache-Control"] = "private, no-store"
    response.headers["Content-Security-Policy"] = "default-src 'none'; sandbox"
    return response
