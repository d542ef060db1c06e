"""
Error responses: every failure is a problem document, ``application/problem+json`` by RFC 9457.

Only this module maps codes to HTTP statuses. The meaning of a code is stable; messages may change.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from flask import Flask, Response, g, json, request
from flask_limiter.errors import RateLimitExceeded
from gunicorn.http.errors import NoMoreData, ParseException
from pydantic import ValidationError
from sqlalchemy.exc import DataError, SQLAlchemyError
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound

from shared.db import UnconfirmedCommitError
from shared.errors import Code, DeepfakeStreamError
from shared.observability import get_logger

log = get_logger(__name__)

MEDIA_TYPE = "application/problem+json"

STATUS_OF_CODE: Final[Mapping[Code, int]] = {
    # The file
    Code.BAD_MEDIA: 422,
    Code.EMPTY_FILE: 422,
    Code.NOT_MEDIA: 422,
    Code.UNSUPPORTED_MEDIA: 422,
    Code.UNSUPPORTED_CODEC: 422,
    Code.NO_VIDEO_STREAM: 422,
    Code.TRUNCATED: 422,
    Code.TOO_LARGE: 413,
    Code.TOO_LONG: 422,
    Code.TOO_MANY_PIXELS: 422,
    Code.FRAME_RATE_TOO_HIGH: 422,
    # The request
    Code.BAD_REQUEST: 400,
    Code.INVALID_REQUEST: 422,
    Code.UNKNOWN_OPTION: 422,
    Code.UNKNOWN_MODEL: 422,
    Code.MISSING_FILE: 422,
    Code.INVALID_CURSOR: 422,
    Code.METADATA_TOO_LARGE: 422,
    Code.FORBIDDEN_URL: 422,
    Code.UNSUPPORTED_MEDIA_TYPE: 415,
    Code.UNAUTHENTICATED: 401,
    Code.MISSING_SCOPE: 403,
    Code.NOT_FOUND: 404,
    Code.METHOD_NOT_ALLOWED: 405,
    Code.IDEMPOTENCY_CONFLICT: 409,
    Code.JOB_ALREADY_FINAL: 409,
    Code.JOB_NOT_FINAL: 409,
    Code.TOO_MANY_SHARES: 409,
    Code.DELIVERY_PENDING: 409,
    Code.UPLOAD_INCOMPLETE: 409,
    Code.NO_EVIDENCE_KEY: 409,
    Code.PRECONDITION_FAILED: 412,
    Code.REQUEST_TIMEOUT: 408,
    # Limits
    Code.RATE_LIMITED: 429,
    Code.TOO_MANY_OPEN_JOBS: 429,
    Code.TOO_MANY_OPEN_UPLOADS: 429,
    Code.STORAGE_QUOTA_EXCEEDED: 403,
    Code.TOO_MANY_UPLOADS: 503,
    Code.OVERLOADED: 503,
    # The service
    Code.STORAGE_ERROR: 503,
    Code.MEDIA_MISSING: 410,
    Code.SERVICE_UNAVAILABLE: 503,
    Code.MODEL_ERROR: 503,
    Code.INTERNAL_ERROR: 500,
}
"""HTTP status of every code in error responses."""

JOB_ONLY_CODES: Final = tuple(code for code in Code if code not in STATUS_OF_CODE)
"""Codes that appear only in the ``error`` of a job, a segment or a delivery."""

_CODE_OF_STATUS: Final[Mapping[int, Code]] = {
    400: Code.BAD_REQUEST,
    401: Code.UNAUTHENTICATED,
    403: Code.MISSING_SCOPE,
    404: Code.NOT_FOUND,
    405: Code.METHOD_NOT_ALLOWED,
    408: Code.REQUEST_TIMEOUT,
    412: Code.PRECONDITION_FAILED,
    413: Code.TOO_LARGE,
    415: Code.UNSUPPORTED_MEDIA_TYPE,
    429: Code.RATE_LIMITED,
    503: Code.SERVICE_UNAVAILABLE,
}


EXAMPLE_ID: Final = "01a21db6-8ff1-7c4c-b05f-d3c74dc15979"


class APIError(DeepfakeStreamError):
    """
    An error response.

    Args:
        code: A code in ``STATUS_OF_CODE``.
        detail: One sentence for the client.
        headers: Additional response headers.
        errors: Name and detail of each mistake in the request.
    """

    def __init__(
        self,
        code: Code,
        detail: str,
        *,
        headers: dict[str, str] | None = None,
        errors: list[dict[str, str]] | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.headers = headers or {}
        self.errors = errors


def problem_response(
    code: Code,
    detail: str,
    *,
    status: int | None = None,
    headers: dict[str, str] | None = None,
    errors: list[dict[str, str]] | None = None,
) -> Response:
    """Return a problem document as a response."""
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


def describe_validation(error: ValidationError) -> APIError:
    """Return the error for values that pydantic refused."""
    if any(not item["loc"] and item["type"] in ("model_type", "model_attributes_type") for item in error.errors()):
        # pydantic's sentence names a class.
        return APIError(Code.INVALID_REQUEST, "body: send a JSON object as application/json")
    found: dict[str, str] = {}
    for item in error.errors():
        # For an optional field pydantic reports a second error, that it is not None, and appends names of types to the
        # location. Clients need neither.
        if item["type"] != "none_required":
            location = ".".join(str(part) for part in item["loc"][:1] or ("body",))
            # pydantic's sentence names the first letter that it cannot parse.
            is_id = item["type"] == "uuid_parsing"
            found.setdefault(location, "this is no id, which looks like " + EXAMPLE_ID if is_id else item["msg"])
    errors = [{"name": name, "detail": detail} for name, detail in found.items()]
    unknown = [item["loc"][-1] for item in error.errors() if item["type"] == "extra_forbidden"]
    if unknown:
        return APIError(Code.UNKNOWN_OPTION, f"unknown option {unknown[0]!r}", errors=errors)
    return APIError(Code.INVALID_REQUEST, f"{errors[0]['name']}: {errors[0]['detail']}", errors=errors)


def validation_problem(error: ValidationError) -> Response:
    """Return the response for a request that pydantic refused."""
    return _from_api_error(describe_validation(error))


def register_error_handlers(app: Flask) -> None:
    """Turn every failure of *app* into a problem document."""
    app.register_error_handler(APIError, _from_api_error)
    app.register_error_handler(ValidationError, validation_problem)
    app.register_error_handler(DeepfakeStreamError, _from_shared_error)
    app.register_error_handler(HTTPException, _from_http_exception)
    app.register_error_handler(SQLAlchemyError, _from_database_error)
    app.register_error_handler(ParseException, _from_broken_body)
    app.register_error_handler(NoMoreData, _from_broken_body)
    app.register_error_handler(Exception, _from_defect)


def _from_api_error(error: APIError) -> Response:
    return problem_response(error.code, str(error), headers=error.headers, errors=error.errors)


def _from_shared_error(error: DeepfakeStreamError) -> Response:
    status = STATUS_OF_CODE.get(error.code, 500)
    if status >= 500:
        log.error("request failed", code=error.code, exc_info=error)
    headers = {"Retry-After": "5"} if status == 503 else None
    return problem_response(error.code, str(error), headers=headers)


def _from_http_exception(error: HTTPException) -> Response:
    if isinstance(error.response, Response):
        # The response was made by the code that aborted, for instance the validation of a request.
        return error.response
    status = error.code or 500
    headers = {
        name: value for name, value in error.get_headers() if name.lower() not in ("content-type", "content-length")
    }
    detail = error.description or HTTPStatus(status).phrase
    if isinstance(error, NotFound) and error.description == NotFound.description:
        detail = "there is nothing at this address; addresses begin with /v1/ and end without a slash, see /docs"
    if isinstance(error, MethodNotAllowed):
        takes = ", ".join(sorted(set(error.valid_methods or ()) - {"HEAD", "OPTIONS"}))
        detail = f"this address does not take {request.method}; it takes {takes}"
    if isinstance(error, RateLimitExceeded) and not error.limit.error_message:
        detail = f"rate limit of {error.limit.limit} exceeded; wait as long as Retry-After says"
    return problem_response(_CODE_OF_STATUS.get(status, Code.BAD_REQUEST), detail, status=status, headers=headers)


def _from_database_error(error: SQLAlchemyError) -> Response:
    if isinstance(error, DataError):
        return problem_response(Code.INVALID_REQUEST, "a value is out of range")
    log.error("database error in a request", exc_info=error)
    detail = "the database is unavailable; nothing was accepted, retry later"
    if isinstance(error, UnconfirmedCommitError) and request.method != "GET":
        detail = (
            "the connection to the database was lost during the commit, so the request may have been accepted; retry"
            " with the same Idempotency-Key, or check whether it was before you retry without one"
        )
    return problem_response(Code.SERVICE_UNAVAILABLE, detail, headers={"Retry-After": "5"})


def _from_broken_body(error: ParseException | NoMoreData) -> Response:
    """Return the response for a chunked body that is malformed or incomplete."""
    log.info("malformed chunked body", why=str(error))
    g.is_body_broken = True
    return problem_response(Code.BAD_REQUEST, "the chunked body is malformed or incomplete")


def is_body_broken() -> bool:
    """Return whether the body of the current request is malformed, so that its end is unknown."""
    return bool(g.get("is_body_broken"))


def _from_defect(error: Exception) -> Response:
    log.error("request failed unexpectedly", exc_info=error)
    return problem_response(Code.INTERNAL_ERROR, "internal error; it was logged under this request's id")
