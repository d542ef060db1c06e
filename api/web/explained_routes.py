"""Explanations for those who have a link to the report of a job."""

import uuid
from typing import Final

from flask import Response
from sqlalchemy.orm import Session

from api.errors import APIError
from api.explanations import image_response, load_image
from api.responses import document_response
from api.schemas import IMAGE_NAME
from api.services import current_services
from api.slots import take_slot
from api.web.pages import BUSY_RETRY_S, blueprint, find_linked_job
from shared.documents.explanations import ExplanationDocument
from shared.errors import Code
from shared.jobs.explanations import find_explanation
from shared.models import Explanation

NO_EXPLANATION: Final = "this report has no explanation"
IMAGE_WAIT_S: Final = 2.0
"""How long a request for an image waits for a slot. A page has up to 80 images, which browsers request a few at a time,
and an image that is refused is missing: browsers do not ask again."""


@blueprint.get("/jobs/<uuid:job_id>/report/explanations")
def explanation(job_id: uuid.UUID) -> Response:
    """Return the explanation of the job, as the API gives it."""
    with current_services().sessions.transaction() as session:
        return document_response(ExplanationDocument.from_row(_find(session, job_id)))


@blueprint.get("/jobs/<uuid:job_id>/report/explanations/<string:name>")
def explanation_image(job_id: uuid.UUID, name: str) -> Response:
    """Send one image of the explanation of the job."""
    services = current_services()
    with services.sessions.transaction() as session:
        found = _find(session, job_id)
    if IMAGE_NAME.fullmatch(name) is None:
        raise APIError(Code.NOT_FOUND, "this explanation has no such image")
    slot = take_slot(
        services.viewing_images,
        refusal="too many people are looking at explanations",
        retry_after_s=BUSY_RETRY_S,
        wait_s=IMAGE_WAIT_S,
    )
    # Only while it is read: what is sent then is in memory, and small.
    try:
        data = load_image(services, found, name)
    finally:
        slot.release()
    return image_response(data)


def _find(session: Session, job_id: uuid.UUID) -> Explanation:
    found = find_explanation(session, find_linked_job(session, job_id).id)
    if found is None:
        raise APIError(Code.NOT_FOUND, NO_EXPLANATION)
    return found
