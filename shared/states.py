"""
The states of jobs, segments and deliveries, and what is said of them: the words of the database and of the wire.

Every member is a string and equals its plain word, so that rows, JSON documents and query parameters need no
conversion. A word never changes its meaning, since it stands in stored rows and in programs of clients.
"""

from enum import StrEnum
from typing import Final


class JobStatus(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    """Waits for a worker."""
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    """Has a verdict, even if some of its segments failed."""
    FAILED = "failed"
    """Has an error instead of a verdict."""
    CANCELLED = "cancelled"


class SegmentStatus(StrEnum):
    """Where a segment stands."""

    PENDING = "pending"
    """Waits for a worker."""
    RUNNING = "running"
    SCORED = "scored"
    UNSCORABLE = "unscorable"
    """Was looked at, and no face in it could be scored."""
    FAILED = "failed"
    """Could not be looked at."""


class DeliveryStatus(StrEnum):
    """Where one attempt to deliver a webhook event stands."""

    PENDING = "pending"
    SENDING = "sending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class Verdict(StrEnum):
    """What is said of a medium; of a person as well, but for ``not_applicable``."""

    FAKE = "fake"
    REAL = "real"
    INCONCLUSIVE = "inconclusive"
    NOT_APPLICABLE = "not_applicable"
    """Everything was looked at, and there is no face."""


class Reason(StrEnum):
    """Why a segment has no score, or why a job's verdict is not simply that of its score."""

    NO_FACE = "no_face"
    FACES_TOO_SMALL = "faces_too_small"
    FACES_TOO_BLURRED = "faces_too_blurred"
    FACES_TURNED = "faces_turned"
    """Of a job with a score: somebody as large as those who were scored stands turned beside them."""
    SEGMENTS_FAILED = "segments_failed"
    """Part of the medium could not be looked at."""
    TRUNCATED = "truncated"
    """Part of the file is missing or damaged."""
    OTHER_VIDEO_TRACKS = "other_video_tracks"
    """The file has video tracks that were not looked at."""
    UNTRAINED_MODEL = "untrained_model"
    UNCERTAIN = "uncertain"
    """The score lies between the limits of ``real`` and ``fake``."""
    SHORT_MANIPULATION = "short_manipulation"
    """A stretch of time is suspicious, and the whole is not."""
    ONE_PERSON = "one_person"
    """One person among others, or one page among several, is fake, and the mean is not."""
    LITTLE_EVIDENCE = "little_evidence"
    """All that was scored are one or two small, soft or dark faces."""
    HEAVILY_COMPRESSED = "heavily_compressed"


class Finding(StrEnum):
    """What a person found who reviewed a job."""

    CONFIRMED_FAKE = "confirmed_fake"
    CONFIRMED_REAL = "confirmed_real"
    DISPUTED = "disputed"


OPEN_JOB_STATUSES: Final = (JobStatus.QUEUED, JobStatus.RUNNING)
FINAL_JOB_STATUSES: Final = (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED)
OPEN_SEGMENT_STATUSES: Final = (SegmentStatus.PENDING, SegmentStatus.RUNNING)
OPEN_DELIVERY_STATUSES: Final = (DeliveryStatus.PENDING, DeliveryStatus.SENDING)
