"""What the OpenAPI document says beyond the schemas: problems, request bodies, response headers."""

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
Tells whether a face in an image or a video was swapped. Send a file, get a job, poll it or be called back.

**Errors** are `{MEDIA_TYPE}` with a stable `code`. Codes of refused requests:
{", ".join(f"`{code}` ({status})" for code, status in sorted(STATUS_OF_CODE.items()))}.
A job that fails later carries one of the file codes, or one of {", ".join(f"`{code}`" for code in JOB_ONLY_CODES)},
in its `error`.

**Webhooks** follow the Standard Webhooks specification: `webhook-id`, `webhook-timestamp` and `webhook-signature`
headers, signed with the `whsec_…` secret that came with the API key; the events are `job.succeeded`, `job.failed`
and `job.cancelled`, and `data` is the job as `GET /v1/jobs/{{job_id}}` gives it. Answer with 2xx. Failed deliveries
are repeated over about a day with the same `webhook-id`; 410 switches the receiver off.
""".strip()

_DESCRIPTIONS = {
    400: "The request cannot be read.",
    401: "No valid API key.",
    403: "The key lacks a scope.",
    404: "No such thing, or another owner's.",
    405: "The resource has no such method.",
    408: "The body did not arrive in time.",
    409: "In conflict with what is there.",
    412: "A precondition failed.",
    413: "Over a size limit, which is named.",
    415: "A body of a kind that is not taken.",
    429: "Asked too often, or too much is under way; `Retry-After` says when to come back.",
    422: "Understood, but not acceptable; `code` says why.",
    503: "Something the service depends on is away, or it has all it can do; try again.",
    500: "A defect of the service, logged under `request_id`.",
}


def problems(*statuses: int) -> dict[str | int, Any]:
    """Responses of an operation for the given statuses, beside those that every operation has."""
    return {
        str(status): {
            "description": _DESCRIPTIONS[status],
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in sorted({400, 422, 500, 503, *statuses})
    }


def authenticated_problems(*statuses: int) -> dict[str | int, Any]:
    """The failures of an operation that needs a key, as ``problems`` describes them."""
    return problems(401, 403, 429, *statuses)


def submission_body(form_schema: dict[str, Any], *json_schemas: dict[str, Any]) -> dict[str, Any]:
    """The forms of a submission, from the schemas that validate them."""
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
