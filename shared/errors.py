"""
The error tree that both services share.

    DeepfakeStreamError
    ├── MediaError                     what the sender's file did; final, never retried
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
    │   ├── SourceRefusedError         source_refused        (the server said no)
    │   └── SourceUnreachableError     source_unreachable    (retryable)
    ├── DecodeError                    decode_failed         (retryable: the decoder may have been killed)
    │   └── DecodeTimeoutError         decode_timeout        (retryable)
    ├── ModelError                     model_error           (retryable: another process may be sound)
    ├── StorageError                   storage_error         (retryable)
    │   └── ObjectMissingError         media_missing
    ├── JobCancelledError              cancelled
    ├── AttemptsExhaustedError         attempts_exhausted
    └── IdempotencyConflictError       idempotency_conflict

Every class has a stable ``code``, which clients see, and says whether trying again can help. The message is
one sentence for the sender: it names the thing and the value, never a path, a host of ours or SQL.
"""

from typing import ClassVar


class DeepfakeStreamError(Exception):
    """Anything this system raises on purpose."""

    code: ClassVar[str] = "internal_error"
    retryable: ClassVar[bool] = False


class MediaError(DeepfakeStreamError):
    """The file itself is the reason."""

    code = "bad_media"


class EmptyFileError(MediaError):
    """The file has no bytes."""

    code = "empty_file"


class ChecksumMismatchError(MediaError):
    """What arrived is not what the sender said it would be."""

    code = "checksum_mismatch"


class NotMediaError(MediaError):
    """The bytes are neither an image nor a video."""

    code = "not_media"


class UnsupportedMediaError(MediaError):
    """A media format, but not one that is accepted."""

    code = "unsupported_media"


class UnsupportedCodecError(MediaError):
    """An accepted container with a video codec that is not."""

    code = "unsupported_codec"


class NoVideoStreamError(MediaError):
    """A container without pictures, such as sound alone."""

    code = "no_video_stream"


class TruncatedError(MediaError):
    """So much of the file is missing that no frame can be decoded."""

    code = "truncated"


class TooLargeError(MediaError):
    """More bytes than the limit."""

    code = "too_large"


class TooLongError(MediaError):
    """More seconds than the limit."""

    code = "too_long"


class TooManyPixelsError(MediaError):
    """More pixels in a picture than the limit."""

    code = "too_many_pixels"


class FrameRateTooHighError(MediaError):
    """More frames a second than the limit."""

    code = "frame_rate_too_high"


class SourceError(DeepfakeStreamError):
    """A URL source could not be fetched."""

    code = "source_error"


class ForbiddenURLError(SourceError):
    """The URL points where this service does not go."""

    code = "forbidden_url"


class SourceRefusedError(SourceError):
    """The source's server answered, but not with the file."""

    code = "source_refused"


class SourceUnreachableError(SourceError):
    """The source's server did not answer in time."""

    code = "source_unreachable"
    retryable = True


class DecodeError(DeepfakeStreamError):
    """The decoder failed on a file that had looked sound."""

    code = "decode_failed"
    retryable = True


class DecodeTimeoutError(DecodeError):
    """The decoder was killed at its time limit."""

    code = "decode_timeout"


class ModelError(DeepfakeStreamError):
    """The network could not be loaded or gave a score that is not a number."""

    code = "model_error"
    retryable = True


class StorageError(DeepfakeStreamError):
    """Storage did not do what was asked."""

    code = "storage_error"
    retryable = True


class ObjectMissingError(StorageError):
    """The stored file is gone, for instance because it was erased."""

    code = "media_missing"
    retryable = False


class JobCancelledError(DeepfakeStreamError):
    """The job was cancelled or deleted while it was being worked on."""

    code = "cancelled"


class AttemptsExhaustedError(DeepfakeStreamError):
    """Tried as often as allowed, without an end."""

    code = "attempts_exhausted"


class IdempotencyConflictError(DeepfakeStreamError):
    """An idempotency key was used before, with another request."""

    code = "idempotency_conflict"
