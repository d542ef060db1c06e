"""Finishing a job: average, verdict, and the webhook."""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from shared.errors import DecodeError, JobCancelledError
from shared.evidence import bits_per_pixel
from shared.inputs import InputKind, count_faces
from shared.jobs.ending import Failure, Outcome
from shared.jobs.inputs import JobInputs
from shared.jobs.leases import Lease, Step
from shared.jobs.queries import get_job, get_segments
from shared.jobs.results import record_end
from shared.manifests import Manifest
from shared.models import Job, Segment
from shared.observability import get_logger
from shared.states import SegmentStatus
from worker.pipeline.scoring import judge_medium
from worker.pipeline.tracking import ScoredSegment, Track
from worker.tasks.context import Context
from worker.tasks.steps import IsLost, run_step

log = get_logger(__name__)


def finish(context: Context, job_id: uuid.UUID) -> None:
    """End a job whose segments are all done; do nothing if it has ended or has open segments."""
    run_step(context, Step.FINISH, (job_id,), partial(_finish, context))


def _finish(context: Context, lease: Lease, _is_lost: IsLost) -> None:
    with context.sessions.transaction() as session:
        job = get_job(session, lease.job_id)
        if job is None:
            raise JobCancelledError("the job was deleted")
        segments = get_segments(session, job.id)
        failed = [segment for segment in segments if segment.status == SegmentStatus.FAILED]
        manifest = context.manifest(job)
        all_failed = len(failed) == len(segments)
        found = _first_segment_failure(failed) if all_failed else judge(job, segments, manifest)
        # In the transaction that read the segments, since judge() changes the numbers of their people.
        record_end(session, lease, found)
    verdict = found.verdict if isinstance(found, Outcome) else None
    log.info("job ended", status="failed" if verdict is None else "succeeded", verdict=verdict)


def judge(job: Job, segments: Sequence[Segment], manifest: Manifest) -> Outcome:
    """
    Compute scores, people and verdict of a job whose segments are done.

    The people in the results of *segments* are renumbered to the numbers that they have in the whole medium.
    """
    analysed = [segment for segment in segments if segment.status != SegmentStatus.FAILED]
    facts = (job.media and job.media.facts) or {}
    judged = judge_medium(
        [ScoredSegment(segment.index, segment.result or {}, segment.looks) for segment in analysed],
        "image" if facts.get("kind") == "image" else "video",
        manifest,
        step_s=1.0 / job.sample_fps,
        end_s=segments[-1].end_s if segments else 0.0,
        failed_segments=len(segments) - len(analysed),
        bits_per_pixel=_bits_per_pixel(job, facts),
        is_truncated=bool(facts.get("truncated")),
        has_other_tracks=bool(((job.media and job.media.presentation) or {}).get("other_video_tracks")),
    )
    result = judged.result
    _renumber_people(analysed, judged.tracks)
    limits = result.limits and {"real_below": result.limits.low, "fake_from": result.limits.high}
    return Outcome(
        fake_score=result.fake_score,
        peak_score=result.peak_score,
        verdict=result.verdict,
        reasons=result.reasons,
        model_description=manifest.describe(sample_fps=job.sample_fps, segment_seconds=job.segment_seconds),
        evidence={**judged.evidence.to_json(), **(limits or {"real_below": None, "fake_from": None})},
        findings=judged.findings.to_json(),
        inputs=JobInputs(_kind_of(job, facts), count_faces(_list_faces(analysed))),
    )


def _kind_of(job: Job, facts: Mapping[str, Any]) -> InputKind:
    # Only live streams have no media.
    if job.media is None:
        return InputKind.STREAM
    return InputKind.IMAGE if facts.get("kind") == "image" else InputKind.VIDEO


def _list_faces(segments: Sequence[Segment]) -> Iterator[Mapping[str, Any]]:
    for segment in segments:
        for person in (segment.result or {}).get("people", ()):
            yield from person["faces"]


def _renumber_people(segments: Sequence[Segment], tracks: Sequence[Track]) -> None:
    """Give the people of each segment the numbers that they have in the whole medium."""
    numbers = {(index, within): track.person for track in tracks for index, within in track.numbers.items()}
    for segment in segments:
        people = (segment.result or {}).get("people", [])
        moved = [{**person, "person": numbers.get((segment.index, person["person"]), 0)} for person in people]
        if moved != people:
            moved.sort(key=lambda person: int(person["person"]))
            segment.result = {**(segment.result or {}), "people": moved}


def _bits_per_pixel(job: Job, facts: Mapping[str, Any]) -> float | None:
    """Compute the bits per pixel of the job's video; None for images and for media probed by an earlier release."""
    video_bytes = job.media.video_bytes if job.media else None
    if video_bytes is None:
        return None
    return bits_per_pixel(
        video_bytes,
        width_px=facts["width_px"],
        height_px=facts["height_px"],
        frames=facts["frame_count"],
        codec=facts["codec"],
    )


def _first_segment_failure(failed: Sequence[Segment]) -> Failure:
    """Return the failure of the first failed segment, for a job all of whose segments failed."""
    if not failed:
        return Failure(DecodeError.code, "the media has no segment")
    return Failure(failed[0].error_code or DecodeError.code, failed[0].error_detail or "")
