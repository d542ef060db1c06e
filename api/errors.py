"""
Errors on the wire: one shape for every failure, RFC 9457 ``application/problem+json``.

This module alone turns codes into HTTP statuses. A code never changes its meaning; a sentence may.
"""

from http import HTTPStatus
from typing import Any

from flask import Flask, Response, g, json
from flask_limiter.errors import RateLimitExceeded
from pydantic import ValidationError
from sqlalchemy.exc import DataError, SQLAlchemyError
from werkzeug.exceptions import HTTPException

from shared.errors import DeepfakeStreamError
from shared.observability import get_logger

log = get_logger(__name__)

MEDIA_TYPE = "application/problem+json"

STATUS_OF_CODE = {
    # The file
    "bad_media": 422,
    "empty_file": 422,
    "not_media": 422,
    "unsupported_media": 422,
    "unsupported_codec": 422,
    "no_video_stream": 422,
    "truncated": 422,
    "too_large": 413,
    "too_long": 422,
    "too_many_pixels": 422,
    "frame_rate_too_high": 422,
    # The request
    "bad_request": 400,
    "invalid_request": 422,
    "unknown_option": 422,
    "unknown_model": 422,
    "missing_file": 422,
    "invalid_cursor": 422,
    "metadata_too_large": 422,
    "forbidden_url": 422,
    "unsupported_media_type": 415,
    "unauthenticated": 401,
    "missing_scope": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "idempotency_conflict": 409,
    "job_already_final": 409,
    "delivery_pending": 409,
    "upload_incomplete": 409,
    "no_direct_uploads": 409,
    "precondition_failed": 412,
    "request_timeout": 408,
    # Limits
    "rate_limited": 429,
    "too_many_open_jobs": 429,
    "too_many_open_uploads": 429,
    "storage_quota_exceeded": 403,
    "too_many_uploads": 503,
    "overloaded": 503,
    # The service
    "storage_error": 503,
    "media_missing": 410,
    "service_unavailable": 503,
    "model_error": 503,
    "internal_error": 500,
}
"""Every code the API answers with, and its status."""

JOB_ONLY_CODES = (
    "checksum_mismatch",
    "decode_failed",
    "decode_timeout",
    "source_error",
    "source_refused",
    "source_unreachable",
    "attempts_exhausted",
    "cancelled",
)
"""Codes that stand in a job's or segment's ``error``, never in a response's status."""

_CODE_OF_STATUS = {
    400: "bad_request",
    401: "unauthenticated",
    403: "missing_scope",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    412: "precondition_failed",
    413: "too_large",
    415: "unsupported_media_type",
    429: "rate_limited",
    503: "service_unavailable",
}


class APIError(Exception):
    """
    An answer other than the one that was asked for.

    Args:
        code: A key of ``STATUS_OF_CODE``.
        detail: One sentence for the client.
        headers: To send along.
        errors: What is wrong where, for requests with several mistakes.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        headers: dict[str, str] | None = None,
        errors: list[dict[str, str]] | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.headers = headers or {}
        self.errors = errors


def problem(
    code: str,
    detail: str,
    *,
    status: int | None = None,
    headers: dict[str, str] | None = None,
    errors: list[dict[str, str]] | None = None,
) -> Response:
    """A problem document as a response."""
    status = status or STATUS_OF_CODE.get(code, 500)
    body: dict[str, Any] = {
        "type": f"urn:deepfakestream:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": g.get("request_id"),
    }
    if errors:
        body["errors"] = errors
    response = Response(json.dumps(body) + "\n", status=status, content_type=MEDIA_TYPE)
    response.headers.update(headers or {})
    return response


def validation_problem(error: ValidationError) -> Response:
    """What pydantic found wrong with a request."""
    found: dict[str, str] = {}
    for item in error.errors():
        # An option may also be absent, which the library counts as a second mistake, and it adds its names of types to
        # the place; neither is a client's business.
        if item["type"] != "none_required":
            place = ".".join(str(part) for part in item["loc"][:1] or ("body",))
            found.setdefault(place, item["msg"])
    errors = [{"name": name, "detail": detail} for name, detail in found.items()]
    unknown = [item["loc"][-1] for item in error.errors() if item["type"] == "extra_forbidden"]
    if unknown:
        return problem("unknown_option", f"there is no option {unknown[0]!r}", errors=errors)
    return problem("invalid_request", f"{errors[0]['name']}: {errors[0]['detail']}", errors=errors)


def register_error_handlers(app: Flask) -> None:
    """Make every failure of *app* a problem document."""
    app.register_error_handler(APIError, _from_api_error)
    app.register_error_handler(ValidationError, validation_problem)
    app.register_error_handler(DeepfakeStreamError, _from_shared_error)
    app.register_error_handler(HTTPException, _from_http_exception)
    app.register_error_handler(SQLAlchemyError, _from_database_error)
    app.register_error_handler(Exception, _from_defect)


def _from_api_error(error: APIError) -> Response:
    return problem(error.code, str(error), headers=error.headers, errors=error.errors)


def _from_shared_error(error: DeepfakeStreamError) -> Response:
    status = STATUS_OF_CODE.get(error.code, 500)
    if status >= 500:
        log.error("request failed", code=error.code, exc_info=error)
    headers = {"Retry-After": "5"} if status == 503 else None
    return problem(error.code, str(error), headers=headers)


def _from_http_exception(error: HTTPException) -> Response:
    if isinstance(error.response, Response):
        # Made on purpose by whoever aborted, for instance by the validation of a request.
        return error.response
    status = error.code or 500
    headers = {
        name: value for name, value in error.get_headers() if name.lower() not in ("content-type", "content-length")
    }
    detail = error.description or HTTPStatus(status).phrase
    if isinstance(error, RateLimitExceeded) and not error.limit.error_message:
        detail = f"more requests than {error.limit.limit}; wait as long as Retry-After says"
    return problem(_CODE_OF_STATUS.get(status, "bad_request"), detail, status=status, headers=headers)


def _from_database_error(error: SQLAlchemyError) -> Response:
    if isinstance(error, DataError):
        return problem("invalid_request", "a value lies outside what can be stored or compared")
    log.error("the database failed a request", exc_info=error)
    return problem(
        "service_unavailable",
        "the service cannot reach its database; nothing was accepted, so try again",
        headers={"Retry-After": "5"},
    )


def _from_defect(error: Exception) -> Response:
    log.error("request failed unexpectedly", exc_info=error)
    return problem("internal_error", "an internal error, which has been logged under this request's id")
