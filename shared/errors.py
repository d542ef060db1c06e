"""
The error tree that both services share.

    DeepfakeStreamError
    ├── MediaError                     a fault of the sender's file; never retried
    │   ├── EmptyFileError             empty_file
    │   ├── ChecksumMismatchError      checksum_mismatch
    │   ├── NotMediaError              not_media
    │   ├── UnsupportedMediaError      unsupported_media
    │   ├── UnsupportedCodecError      unsupported_codec
    │   ├── NoVideoStreamError         no_video_stream
    │   ├── TruncatedError             truncated
    │   ├── TooLargeError              too_large
    │   ├── TooLongError               too_long
    │   ├── TooManyPixelsError         too_many_pixels
    │   └── FrameRateTooHighError      frame_rate_too_high
    ├── SourceError                    a URL source could not be fetched
    │   ├── ForbiddenURLError          forbidden_url
    │   ├── SourceRefusedError         source_refused        (the server answered with an error)
    │   ├── SourceUnreachableError     source_unreachable    (retryable)
    │   │   └── SourceAbsentError                            (not retryable: the server that the URL names is not there)
    │   └── SourceStalledError         source_stalled        (retryable: a live stream sent no picture in time)
    ├── DecodeError                    decode_failed         (retryable: the decoder may have been killed)
    │   └── DecodeTimeoutError         decode_timeout        (retryable)
    ├── ModelError                     model_error           (retryable: another process may succeed)
    ├── UnknownModelError              unknown_model         (the checkpoint is not installed)
    ├── StorageError                   storage_error         (retryable)
    │   └── ObjectMissingError         media_missing
    ├── JobCancelledError              cancelled
    ├── AttemptsExhaustedError         attempts_exhausted
    ├── IdempotencyConflictError       idempotency_conflict
    ├── UnsettledKeyError              service_unavailable   (retryable)
    └── api.errors.APIError            any code               (an error response of the api)

Every class has a stable ``code``, which clients see, and says whether a retry can help. The message is one sentence for
the sender that names the object and the value, but no path, no internal host name and no SQL.
"""

from enum import StrEnum
from typing import ClassVar


class Code(StrEnum):
    """
    Every error code that clients see: in problem documents, and as the error of a job, a segment or a delivery.

    A code never changes its meaning. ``docs/api.md`` says what each code means and what to do about it.
    """

    # The file
    BAD_MEDIA = "bad_media"
    EMPTY_FILE = "empty_file"
    CHECKSUM_MISMATCH = "checksum_mismatch"
    NOT_MEDIA = "not_media"
    UNSUPPORTED_MEDIA = "unsupported_media"
    UNSUPPORTED_CODEC = "unsupported_codec"
    NO_VIDEO_STREAM = "no_video_stream"
    TRUNCATED = "truncated"
    TOO_LARGE = "too_large"
    TOO_LONG = "too_long"
    TOO_MANY_PIXELS = "too_many_pixels"
    FRAME_RATE_TOO_HIGH = "frame_rate_too_high"
    DECODE_FAILED = "decode_failed"
    DECODE_TIMEOUT = "decode_timeout"
    # Addresses
    FORBIDDEN_URL = "forbidden_url"
    SOURCE_ERROR = "source_error"
    SOURCE_REFUSED = "source_refused"
    SOURCE_UNREACHABLE = "source_unreachable"
    SOURCE_STALLED = "source_stalled"
    RECEIVER_REFUSED = "receiver_refused"
    RECEIVER_UNREACHABLE = "receiver_unreachable"
    # The request
    BAD_REQUEST = "bad_request"
    INVALID_REQUEST = "invalid_request"
    UNKNOWN_OPTION = "unknown_option"
    UNKNOWN_MODEL = "unknown_model"
    MISSING_FILE = "missing_file"
    INVALID_CURSOR = "invalid_cursor"
    METADATA_TOO_LARGE = "metadata_too_large"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    UNAUTHENTICATED = "unauthenticated"
    MISSING_SCOPE = "missing_scope"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    REQUEST_TIMEOUT = "request_timeout"
    PRECONDITION_FAILED = "precondition_failed"
    IDEMPOTENCY_CONFLICT = "idempotency_conflict"
    JOB_ALREADY_FINAL = "job_already_final"
    JOB_NOT_FINAL = "job_not_final"
    TOO_MANY_SHARES = "too_many_shares"
    DELIVERY_PENDING = "delivery_pending"
    UPLOAD_INCOMPLETE = "upload_incomplete"
    NO_EVIDENCE_KEY = "no_evidence_key"
    # Limits
    RATE_LIMITED = "rate_limited"
    TOO_MANY_OPEN_JOBS = "too_many_open_jobs"
    TOO_MANY_OPEN_UPLOADS = "too_many_open_uploads"
    STORAGE_QUOTA_EXCEEDED = "storage_quota_exceeded"
    TOO_MANY_UPLOADS = "too_many_uploads"
    OVERLOADED = "overloaded"
    # The service
    STORAGE_ERROR = "storage_error"
    MEDIA_MISSING = "media_missing"
    MODEL_ERROR = "model_error"
    SERVICE_UNAVAILABLE = "service_unavailable"
    INTERNAL_ERROR = "internal_error"
    CANCELLED = "cancelled"
    ATTEMPTS_EXHAUSTED = "attempts_exhausted"


class DeepfakeStreamError(Exception):
    """The base class of all errors that the service raises deliberately."""

    code: Code = Code.INTERNAL_ERROR
    retryable: ClassVar[bool] = False


class MediaError(DeepfakeStreamError):
    """The file itself is at fault."""

    code = Code.BAD_MEDIA


class EmptyFileError(MediaError):
    """The file has no bytes."""

    code = Code.EMPTY_FILE


class ChecksumMismatchError(MediaError):
    """The file does not have the checksum that its sender gave."""

    code = Code.CHECKSUM_MISMATCH


class NotMediaError(MediaError):
    """The bytes are neither an image nor a video."""

    code = Code.NOT_MEDIA


class UnsupportedMediaError(MediaError):
    """The file's format is media, but not accepted."""

    code = Code.UNSUPPORTED_MEDIA


class UnsupportedCodecError(MediaError):
    """The container is accepted, its video codec is not."""

    code = Code.UNSUPPORTED_CODEC


class NoVideoStreamError(MediaError):
    """The container has no images, but for example only sound."""

    code = Code.NO_VIDEO_STREAM


class TruncatedError(MediaError):
    """So much of the file is missing that no frame can be decoded."""

    code = Code.TRUNCATED


class TooLargeError(MediaError):
    """The file has more bytes than the limit."""

    code = Code.TOO_LARGE


class TooLongError(MediaError):
    """The video lasts longer than the limit."""

    code = Code.TOO_LONG


class TooManyPixelsError(MediaError):
    """An image or frame has more pixels than the limit."""

    code = Code.TOO_MANY_PIXELS


class FrameRateTooHighError(MediaError):
    """The video has more frames per second than the limit."""

    code = Code.FRAME_RATE_TOO_HIGH


class SourceError(DeepfakeStreamError):
    """A URL source could not be fetched."""

    code = Code.SOURCE_ERROR


class ForbiddenURLError(SourceError):
    """The URL is malformed, or its destination is not allowed."""

    code = Code.FORBIDDEN_URL


class SourceRefusedError(SourceError):
    """The source's server answered, but not with the file."""

    code = Code.SOURCE_REFUSED


class SourceUnreachableError(SourceError):
    """The source's server did not answer in time."""

    code = Code.SOURCE_UNREACHABLE
    retryable = True


class SourceAbsentError(SourceUnreachableError):
    """
    The server that the URL names is not there, so that asking again soon is of no use.

    Its name does not exist, or whoever answers cannot prove the name.
    """

    retryable = False


class SourceStalledError(SourceError):
    """A live stream is connected, but sent no picture in time."""

    code = Code.SOURCE_STALLED
    retryable = True


class DecodeError(DeepfakeStreamError):
    """The decoder failed on a file that passed inspection."""

    code = Code.DECODE_FAILED
    retryable = True


class DecodeTimeoutError(DecodeError):
    """The decoder was killed at its timeout."""

    code = Code.DECODE_TIMEOUT


class ModelError(DeepfakeStreamError):
    """The network could not be loaded, or a score is not a number."""

    code = Code.MODEL_ERROR
    retryable = True


class UnknownModelError(DeepfakeStreamError):
    """The requested checkpoint is not installed."""

    code = Code.UNKNOWN_MODEL


class StorageError(DeepfakeStreamError):
    """A storage operation failed."""

    code = Code.STORAGE_ERROR
    retryable = True


class ObjectMissingError(StorageError):
    """The stored file does not exist, for instance because it was erased."""

    code = Code.MEDIA_MISSING
    retryable = False


class JobCancelledError(DeepfakeStreamError):
    """The job was cancelled or deleted while a worker was working on it."""

    code = Code.CANCELLED


class AttemptsExhaustedError(DeepfakeStreamError):
    """All allowed attempts were used up without a result."""

    code = Code.ATTEMPTS_EXHAUSTED


class UnsettledKeyError(DeepfakeStreamError):
    """An idempotency key was taken at each insert and free at each look-up, more often than erasures explain."""

    code = Code.SERVICE_UNAVAILABLE
    retryable = True


class IdempotencyConflictError(DeepfakeStreamError):
    """The idempotency key was used before, with another request."""

    code = Code.IDEMPOTENCY_CONFLICT
