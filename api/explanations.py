"""Explanations of jobs: which parts of a face raised its score, and the faces of each person over time."""

import uuid
from typing import Final

from flask import Response
from pydantic import Field
from sqlalchemy.orm import Session

from api.admission import check_failed_recently, check_open_explanations
from api.audit import current_actor
from api.auth import requires
from api.documentation import authenticated_problems
from api.errors import APIError
from api.jobs import blueprint
from api.ownership import find_own_job, lock_own_job
from api.responses import accepted_response, document_response
from api.schemas import ImagePath, JobPath
from api.services import Services, current_services
from shared.audit import record_event
from shared.documents.base import POLL_AFTER_S
from shared.documents.explanations import ExplanationDocument
from shared.errors import Code, ObjectMissingError
from shared.jobs.explanations import find_explanation, is_requestable, read_images, request_explanation
from shared.models import Explanation
from shared.states import OPEN_EXPLANATION_STATUSES, JobStatus

IMAGE_TYPE: Final = "image/webp"
IMAGE_POLICY: Final = "default-src 'none'; sandbox"


class ExplanationAnswer(ExplanationDocument):
    """The explanation of a job, and when to ask for it again."""

    poll_after_s: float | None = Field(
        description="Ask for the explanation again in so many seconds. Null once it is made or has failed."
    )

    @classmethod
    def from_row(cls, row: Explanation) -> "ExplanationAnswer":
        """Build the answer with the explanation of *row*."""
        poll_after_s = POLL_AFTER_S if row.status in OPEN_EXPLANATION_STATUSES else None
        return cls.model_construct(**dict(ExplanationDocument.from_row(row)), poll_after_s=poll_after_s)


@blueprint.post(
    "/jobs/<string:job_id>/explanations",
    operation_id="explainJob",
    responses={202: ExplanationAnswer, **authenticated_problems(404, 409, 410, 422)},
)
@requires("jobs:write")
def explain(path: JobPath) -> Response:
    """
    Explain the faces of a job that has succeeded.

    Repeating the request changes nothing while the explanation is pending, running or done. One that failed is tried
    again, but not within a minute of its failure. Status, verdict and webhook of the job do not change.
    """
    services = current_services()
    with services.sessions.transaction() as session:
        job = lock_own_job(session, path.job_id)
        if job.status != JobStatus.SUCCEEDED:
            code = Code.JOB_ALREADY_FINAL if job.is_final else Code.JOB_NOT_FINAL
            raise APIError(code, f"job {job.id} has no result to explain: its status is {job.status}")
        known = find_explanation(session, job.id)
        before = None if known is None else (known.status, known.created_at, known.finished_at)
        if is_requestable(job, known):
            if known is not None:
                check_failed_recently(session, known)
            check_open_explanations(session, services.settings.api, job.owner)
        found = request_explanation(session, job)
        if before != (found.status, found.created_at, found.finished_at):
            record_event(session, "job.explained", owner=job.owner, actor=current_actor(), job_id=job.id)
        document = ExplanationAnswer.from_row(found)
    return accepted_response(document, f"/v1/jobs/{path.job_id}/explanations")


@blueprint.get(
    "/jobs/<string:job_id>/explanations",
    operation_id="getExplanation",
    responses={200: ExplanationAnswer, **authenticated_problems(404, 422)},
)
@requires("jobs:read")
def get_explanation(path: JobPath) -> Response:
    """Get the explanation of a job: its state and, once it is made, people, faces and names of images."""
    with current_services().sessions.transaction() as session:
        document = ExplanationAnswer.from_row(_find(session, find_own_job(session, path.job_id).id))
    return document_response(document)


@blueprint.get(
    "/jobs/<string:job_id>/explanations/<string:name>",
    operation_id="getExplanationImage",
    responses={
        "200": {
            "description": "The image.",
            "content": {IMAGE_TYPE: {"schema": {"type": "string", "format": "binary"}}},
        },
        **authenticated_problems(404, 410, 422),
    },
)
@requires("jobs:read")
def get_image(path: ImagePath) -> Response:
    """Get one image of an explanation."""
    services = current_services()
    with services.sessions.transaction() as session:
        found = _find(session, find_own_job(session, path.job_id).id)
    return image_response(load_image(services, found, path.name))


def load_image(services: Services, explanation: Explanation, name: str) -> bytes:
    """
    Return one image of *explanation*, whose result is loaded.

    Raises:
        APIError: It has no image of this name.
        ObjectMissingError: Its images were erased.
    """
    place = (explanation.result or {}).get("images", {}).get(name)
    if place is None:
        raise APIError(Code.NOT_FOUND, "this explanation has no such image")
    if explanation.storage_key is None:
        raise ObjectMissingError("the images of this explanation were erased")
    return read_images(services.storage, explanation.storage_key, {name: place})[name]


def image_response(data: bytes) -> Response:
    """Return the answer with an image; it runs nothing, whatever it is opened as."""
    response = Response(data, mimetype=IMAGE_TYPE)
    response.headers["Cache-Control"] = "private, no-store"
    response.headers["Content-Security-Policy"] = IMAGE_POLICY
    return response


def _find(session: Session, job_id: uuid.UUID) -> Explanation:
    found = find_explanation(session, job_id)
    if found is None:
        raise APIError(
            Code.NOT_FOUND, "no explanation of this job was requested; POST to /v1/jobs/{id}/explanations requests one"
        )
    return found
