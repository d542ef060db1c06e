"""Summaries and counts of segments, recorded by this or an older release."""

import pytest
from sqlalchemy import insert, literal, select, update
from sqlalchemy.exc import InvalidRequestError

from shared.errors import DecodeError
from shared.jobs.leases import release
from shared.jobs.queries import get_job, get_segments
from shared.jobs.results import record_segment
from shared.jobs.segments import SUMMARY, count_done, read_segment_page
from shared.models import Job, Segment
from tests.integration.rows import add_job
from tests.integration.test_jobs import POLICY, lease, planned_job

PEOPLE = [{"person": number, "fake_score": 0.25, "faces": []} for number in range(2)]
RESULT = {"fake_score": 0.25, "reasons": [], "people": PEOPLE, "faces_found": 5, "faces_scored": 4}
RESULT |= {"frames_decoded": 10, "engine": "torch-float16"}
NONE = {"fake_score": None, "reasons": ["no_face"], "people": [], "faces_found": 0, "faces_scored": 0}
NONE |= {"frames_decoded": 10}


def record_without_summary(session, job_id, index, result):
    """Record a segment as an older release without summaries does."""
    status = "unscorable" if result["fake_score"] is None else "scored"
    found = {"status": status, "fake_score": result["fake_score"], "result": result}
    session.execute(update(Segment).where(Segment.job_id == job_id, Segment.index == index).values(**found))


def summaries(session, job_id, **wanted):
    """Return the rows of a page as dicts."""
    return [row._asdict() for row in read_segment_page(session, job_id, **wanted).rows]


@pytest.mark.parametrize("result", [RESULT, NONE, {"fake_score": 0.25}], ids=["faces", "none", "empty"])
def test_summaries_are_equal_whichever_release_recorded_them(sessions, result):
    job_id = planned_job(sessions, segments=3)
    with sessions.transaction() as session:
        record_segment(session, lease(sessions, job_id, 0), fake_score=result["fake_score"], result=result)
        record_without_summary(session, job_id, 1, result)
    with sessions.transaction() as session:
        ours, theirs, pending = summaries(session, job_id)
        assert session.scalar(select(Segment.people_count).where(Segment.job_id == job_id, Segment.index == 1)) is None
        with_faces = summaries(session, job_id, with_faces=True)
    apart = {"index", "start_s", "end_s"}
    assert {name: ours[name] for name in ours.keys() - apart} == {name: theirs[name] for name in theirs.keys() - apart}
    assert ours["people_count"] == len(result.get("people", []))
    assert [ours[name] for name in ("faces_found", "faces_scored", "frames_decoded", "engine", "reasons")] == [
        result.get("faces_found", 0),
        result.get("faces_scored", 0),
        result.get("frames_decoded", 0),
        result.get("engine"),
        result.get("reasons", []),
    ]
    nothing = {"people_count": 0, "faces_found": 0, "faces_scored": 0, "frames_decoded": 0, "engine": None}
    assert pending.items() >= {**nothing, "status": "pending"}.items()
    assert pending["reasons"] == []
    assert [row["people"] for row in with_faces] == [result.get("people")] * 2 + [None]


def test_a_page_of_summaries_does_not_read_the_faces(sessions):
    job_id = planned_job(sessions, segments=1)
    with sessions.transaction() as session:
        record_segment(session, lease(sessions, job_id, 0), fake_score=0.25, result=RESULT)
        # Its people cannot be counted.
        session.execute(update(Segment).where(Segment.job_id == job_id).values(result={"people": "unreadable"}))
    with sessions.transaction() as session:
        assert [row["people_count"] for row in summaries(session, job_id)] == [2]
    assert Segment.result not in SUMMARY


def test_pages_are_consecutive(sessions):
    job_id = planned_job(sessions, segments=5)
    with sessions.transaction() as session:
        first = read_segment_page(session, job_id, limit=2)
        second = read_segment_page(session, job_id, after=1, limit=3)
    assert ([row.index for row in first.rows], first.last_index) == ([0, 1], 1)
    assert ([row.index for row in second.rows], second.last_index) == ([2, 3, 4], None)


def done(sessions, job_id):
    """Return the count in the job's row, and the one that readers get."""
    with sessions.transaction() as session:
        job = get_job(session, job_id)
        return job.segments_done, count_done(session, [job])[job_id]


def test_segments_are_counted_when_they_are_done(sessions):
    job_id = planned_job(sessions, segments=4)
    assert done(sessions, job_id) == (0, 0)
    with sessions.transaction() as session:
        record_segment(session, lease(sessions, job_id, 0), fake_score=0.25, result=RESULT)
    assert done(sessions, job_id) == (1, 1)
    with sessions.transaction() as session:
        record_without_summary(session, job_id, 1, NONE)
    assert done(sessions, job_id) == (2, 2)
    for _ in range(POLICY.max_attempts):
        with sessions.transaction() as session:
            release(session, lease(sessions, job_id, 2), DecodeError("no"), POLICY)
    assert done(sessions, job_id) == (3, 3)
    with sessions.transaction() as session:
        session.execute(update(Segment).where(Segment.job_id == job_id).values(attempts=9))
    assert done(sessions, job_id) == (3, 3)


def test_a_job_without_a_count_is_counted_by_its_rows(sessions):
    job_id = planned_job(sessions, segments=3)
    with sessions.transaction() as session:
        record_without_summary(session, job_id, 0, RESULT)
        session.execute(update(Job).where(Job.id == job_id).values(segments_done=None))
    assert done(sessions, job_id) == (None, 1)
    with sessions.transaction() as session:
        record_without_summary(session, job_id, 1, RESULT)
    assert done(sessions, job_id) == (2, 2)


def test_copied_segments_are_counted(sessions):
    job_id = planned_job(sessions, segments=3)
    with sessions.transaction() as session:
        for index in range(2):
            record_without_summary(session, job_id, index, RESULT)
        copy_id = add_job(session).id
        columns = (Segment.index, Segment.start_s, Segment.end_s, Segment.status, Segment.fake_score)
        rows = select(literal(copy_id), *columns).where(Segment.job_id == job_id)
        session.execute(insert(Segment).from_select([Segment.job_id, *columns], rows))
    assert done(sessions, copy_id) == (2, 2)


def test_faces_are_read_only_explicitly(sessions):
    job_id = planned_job(sessions, segments=1)
    with sessions.transaction() as session:
        record_segment(session, lease(sessions, job_id, 0), fake_score=0.25, result=RESULT)
    with sessions.transaction() as session:
        assert get_segments(session, job_id)[0].result == RESULT
        session.expunge_all()
        with pytest.raises(InvalidRequestError, match="raiseload"):
            _ = session.scalars(select(Segment).where(Segment.job_id == job_id)).one().result
