"""Parts of the OpenAPI document beyond the schemas: description, problems, request bodies."""

from typing import Any

from api.errors import JOB_ONLY_CODES, MEDIA_TYPE, STATUS_OF_CODE

SECURITY: list[dict[str, list[str]]] = [{"apiKey": []}]
SECURITY_SCHEMES: dict[str, Any] = {
    "apiKey": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key, `dfs_…`, made by `deepfakestream keys create`.",
    }
}
DESCRIPTION = f"""
Detects swapped faces in images and videos. Send a file, get a job, then poll it or receive a webhook.

**Errors** are `{MEDIA_TYPE}` with a stable `code`. Codes of refused requests:
{", ".join(f"`{code}` ({status})" for code, status in sorted(STATUS_OF_CODE.items()))}.
A job that fails later has one of the file codes, or one of {", ".join(f"`{code}`" for code in JOB_ONLY_CODES)},
in its `error`.

**Webhooks** follow the Standard Webhooks specification: `webhook-id`, `webhook-timestamp` and `webhook-signature`
headers, signed with the `whsec_…` secret that came with the API key. The events and their bodies are in the section
`webhooks` of this document; `webhook_events` chooses some of them. Answer with 2xx. Failed deliveries are retried for
about a day with the same `webhook-id`; 410 switches the receiver off.
""".strip()

_DESCRIPTIONS = {
    400: "The request cannot be read.",
    401: "The API key is missing or invalid.",
    403: "The key lacks a scope.",
    404: "The resource does not exist or belongs to another owner.",
    405: "The resource does not support the method.",
    408: "The body did not arrive in time.",
    409: "The request conflicts with the state of the resource.",
    410: "The stored file is gone.",
    412: "A precondition failed.",
    413: "A size limit is exceeded; `detail` names it.",
    415: "The media type of the body is not supported.",
    429: "Too many requests, or too many open jobs or uploads; retry after `Retry-After`.",
    422: "The request is understood, but not acceptable; `code` says why.",
    503: "A dependency is unavailable, or the service is overloaded; retry later.",
    500: "An internal error, logged under `request_id`.",
}


def problems(*statuses: int) -> dict[str | int, Any]:
    """Describe the error responses of an operation: *statuses*, and those that every operation has."""
    return {
        str(status): {
            "description": _DESCRIPTIONS[status],
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in sorted({400, 422, 500, 503, *statuses})
    }


def authenticated_problems(*statuses: int) -> dict[str | int, Any]:
    """Describe the error responses of an operation that needs a key; see ``problems``."""
    return problems(401, 403, 429, *statuses)


def submission_body(form_schema: dict[str, Any], *json_schemas: dict[str, Any]) -> dict[str, Any]:
    """Describe the body of a submission from the schemas that validate it."""
    binary = {"schema": {"type": "string", "format": "binary"}}
    form = {
        **form_schema,
        "properties": {
            "file": {"type": "string", "format": "binary", "description": "The image or video."},
            **form_schema["properties"],
        },
        "required": ["file"],
    }
    return {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": form},
            "application/octet-stream": binary,
            "image/*": binary,
            "video/*": binary,
            "application/json": {"schema": {"anyOf": json_schemas}},
        },
    }
