"""The section ``webhooks`` of the OpenAPI document: what a receiver gets, and how it answers."""

from typing import Any, Final

from flask_openapi3.models import OPENAPI3_REF_PREFIX, Schema

from shared.documents.webhooks import PAYLOADS
from shared.states import WebhookEvent

_SUMMARIES: Final = {
    WebhookEvent.JOB_SUCCEEDED: "A job has a verdict.",
    WebhookEvent.JOB_FAILED: "A job has failed.",
    WebhookEvent.JOB_CANCELLED: "A job was cancelled.",
    WebhookEvent.STREAM_ALERT: "A person in a live stream is suspicious, or is not any more.",
    WebhookEvent.STREAM_ENDED: "A live stream has ended, and is judged.",
    WebhookEvent.BATCH_ENDED: "The last job of a batch has ended.",
}
_HEADERS: Final = (
    ("webhook-id", {"type": "string"}, "The event's id, the same in every attempt: a receiver ignores those it has."),
    (
        "webhook-timestamp",
        {"type": "string", "pattern": "^[0-9]+$"},
        "When it was signed, in seconds since 1970.",
    ),
    (
        "webhook-signature",
        {"type": "string", "pattern": "^v1,[A-Za-z0-9+/]+=*$"},
        "HMAC-SHA256 with the `whsec_…` secret over id, timestamp and body, joined by full stops, in base64.",
    ),
)
_ANSWERS: Final = {
    "2XX": {"description": "Received; the event is not sent again."},
    "410": {"description": "Switches the receiver off, until a redelivery to it succeeds."},
    "default": {
        "description": "A failure, a redirect included. The event is sent again for about a day, later if `Retry-After`"
        " says so."
    },
}


def describe_webhooks() -> dict[str, Any]:
    """Return the section: each event with its headers, its body and the answers that are expected."""
    return {str(event): {"post": _describe(event)} for event in PAYLOADS}


def payload_schemas() -> dict[str, Schema]:
    """Return the schemas of all bodies, and those to which they refer, by name."""
    found: dict[str, Any] = {}
    for model in PAYLOADS.values():
        schema = model.model_json_schema(mode="serialization", ref_template=f"{OPENAPI3_REF_PREFIX}/{{model}}")
        found |= schema.pop("$defs")
        found[model.__name__] = schema
    return {name: Schema(**schema) for name, schema in found.items()}


def _describe(event: WebhookEvent) -> dict[str, Any]:
    reference = {"$ref": f"{OPENAPI3_REF_PREFIX}/{PAYLOADS[event].__name__}"}
    noun, _, verb = event.partition(".")
    return {
        "tags": ["webhooks"],
        "operationId": f"{noun}{verb.title()}",
        "summary": _SUMMARIES[event],
        "description": "Sent to `webhook_url`, unless `webhook_events` leaves it out.",
        "security": [],
        "parameters": [
            {"name": name, "in": "header", "required": True, "schema": schema, "description": description}
            for name, schema, description in _HEADERS
        ],
        "requestBody": {"required": True, "content": {"application/json": {"schema": reference}}},
        "responses": _ANSWERS,
    }
