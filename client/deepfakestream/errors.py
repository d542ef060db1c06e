"""
The errors that this package raises, as a tree.

    DeepfakeStreamError
    ├── ConnectionFailedError        the service did not answer
    ├── WaitTimeoutError             the job, its explanation or the batch did not end in time; it goes on
    ├── WebhookVerificationError     not a webhook of this service, or an old one
    ├── MissingPartError             this installation lacks what the command needs
    ├── MissingKeyError              no API key is known for the address
    ├── AddressError                 not the address of a service, or not an API key
    ├── NotMediaError                the file is certainly neither an image nor a video
    │   └── EmptyFileError           it has no bytes
    ├── BundleError                  an evidence bundle, or what it is to be checked with, is not acceptable
    └── APIError                     the service answered with a problem: status, code, detail, request_id
        ├── UnexpectedAnswerError    3xx, or a success without a document of this service
        ├── AuthenticationError      401, 403
        ├── NotFoundError            404, 410
        ├── ConflictError            409
        ├── TooLargeError            413
        ├── InvalidRequestError      other 4xx: the file or an option is not acceptable; see ``code``
        ├── RateLimitedError         429; retry_after_s
        └── ServerError              5xx
"""

from typing import Any


class DeepfakeStreamError(Exception):
    """Base class of all errors that this package raises."""

    code = "client_error"


class ConnectionFailedError(DeepfakeStreamError):
    """The service did not answer."""

    code = "connection_failed"


class WaitTimeoutError(DeepfakeStreamError):
    """The job, its explanation or the batch did not end in time. It goes on; wait again, or cancel it."""

    code = "wait_timeout"


class WebhookVerificationError(DeepfakeStreamError):
    """The request is not a webhook of this service, was changed on its way, or is too old."""

    code = "webhook_not_verified"


class MissingPartError(DeepfakeStreamError):
    """This installation lacks what the command needs."""

    code = "missing_part"


class MissingKeyError(DeepfakeStreamError):
    """No API key is known for the address; a key is sent only to the address that it was created for."""

    code = "missing_key"


class AddressError(DeepfakeStreamError, ValueError):
    """The text is not the address of a service, or not an API key."""

    code = "invalid_address"


class NotMediaError(DeepfakeStreamError):
    """The file is certainly neither an image nor a video, so it was not sent."""

    code = "not_media"


class EmptyFileError(NotMediaError):
    """The file has no bytes, so it was not sent."""

    code = "empty_file"


class BundleError(DeepfakeStreamError):
    """An evidence bundle is damaged, was changed, contradicts itself, or cannot be checked with what was given."""

    code = "bundle_refused"


class APIError(DeepfakeStreamError):
    """
    The service answered with a problem document.

    Attributes:
        status: HTTP status.
        code: Stable identifier of the kind of problem, for programs.
        detail: One sentence, for people.
        request_id: Identifier of the request, by which the operator of the service finds it in the logs.
        errors: Name and detail of each mistake, where the service names several.
    """

    errors: tuple[tuple[str, str], ...] = ()

    def __init__(self, status: int, code: str, detail: str, request_id: str | None = None) -> None:
        super().__init__(f"{detail} ({code})")
        self.status = status
        self.code = code
        self.detail = detail
        self.request_id = request_id


class UnexpectedAnswerError(APIError):
    """The answer cannot be read: it is not that of a DeepfakeStream service, or of an incompatible version."""


class AuthenticationError(APIError):
    """The API key is missing or wrong, or lacks a scope."""


class NotFoundError(APIError):
    """The job does not exist, or belongs to another owner."""


class ConflictError(APIError):
    """The request conflicts with the state of the job."""


class TooLargeError(APIError):
    """The file has more bytes than the service accepts."""


class InvalidRequestError(APIError):
    """The file or an option is not acceptable."""


class RateLimitedError(APIError):
    """There were too many requests; try again after ``retry_after_s`` seconds, if it is not None."""

    retry_after_s: float | None = None


class ServerError(APIError):
    """The service, or a server that it needs, failed."""


def error_from_response(status: int, body: Any, request_id: str | None, retry_after_s: float | None) -> APIError:
    """Make the error for a response of *status* with the parsed *body*, which need not be a problem document."""
    problem = body if isinstance(body, dict) else {}
    code = str(problem.get("code") or f"http_{status}")
    detail = str(problem.get("detail") or f"the service answered {status}")
    kind: type[APIError]
    if status < 400:
        kind = UnexpectedAnswerError
    elif status in (401, 403):
        kind = AuthenticationError
    elif status in (404, 410):
        kind = NotFoundError
    elif status == 409:
        kind = ConflictError
    elif status == 413:
        kind = TooLargeError
    elif status == 429:
        kind = RateLimitedError
    elif status >= 500:
        kind = ServerError
    else:
        kind = InvalidRequestError
    quoted = problem.get("request_id")
    error = kind(status, code, detail, quoted if isinstance(quoted, str) else request_id)
    error.errors = _read_errors(problem.get("errors"))
    if isinstance(error, RateLimitedError):
        error.retry_after_s = retry_after_s
    return error


def _read_errors(found: Any) -> tuple[tuple[str, str], ...]:
    listed = found if isinstance(found, list) else []
    return tuple((str(each.get("name")), str(each.get("detail"))) for each in listed if isinstance(each, dict))


def redirection_error(status: int, location: str) -> UnexpectedAnswerError:
    """Make the error for a redirection, which is not followed, since the key is meant for the given address alone."""
    return UnexpectedAnswerError(
        status,
        "redirected",
        f"the service redirects to {location}: if that is right, use it as the address of the service",
    )


def unexpected_answer_error(status: int, why: str, request_id: str | None = None) -> UnexpectedAnswerError:
    """Make the error for an answer that is not a document of this service."""
    return UnexpectedAnswerError(
        status,
        "unexpected_answer",
        f"the answer cannot be read ({why}): is the address that of a DeepfakeStream service?",
        request_id,
    )
