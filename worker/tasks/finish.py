"""Finishing a job: average, verdict, and the webhook."""

import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shared.errors import DecodeError
from shared.evidence import bits_per_pixel
from shared.jobs.ending import Outcome, Problem, end_job
from shared.jobs.queries import get_segments, has_open_segments, lock_job
from shared.manifests import Manifest, read_manifest
from shared.models import Job, Segment
from shared.observability import FAKE_SCORES, JOBS_ENDED, VERDICTS, get_logger
from worker.pipeline.following import Part, Track
from worker.pipeline.scoring import judge_medium
from worker.tasks.context import Context

log = get_logger(__name__)


def finish(context: Context, job_id: uuid.UUID) -> None:
    """End a job whose segments are all done; nothing if it has ended or some are open."""
    with context.sessions.transaction() as session:
        job = lock_job(session, job_id)
        if job is None or job.status != "running" or job.segments_total is None:
            log.info("nothing to finish")
            return
        if has_open_segments(session, job_id):
            log.info("segments are still open")
            return
        segments = get_segments(session, job_id)
        failed = [segment for segment in segments if segment.status == "failed"]
        if len(failed) == len(segments):
            delivery_id = end_job(session, job, "failed", error=_first_problem(failed))
        else:
            outcome = judge(job, segments, read_manifest(Path(context.settings.models.dir) / job.model))
            delivery_id = end_job(session, job, "succeeded", outcome=outcome)
        status, verdict, model, fake_score = job.status, job.verdict, job.model, job.fake_score
    JOBS_ENDED.labels(status=status).inc()
    if verdict is not None:
        VERDICTS.labels(model=model, verdict=verdict).inc()
    if fake_score is not None:
        FAKE_SCORES.labels(model=model).observe(fake_score)
    log.info("job ended", status=status, verdict=verdict)
    if delivery_id is not None:
        context.sender.deliver_webhook(delivery_id)


def judge(job: Job, segments: Sequence[Segment], manifest: Manifest) -> Outcome:
    """
    Average, peak, people and verdict of a job whose segments are done.

    The people in the results of *segments* get the numbers that they have in the whole medium.
    """
    looked_at = [segment for segment in segments if segment.status != "failed"]
    facts = (job.media and job.media.facts) or {}
    judged = judge_medium(
        [Part(segment.index, segment.result or {}, segment.looks) for segment in looked_at],
        "image" if facts.get("kind") == "image" else "video",
        manifest,
        step_s=1.0 / job.sample_fps,
        end_s=segments[-1].end_s if segments else 0.0,
        failed_segments=len(segments) - len(looked_at),
        bits_per_pixel=_bits_per_pixel(job, facts),
        is_truncated=bool(facts.get("truncated")),
        has_other_tracks=bool(((job.media and job.media.presentation) or {}).get("other_video_tracks")),
    )
    result = judged.result
    _renumber(looked_at, judged.tracks)
    limits = result.limits and {"real_below": result.limits.low, "fake_from": result.limits.high}
    return Outcome(
        fake_score=result.fake_score,
        peak_score=result.peak_score,
        verdict=result.verdict,
        reasons=result.reasons,
        model_description=manifest.describe(sample_fps=job.sample_fps, segment_seconds=job.segment_seconds),
        evidence={**judged.evidence.to_json(), **(limits or {"real_below": None, "fake_from": None})},
        findings=judged.findings.to_json(),
    )


def _renumber(segments: Sequence[Segment], tracks: Sequence[Track]) -> None:
    """Give the people of each segment the numbers that they have in the whole medium."""
    numbers = {(index, within): track.person for track in tracks for index, within in track.numbers.items()}
    for segment in segments:
        people = (segment.result or {}).get("people", [])
        moved = [{**person, "person": numbers.get((segment.index, person["person"]), 0)} for person in people]
        if moved != people:
            moved.sort(key=lambda person: int(person["person"]))
            segment.result = {**(segment.result or {}), "people": moved}


def _bits_per_pixel(job: Job, facts: Mapping[str, Any]) -> float | None:
    """Of the job's video; None for images, and where a release from before inspected it."""
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


def _first_problem(failed: Sequence[Segment]) -> Problem:
    """The first failed segment's problem speaks for a job of which nothing could be scored."""
    if not failed:
        return Problem(DecodeError.code, "the media has no segment")
    return Problem(failed[0].error_code or DecodeError.code, failed[0].error_detail or "")
