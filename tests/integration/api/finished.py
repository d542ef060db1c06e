"""Jobs that have ended, with given scores or what the pipeline makes of given faces, and their evidence bundles."""

import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import select

from shared.jobs.ending import Outcome, end_job
from shared.jobs.queries import lock_job
from shared.jobs.segments import set_result
from shared.manifests import Manifest
from shared.models import Media, Segment
from shared.states import JobStatus, SegmentStatus
from tests.integration.api.conftest import OneAPI
from worker.media.probe import MediaFacts
from worker.pipeline.results import FaceResult
from worker.pipeline.scoring import score_segment
from worker.tasks.finish import judge

SEGMENT_S = 5.0
FACTS = MediaFacts("video", "mp4", "h264", 320, 240, 0, 15.0, 0.0, 150, 10.0, False)


def finish_job(api: OneAPI, job_id: str, *, segments: int = 3, status: JobStatus = JobStatus.SUCCEEDED) -> None:
    """Give a job segments with two people each, the last one without any, and end it as its last step does."""
    with api.sessions.transaction() as session:
        job = lock_job(session, uuid.UUID(job_id))
        assert job is not None
        media = session.scalars(select(Media).where(Media.id == job.media_id)).one()
        media.facts, media.presentation, media.video_bytes = FACTS.to_json(), FACTS.presentation(), 200_000
        job.media = media
        rows = [_segment(job.id, index, is_empty=index == segments - 1) for index in range(segments)]
        session.add_all(rows)
        job.segments_total = segments
        outcome = None
        if status == JobStatus.SUCCEEDED:
            outcome = judge(job, rows, Manifest.from_pin(job.manifest or {}))
        end_job(session, job, status, outcome=outcome)


def _segment(job_id: uuid.UUID, index: int, *, is_empty: bool) -> Segment:
    start_s = index * SEGMENT_S
    faces, people = [], []
    for number in range(0 if is_empty else 5):
        # Scores with six digits, all different; the second person's third face is too small to be scored.
        is_scored = number != 4
        score = round((index * 7919 + number * 104_729) % 999_983 / 1_999_966, 6) if is_scored else None
        box = (10.0 + 100 * (number % 2), 20.0, 90.0 + 100 * (number % 2), 110.0)
        problem = None if is_scored else "face_too_small"
        time_s = start_s + number // 2 * 0.5
        faces.append(FaceResult(time_s, box, ((1.0, 2.0),) * 5, 0.99, 80.0, 90.0, problem, score, 120.0))
        people.append(number % 2)
    result = score_segment(faces, people, 10, "openvino-float32")
    segment = Segment(job_id=job_id, index=index, start_s=start_s, end_s=start_s + SEGMENT_S)
    segment.status = set_result(segment, fake_score=result.fake_score, result=result.to_json(), looks=result.looks)
    segment.started_at = segment.finished_at = None
    return segment


def succeed(
    api: OneAPI,
    job_id: uuid.UUID,
    scores: Sequence[float | None],
    *,
    fake_score: float = 0.5,
    verdict: str = "real",
    seconds: float = 5.0,
) -> None:
    """End a job as its steps would, with a segment of so many seconds for each score."""
    with api.sessions.transaction() as session:
        job = lock_job(session, job_id)
        for index, score in enumerate(scores):
            status = SegmentStatus.UNSCORABLE if score is None else SegmentStatus.SCORED
            session.add(
                Segment(
                    job_id=job_id,
                    index=index,
                    start_s=index * seconds,
                    end_s=(index + 1) * seconds,
                    status=status,
                    fake_score=score,
                )
            )
        job.status = JobStatus.RUNNING
        session.flush()
        outcome = Outcome(
            fake_score=fake_score,
            peak_score=fake_score,
            verdict=verdict,
            reasons=[],
            model_description={"name": job.model, "weights_sha256": f"of {job.model}"},
            evidence=None,
            findings=None,
        )
        end_job(session, job, JobStatus.SUCCEEDED, outcome=outcome)


def download(api: OneAPI, headers: dict[str, str], job_id: str, path: Path) -> Any:
    """Write the bundle of a job to *path*, and return the answer."""
    answer = api.call("GET", f"/v1/jobs/{job_id}/evidence.zip", headers)
    if answer.status_code == 200:
        path.write_bytes(answer.data)
    return answer
