"""Pictures of the newest faces in live streams: who has one, and that none outlives the stream."""

import pytest
from sqlalchemy import select, text

from shared.jobs.ending import cancel_job, delete_job
from shared.jobs.queries import lock_job
from shared.manifests import DEFAULT_CHECKPOINT, PACKAGED_MODELS_DIR, read_manifest
from shared.models import StreamFace
from shared.streams.creation import NewStream, create_stream
from shared.streams.faces import MAX_FACES, find_face, keeps_last_faces, name_faces, record_faces
from tests.integration.rows import new_job_of

MANIFEST = read_manifest(PACKAGED_MODELS_DIR / DEFAULT_CHECKPOINT)


@pytest.fixture
def stream_id(sessions):
    with sessions.transaction() as session:
        new = NewStream("https://camera.example/live.m3u8", None, None, 600.0, None, "none", last_faces=True)
        job, _ = create_stream(session, new_job_of(session, MANIFEST), new)
        return job.id


def record(sessions, stream_id, index, *faces):
    """Record faces of a segment: (number within the segment, time, picture) each."""
    with sessions.transaction() as session:
        lock_job(session, stream_id)
        record_faces(session, stream_id, index, faces)


def name(sessions, stream_id, numbers, present):
    with sessions.transaction() as session:
        lock_job(session, stream_id)
        return name_faces(session, stream_id, numbers, present)


def pictures(sessions, stream_id):
    with sessions.transaction() as session:
        rows = session.execute(select(StreamFace.person, StreamFace.jpeg).where(StreamFace.job_id == stream_id))
        return dict(tuple(row) for row in rows)


def test_only_the_newest_face_of_each_person_at_present_is_kept(sessions, stream_id):
    record(sessions, stream_id, 0, (0, 1.0, b"first"), (1, 1.5, b"second"))
    assert pictures(sessions, stream_id).keys() == {None}, "nobody is known before the segment is judged"
    assert name(sessions, stream_id, {0: {0: 0, 1: 1}}, {0, 1}) == {0: 1.0, 1: 1.5}
    record(sessions, stream_id, 1, (0, 3.0, b"second again"))
    # A segment that was scored out of order is older, and one that is not judged yet waits.
    record(sessions, stream_id, 3, (0, 7.0, b"later"))
    assert name(sessions, stream_id, {1: {0: 1}}, {0, 1}) == {0: 1.0, 1: 3.0}
    assert pictures(sessions, stream_id) == {0: b"first", 1: b"second again", None: b"later"}
    assert name(sessions, stream_id, {2: {}, 3: {0: 5}}, {1, 5}) == {1: 3.0, 5: 7.0}, "the first has gone"
    assert pictures(sessions, stream_id) == {1: b"second again", 5: b"later"}
    with sessions.transaction() as session:
        assert find_face(session, stream_id, 5) == b"later"
        assert find_face(session, stream_id, 0) is None


def test_a_stream_keeps_a_bounded_number_of_faces(sessions, stream_id):
    record(sessions, stream_id, 0, *((within, float(within), b"x") for within in range(MAX_FACES + 5)))
    numbers = {within: within for within in range(MAX_FACES + 5)}
    kept = name(sessions, stream_id, {0: numbers}, set(numbers))
    assert sorted(kept) == list(range(5, MAX_FACES + 5)), "those that were seen last"
    assert len(pictures(sessions, stream_id)) == MAX_FACES


def by_cancelling(session, job):
    cancel_job(session, job)


def by_erasing(session, job):
    delete_job(session, job)


def by_the_release_before(session, job):
    session.execute(text("update jobs set status = 'cancelled', finished_at = now() where id = :id"), {"id": job.id})


def by_an_erasure_of_the_release_before(session, job):
    session.execute(text("update jobs set deleted_at = now() where id = :id"), {"id": job.id})


@pytest.mark.parametrize("end", [by_cancelling, by_erasing, by_the_release_before, by_an_erasure_of_the_release_before])
def test_no_face_outlives_the_stream(sessions, stream_id, end):
    record(sessions, stream_id, 0, (0, 1.0, b"named"), (1, 1.0, b"not named"))
    name(sessions, stream_id, {0: {0: 0}}, {0})
    record(sessions, stream_id, 1, (0, 3.0, b"not judged"))
    with sessions.transaction() as session:
        assert keeps_last_faces(session, stream_id)
        end(session, lock_job(session, stream_id))
    assert pictures(sessions, stream_id) == {}
    with sessions.transaction() as session:
        assert not keeps_last_faces(session, stream_id), "a segment that is scored late stores none"


def test_a_stream_keeps_no_faces_unless_asked(sessions):
    with sessions.transaction() as session:
        new = NewStream("https://camera.example/live.m3u8", None, None, 600.0, None, "none")
        job, _ = create_stream(session, new_job_of(session, MANIFEST), new)
        assert not keeps_last_faces(session, job.id)
        cancel_job(session, job)
