"""
Statuses of jobs, segments and deliveries, verdicts, reasons and events, as the database and the API spell them.

Every member is a string, so that rows, JSON documents and query parameters need no conversion. A value never changes
its meaning, since stored rows and clients contain it.
"""

from enum import StrEnum
from typing import Final


class JobStatus(StrEnum):
    """The status of a job."""

    QUEUED = "queued"
    """Waits for a worker."""
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    """Has a verdict, even if some of its segments failed."""
    FAILED = "failed"
    """Has an error instead of a verdict."""
    CANCELLED = "cancelled"


class SegmentStatus(StrEnum):
    """The status of a segment."""

    PENDING = "pending"
    """Waits for a worker."""
    RUNNING = "running"
    SCORED = "scored"
    UNSCORABLE = "unscorable"
    """Was analysed, but no face in it could be scored."""
    FAILED = "failed"
    """Could not be analysed."""


class DeliveryStatus(StrEnum):
    """The status of one attempt to deliver a webhook event."""

    PENDING = "pending"
    SENDING = "sending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class WebhookEvent(StrEnum):
    """What a webhook reports."""

    JOB_SUCCEEDED = "job.succeeded"
    JOB_FAILED = "job.failed"
    JOB_CANCELLED = "job.cancelled"
    STREAM_ALERT = "stream.alert"
    """A person in a live stream is suspicious, or is not any more."""
    STREAM_ENDED = "stream.ended"
    """The end of the job of a live stream, instead of the event of its status."""
    BATCH_ENDED = "batch.ended"
    """The last job of a batch has ended."""


class ExplanationStatus(StrEnum):
    """The status of the explanation of a job's faces; it changes nothing of the job."""

    PENDING = "pending"
    """Waits for the job to succeed, or for a worker."""
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class StreamState(StrEnum):
    """What a live stream is doing."""

    WAITING = "waiting"
    """No picture has arrived yet."""
    CONNECTED = "connected"
    """Pictures arrive."""
    AWAY = "away"
    """The source is gone, or nobody reads it at the moment; it is tried again."""
    ENDING = "ending"
    """Nothing is read any more; the last segments are scored."""
    ENDED = "ended"


class StreamEnd(StrEnum):
    """Why a live stream was ended."""

    REQUEST = "request"
    DURATION = "duration"
    """Its limit of duration was reached."""
    SOURCE = "source"
    """The source said that it has ended, or was away for too long."""


class StreamEventKind(StrEnum):
    """The kind of an event of a live stream."""

    SOURCE = "source"
    """The source was connected, or is away."""
    SEGMENT = "segment"
    """A segment was scored, dropped or missed."""
    ALERT = "alert"
    """A person is suspicious (raised), or is not any more (cleared)."""
    ENDED = "ended"


class Recording(StrEnum):
    """What is kept of the media of a live stream."""

    NONE = "none"
    SUSPICIOUS = "suspicious"
    """The segments around alerts."""


class Verdict(StrEnum):
    """The verdict on media, or on a person (except ``not_applicable``)."""

    FAKE = "fake"
    REAL = "real"
    INCONCLUSIVE = "inconclusive"
    NOT_APPLICABLE = "not_applicable"
    """Everything was analysed, and there is no face."""


class Reason(StrEnum):
    """The reason why a segment has no score, or why a job's verdict is not simply that of its score."""

    NO_FACE = "no_face"
    FACES_TOO_SMALL = "faces_too_small"
    FACES_TOO_BLURRED = "faces_too_blurred"
    FACES_TURNED = "faces_turned"
    """Faces are rotated and were not scored. In a job with a score, one of them is as large as the scored ones."""
    SEGMENTS_FAILED = "segments_failed"
    """Part of the media could not be analysed."""
    TRUNCATED = "truncated"
    """Part of the file is missing or damaged."""
    OTHER_VIDEO_TRACKS = "other_video_tracks"
    """The file has video tracks that were not analysed."""
    UNTRAINED_MODEL = "untrained_model"
    UNCERTAIN = "uncertain"
    """The score lies between the limits of ``real`` and ``fake``."""
    SHORT_MANIPULATION = "short_manipulation"
    """An interval of time is suspicious, the whole is not."""
    ONE_PERSON = "one_person"
    """One of several people or pages is fake, the mean is not."""
    LITTLE_EVIDENCE = "little_evidence"
    """Only one or two small, soft or dark faces were scored."""
    HEAVILY_COMPRESSED = "heavily_compressed"
    DROPPED = "dropped"
    """Part of a live stream was left out, since scoring could not keep up."""
    GAP = "gap"
    """Part of a live stream was missed: the source was away, or nobody read it."""


class Finding(StrEnum):
    """What a person found who reviewed a job."""

    CONFIRMED_FAKE = "confirmed_fake"
    CONFIRMED_REAL = "confirmed_real"
    DISPUTED = "disputed"


class ProvenanceState(StrEnum):
    """What is known of the Content Credentials (C2PA) in a file."""

    NONE = "none"
    """There are none, which says nothing about the media."""
    VALID = "valid"
    """The signature is intact, the media unchanged since, and a configured trust anchor vouches for the signer."""
    UNTRUSTED = "untrusted"
    """The signature is intact and the media unchanged since, but no configured trust anchor vouches for the signer."""
    INVALID = "invalid"
    """The media was changed after signing, or the manifest, its signature or its certificate is not valid."""
    UNREADABLE = "unreadable"
    NOT_CHECKED = "not_checked"


class ProvenanceReason(StrEnum):
    """The reason why a file's Content Credentials were not checked, or could not be read."""

    FORMAT = "format"
    """Content Credentials in this format cannot be read."""
    LIBRARY = "library"
    """The worker lacks the library that reads them."""
    TRUST_ANCHORS = "trust_anchors"
    """The configured trust anchors cannot be read."""
    REMOTE = "remote"
    """The file only refers to a manifest elsewhere, and nothing is fetched."""
    DAMAGED = "damaged"
    CRASHED = "crashed"
    """The library crashed, or gave an answer beyond the bounds."""
    TIMED_OUT = "timed_out"


OPEN_JOB_STATUSES: Final = (JobStatus.QUEUED, JobStatus.RUNNING)
FINAL_JOB_STATUSES: Final = (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED)
OPEN_SEGMENT_STATUSES: Final = (SegmentStatus.PENDING, SegmentStatus.RUNNING)
OPEN_EXPLANATION_STATUSES: Final = (ExplanationStatus.PENDING, ExplanationStatus.RUNNING)
OPEN_DELIVERY_STATUSES: Final = (DeliveryStatus.PENDING, DeliveryStatus.SENDING)
JOB_EVENTS: Final = (WebhookEvent.JOB_SUCCEEDED, WebhookEvent.JOB_FAILED, WebhookEvent.JOB_CANCELLED)
STREAM_EVENTS: Final = (WebhookEvent.STREAM_ALERT, WebhookEvent.STREAM_ENDED)
BATCH_EVENTS: Final = (WebhookEvent.BATCH_ENDED,)
