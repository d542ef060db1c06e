"""A check of webhooks that a receiver got against the section ``webhooks`` of the OpenAPI document."""

import json
from typing import Any

import jsonschema_rs

from tests.receiver import Received


def check_webhook(document: dict[str, Any], received: Received) -> str:
    """
    Assert that the OpenAPI *document* describes a request: its headers, and its body with every field.

    Returns:
        The event.
    """
    body = json.loads(received.body)
    operation = document["webhooks"][body["type"]]["post"]
    headers = {name.lower(): value for name, value in received.headers.items()}
    for parameter in operation["parameters"]:
        _validator(document, parameter["schema"]).validate(headers[parameter["name"]])
    [(kind, described)] = operation["requestBody"]["content"].items()
    assert headers["content-type"] == kind
    _validator(document, described["schema"]).validate(body)
    return str(body["type"])


def _validator(document: dict[str, Any], schema: dict[str, Any]) -> jsonschema_rs.Draft202012Validator:
    schemas = {name: _closed(one) for name, one in document["components"]["schemas"].items()}
    return jsonschema_rs.Draft202012Validator({**schema, "components": {"schemas": schemas}}, validate_formats=True)


def _closed(schema: Any) -> Any:
    """Return *schema* so that it refuses fields that it does not list."""
    if isinstance(schema, list):
        return [_closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: _closed(one) for name, one in schema.items()}
    return {"additionalProperties": False, **closed} if isinstance(schema.get("properties"), dict) else closed
