"""
What can go wrong, as a tree.

    DeepfakeStreamError
    ├── ConnectionFailedError        no answer at all
    ├── WaitTimeoutError             the job did not end in time; it goes on
    ├── WebhookVerificationError     not a webhook of this service, or an old one
    ├── MissingPartError             this installation lacks what the command needs
    ├── MissingKeyError              no API key is known for the address
    ├── AddressError                 what should be the address of a service, or a key to it, is none
    ├── NotMediaError                the file is surely neither an image nor a video
    │   └── EmptyFileError           it has no bytes
    ├── BundleError                  an evidence bundle, or what it is to be checked with, is not acceptable
    └── APIError                     the service answered with a problem: status, code, detail, request_id
        ├── UnexpectedAnswerError    3xx, or a success that is no document of this service
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
    """Anything that this package raises on purpose."""

    code = "client_error"


class ConnectionFailedError(DeepfakeStreamError):
    """The service gave no answer."""

    code = "connection_failed"


class WaitTimeoutError(DeepfakeStreamError):
    """The job did not end in time. It goes on; wait again or cancel it."""

    code = "wait_timeout"


class WebhookVerificationError(DeepfakeStreamError):
    """The request is no webhook of this service, was changed on its way, or is too old."""

    code = "webhook_not_verified"


class MissingPartError(DeepfakeStreamError):
    """This installation lacks what the command needs."""

    code = "missing_part"


class MissingKeyError(DeepfakeStreamError):
    """No API key is known for the address: keys are sent to the address they were made for, and to no other."""

    code = "missing_key"


class AddressError(DeepfakeStreamError, ValueError):
    """The address of a service, or a key to it, cannot be one."""

    code = "invalid_address"


class NotMediaError(DeepfakeStreamError):
    """The file is surely neither an image nor a video, so it was not sent."""

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
        code: Stable; decide by it.
        detail: One sentence.
        request_id: Quote it to the service's operator.
    """

    def __init__(self, status: int, code: str, detail: str, request_id: str | None = None) -> None:
        super().__init__(f"{detail} ({code})")
        self.status = status
        self.code = code
        self.detail = detail
        self.request_id = request_id


class UnexpectedAnswerError(APIError):
    """What answered is not a DeepfakeStream service, or one of another age: its answer cannot be read."""


class AuthenticationError(APIError):
    """No key, a wrong one, or one that lacks a scope."""


class NotFoundError(APIError):
    """No such job, or another owner's."""


class ConflictError(APIError):
    """In conflict with what is there."""


class TooLargeError(APIError):
    """More bytes than the service takes."""


class InvalidRequestError(APIError):
    """The file or an option is not acceptable."""


class RateLimitedError(APIError):
    """Too many requests; try again after ``retry_after_s``."""

    retry_after_s: float | None = None


class ServerError(APIError):
    """The service, or something that it needs, failed."""


def error_from_response(status: int, body: Any, request_id: str | None, retry_after_s: float | None) -> APIError:
    """The error for a response of *status* with the parsed *body*, which need not be a problem document."""
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
    if isinstance(error, RateLimitedError):
        error.retry_after_s = retry_after_s
    return error


def redirected(status: int, location: str) -> UnexpectedAnswerError:
    """The error for a redirection, which is not followed: the key is for the address that was asked."""
    return UnexpectedAnswerError(
        status, "redirected", f"the service points to {location}: if that is right, use it as the service's address"
    )


def unreadable(status: int, why: str, request_id: str | None = None) -> UnexpectedAnswerError:
    """The error for an answer that is no document of this service."""
    return UnexpectedAnswerError(
        status,
        "unexpected_answer",
        f"the answer cannot be read ({why}): is the address that of a DeepfakeStream service?",
        request_id,
    )
