"""How a report was made: job, file, sampling and checkpoint, as rows of a table."""

from typing import NamedTuple

from api.web.timeline import clock
from api.web.wording import make_printable, name_moment
from shared.documents.jobs import JobDocument


class OriginRow(NamedTuple):
    """One fact."""

    label: str
    value: str
    is_code: bool
    """Whether the value is a digest or another code."""


def describe_origin(job: JobDocument) -> list[OriginRow]:
    """Return the facts by which a result can be found and repeated."""
    rows = [OriginRow("Job", f"{job.id}", True), OriginRow("Submitted", name_moment(job.created_at), False)]
    if job.finished_at is not None:
        rows.append(OriginRow("Ended", name_moment(job.finished_at), False))
    if job.parent_id is not None:
        rows.append(OriginRow("Media of job", f"{job.parent_id}", True))
    media = job.media
    if media is not None:
        size = f"{media.width_px} × {media.height_px} pixels" if media.width_px else None
        duration = clock(media.duration_s) if media.duration_s else None
        facts = [f"{media.size_bytes} bytes", media.container, media.codec, size, duration]
        rows.append(OriginRow("File", make_printable(", ".join(fact for fact in facts if fact)), False))
        rows.append(OriginRow("SHA-256 of the file", media.sha256, True))
    options = job.options
    sampling = f"{options.sample_fps:g} frames a second, segments of {options.segment_seconds:g} s"
    rows.append(OriginRow("Sampling", sampling, False))
    if job.model:
        name = f"{job.model.get('name')} {job.model.get('version', '')}"
        rows.append(OriginRow("Detector (checkpoint)", make_printable(name), False))
        rows.append(OriginRow("SHA-256 of weights", make_printable(str(job.model.get("weights_sha256"))), True))
    return rows
