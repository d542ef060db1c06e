"""The webhook log of a job."""

from http import HTTPStatus

from flask import Response
from flask_openapi3 import APIBlueprint, Tag
from sqlalchemy import select

from api.audit import current_actor
from api.auth import requires
from api.documentation import SECURITY, authenticated_problems
from api.errors import APIError
from api.ownership import find_own_job, lock_own_job
from api.responses import document_response
from api.schemas import DeliveryPath, JobPath
from api.services import current_services
from shared.audit import record_event
from shared.documents.webhooks import DeliveryDocument, DeliveryList
from shared.errors import Code
from shared.jobs.deliveries import list_deliveries, redeliver
from shared.models import Delivery

blueprint = APIBlueprint(
    "deliveries", __name__, url_prefix="/v1", abp_tags=[Tag(name="webhooks")], abp_security=SECURITY
)


@blueprint.get(
    "/jobs/<string:job_id>/deliveries",
    operation_id="listDeliveries",
    responses={200: DeliveryList, **authenticated_problems(404, 422)},
)
@requires("jobs:read")
def get_deliveries(path: JobPath) -> Response:
    """List every attempt to deliver the job's webhook, oldest first."""
    with current_services().sessions.transaction() as session:
        find_own_job(session, path.job_id)
        items = [DeliveryDocument.from_delivery(delivery) for delivery in list_deliveries(session, path.job_id)]
    return document_response(DeliveryList(items=items))


@blueprint.post(
    "/jobs/<string:job_id>/deliveries/<int:number>/redeliver",
    operation_id="redeliver",
    responses={202: DeliveryDocument, **authenticated_problems(404, 409, 422)},
)
@requires("jobs:write")
def send_again(path: DeliveryPath) -> Response:
    """Deliver an event again, with the same ``webhook-id``. A success switches the receiver on again."""
    with current_services().sessions.transaction() as session:
        # The lock serialises the numbering of concurrent attempts.
        job = lock_own_job(session, path.job_id)
        wanted = select(Delivery).where(Delivery.job_id == job.id, Delivery.number == path.number)
        delivery = session.scalars(wanted).one_or_none()
        if delivery is None:
            raise APIError(Code.NOT_FOUND, f"job {job.id} has no delivery {path.number}")
        if delivery.finished_at is None:
            raise APIError(Code.DELIVERY_PENDING, f"delivery {path.number} is still pending")
        again = redeliver(session, delivery)
        record_event(
            session, "delivery.repeated", owner=job.owner, actor=current_actor(), job_id=job.id, number=again.number
        )
        document = DeliveryDocument.from_delivery(again)
    return document_response(document, HTTPStatus.ACCEPTED)
