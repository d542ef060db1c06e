"""Streams that ffmpeg publishes to a real listener, with real readers, database, broker and storage."""

import contextlib
import dataclasses
import time

import pytest
from sqlalchemy import func, update

from shared.errors import JobCancelledError
from shared.jobs.deliveries import list_deliveries
from shared.jobs.leases import RetryPolicy
from shared.jobs.queries import lock_job
from shared.models import Job
from shared.queues import ALL_LISTS
from shared.streams.creation import NewStream, create_stream
from shared.streams.keys import new_push_key
from shared.streams.pieces import lock_stream
from shared.streams.pushing import Refusal, claim_pushed, claim_unattended, find_pushed, leave_pushed, note_left
from tests.integration import test_streams as streams
from tests.integration.rows import new_job_of
from tests.integration.test_streams import (
    MANIFEST,
    events_of,
    get_job_of,
    has_read,
    score,
    segments_of,
    stop,
    stream_of,
)
from tests.live import wait_until
from tests.publishers import Publisher, publishing
from worker.live.process import Readers, listening
from worker.tasks.finish import finish
from worker.tasks.sweep import sweep

make_context, context, sessions, clip = streams.make_context, streams.context, streams.sessions, streams.clip
_end_open_streams = streams._end_open_streams


class Reader:
    """A process of the stream role, but for its loop: ``claim`` is one turn of it."""

    def __init__(self, context):
        self.readers = Readers(context)
        self.claim = self.readers.claim
        self.port = 0

    @property
    def is_busy(self):
        return any(run.is_alive() for run in self.readers._runs)

    def address(self, key):
        return f"rtmp://127.0.0.1:{self.port}/live/{key}"


@contextlib.contextmanager
def receiving(context):
    reader = Reader(context)
    settings = context.settings.streams.model_copy(update={"push_listen": "127.0.0.1:0"})
    try:
        with listening(reader.readers, settings) as listener:
            reader.port = listener.port
            yield reader
    finally:
        reader.readers.stop()


def add_pushed(sessions, *, duration_limit_s=600.0, record="none", webhook_url=None):
    """Begin a stream for a publisher; return the id of its job and its key."""
    key = new_push_key()
    with sessions.transaction() as session:
        new = NewStream("rtmp://127.0.0.1:1935/live", None, None, duration_limit_s, None, record, key)
        job, is_new = create_stream(session, new_job_of(session, MANIFEST, webhook_url=webhook_url), new)
        assert is_new
        return job.id, key


def test_what_a_publisher_sends_is_cut_and_judged(context, sessions, clip):
    job_id, key = add_pushed(sessions)
    with receiving(context) as reader:
        reader.claim()
        assert stream_of(sessions, job_id).state == "waiting"
        with publishing(clip, reader.address(key), is_live=False) as publisher:
            wait_until(lambda: has_read(sessions, job_id, 2))
            assert publisher.wait(20) == 0
        wait_until(lambda: stream_of(sessions, job_id).state == "away")
        score(sessions, job_id, [0.01])
        wait_until(lambda: len(events_of(sessions, job_id, "segment")) == 6)
        stop(sessions, job_id)
        wait_until(lambda: reader.claim() or get_job_of(sessions, job_id).segments_total == 6)
    finish(context, job_id)
    job, stream = get_job_of(sessions, job_id), stream_of(sessions, job_id)
    assert (job.status, job.verdict, job.reasons) == ("succeeded", "real", [])
    assert (stream.ending, stream.segments, stream.gaps, stream.error_code) == ("request", 6, 0, None)


def is_refused(clip, address):
    """Whether a publisher is turned away; return what it was told."""
    with publishing(clip, address) as publisher:
        _, log = publisher.communicate(timeout=20)
    assert publisher.returncode != 0
    return log.decode()


def test_only_the_key_of_an_open_stream_is_accepted(context, sessions, clip):
    job_id, key = add_pushed(sessions)
    with receiving(context) as reader:
        wrong = is_refused(clip, reader.address(new_push_key()))
        assert "no open stream has this key" in wrong
        stop(sessions, job_id)
        assert get_job_of(sessions, job_id).status == "cancelled"
        ended = is_refused(clip, reader.address(key))
    assert wrong.replace(str(reader.port), "").count("no open stream") == ended.count("no open stream") == 1


def test_a_stream_has_one_publisher_and_a_reader_only_so_many(make_context, sessions, clip):
    context = make_context()
    context = dataclasses.replace(
        context,
        settings=context.settings.model_copy(
            update={"worker": context.settings.worker.model_copy(update={"streams": 1})}
        ),
    )
    job_id, key = add_pushed(sessions)
    _, other = add_pushed(sessions)
    with receiving(context) as reader, receiving(make_context()) as second, publishing(clip, reader.address(key)):
        wait_until(lambda: stream_of(sessions, job_id).away_since is None)
        assert "another publisher" in is_refused(clip, second.address(key))
        assert "try again" in is_refused(clip, reader.address(other))
        wait_until(lambda: has_read(sessions, job_id, 2))


def test_a_publisher_that_comes_back_at_another_reader_goes_on_after_a_gap(make_context, sessions, clip):
    job_id, key = add_pushed(sessions)
    with receiving(make_context()) as first, receiving(make_context()) as second:
        with publishing(clip, first.address(key)):
            wait_until(lambda: has_read(sessions, job_id, 2))
        wait_until(lambda: stream_of(sessions, job_id).state == "away")
        assert stream_of(sessions, job_id).error_code == "source_unreachable"
        # The first reader still waits for the scores of its segments.
        time.sleep(1.0)
        with publishing(clip, second.address(key)):
            wait_until(lambda: stream_of(sessions, job_id).reconnects == 1)
        wait_until(lambda: not first.is_busy)
        wait_until(lambda: stream_of(sessions, job_id).state == "away")
        score(sessions, job_id, [0.01])
        wait_until(lambda: not second.is_busy)
    found, stream = segments_of(sessions, job_id), stream_of(sessions, job_id)
    assert stream.gaps == [segment.reasons for segment in found].count(["gap"]) == 1
    assert [one.start_s for one in found[1:]] == [one.end_s for one in found[:-1]]
    assert [event.payload["state"] for event in events_of(sessions, job_id, "source")] == [
        "connected",
        "away",
        "connected",
        "away",
    ]


def test_a_stream_goes_on_elsewhere_when_its_reader_is_killed(make_context, sessions, clip):
    job_id, key = add_pushed(sessions)
    with receiving(make_context()) as first, receiving(make_context()) as second:
        with publishing(clip, first.address(key)):
            wait_until(lambda: has_read(sessions, job_id, 2))
            for run in first.readers._runs:
                # As if the process were gone: nothing is given back, and nothing is renewed or recorded any more.
                run._lost.set()
                run.join()
        # Without a publisher, the other reader judges what was read.
        score(sessions, job_id, [0.01])
        wait_until(lambda: second.claim() or events_of(sessions, job_id, "segment"))
        assert stream_of(sessions, job_id).state == "away"
        # The gap is as long as this, but for what the first pictures of one connection came later than the other's.
        time.sleep(4.0)
        with publishing(clip, second.address(key)):
            wait_until(lambda: stream_of(sessions, job_id).gaps == 1)
    [gap] = [one for one in segments_of(sessions, job_id) if one.reasons == ["gap"]]
    assert 1 < gap.end_s - gap.start_s < 60
    assert get_job_of(sessions, job_id).attempts <= 1


def test_a_stream_goes_on_elsewhere_when_its_reader_is_stopped(make_context, sessions, clip):
    job_id, key = add_pushed(sessions)
    with receiving(make_context()) as second:
        with receiving(make_context()) as first, publishing(clip, first.address(key)):
            wait_until(lambda: has_read(sessions, job_id, 2))
            first.readers.stop()
        before = stream_of(sessions, job_id).segments
        with publishing(clip, second.address(key)):
            wait_until(lambda: stream_of(sessions, job_id).segments > before)
    assert get_job_of(sessions, job_id).attempts <= 1


def test_a_publisher_that_says_it_has_ended_leaves_no_gap(make_context, sessions, clip):
    job_id, key = add_pushed(sessions)
    with receiving(make_context(source_timeout_s=2.0)) as reader:
        with publishing(clip, reader.address(key), is_live=False) as publisher:
            assert publisher.wait(20) == 0
        wait_until(lambda: stream_of(sessions, job_id).state == "away")
        score(sessions, job_id, [0.01])
        wait_until(lambda: reader.claim() or get_job_of(sessions, job_id).segments_total)
    stream = stream_of(sessions, job_id)
    assert (stream.ending, stream.segments, stream.gaps, stream.error_code) == ("source", 6, 0, None)


def test_a_publisher_that_is_lost_for_too_long_ends_the_stream_with_a_gap(make_context, sessions, clip):
    job_id, key = add_pushed(sessions)
    with receiving(make_context(source_timeout_s=2.5)) as reader:
        with publishing(clip, reader.address(key)):
            wait_until(lambda: has_read(sessions, job_id, 2))
        wait_until(lambda: reader.claim() or stream_of(sessions, job_id).ending == "source")
    *_, last = segments_of(sessions, job_id)
    assert last.reasons == ["gap"]


def test_a_stream_that_nobody_publishes_fails(make_context, sessions):
    job_id, _ = add_pushed(sessions, webhook_url="https://receiver.example/hook")
    with receiving(make_context(push_wait_s=0.5, source_timeout_s=0.1)) as reader:
        reader.claim()
        assert get_job_of(sessions, job_id).status == "queued"
        wait_until(lambda: reader.claim() or get_job_of(sessions, job_id).status == "failed")
    assert get_job_of(sessions, job_id).error_code == "source_stalled"
    with sessions.transaction() as session:
        assert [delivery.event for delivery in list_deliveries(session, job_id)] == ["stream.ended"]


def test_a_publisher_without_pictures_does_not_keep_a_stream_open(make_context, sessions):
    job_id, key = add_pushed(sessions)
    with receiving(make_context(push_wait_s=4.0, source_timeout_s=0.5)) as reader:
        for _ in range(2):
            with Publisher(reader.port) as publisher:
                assert publisher.publish(key) == "NetStream.Publish.Start"
                wait_until(lambda: stream_of(sessions, job_id).error_code == "source_stalled")
        wait_until(lambda: reader.claim() or get_job_of(sessions, job_id).status == "failed")


def test_a_published_stream_ends_at_its_limit_of_duration(context, sessions, clip):
    job_id, key = add_pushed(sessions, duration_limit_s=2.5)
    with receiving(context) as reader, publishing(clip, reader.address(key)) as publisher:
        wait_until(lambda: stream_of(sessions, job_id).ending == "duration")
        assert publisher.wait(10) != 0


@pytest.mark.parametrize("is_judged", [True, False], ids=["in between", "at once"])
def test_a_published_stream_that_kills_its_readers_fails(context, sessions, is_judged):
    """A reader that only follows the last scores lives, which must not hide that those with the publisher die."""
    job_id, key = add_pushed(sessions)
    for attempt in (1, 2, 3):
        with sessions.transaction() as session:
            assert find_pushed(session, key) == job_id
            # The publisher comes back, to a reader that dies at once.
            claim = claim_pushed(session, job_id, lease_s=30, max_attempts=3)
            assert claim.lease.attempt == attempt
            session.execute(update(Job).where(Job.id == job_id).values(leased_until=func.now()))
        with sessions.transaction() as session:
            claims = claim_unattended(session, 4, context.settings.streams, max_attempts=3)
            assert len(claims) == (attempt < 3)
        with sessions.transaction() as session:
            for one in claims if is_judged else ():
                leave_pushed(session, one.lease, has_read=False, is_done=True)
    sweep(context.sessions, context.settings.jobs, RetryPolicy(3, 0.0), dict.fromkeys(ALL_LISTS, 0))
    assert get_job_of(sessions, job_id).error_code == "attempts_exhausted"


def test_what_a_reader_writes_that_has_lost_the_publisher_is_refused(sessions):
    job_id, _ = add_pushed(sessions)
    with sessions.transaction() as session:
        first = claim_pushed(session, job_id, lease_s=30, max_attempts=3)
        assert claim_pushed(session, job_id, lease_s=30, max_attempts=3) is Refusal.PUBLISHED
    with sessions.transaction() as session:
        lock_job(session, job_id)
        note_left(session, first.lease, None)
    with sessions.transaction() as session:
        second = claim_pushed(session, job_id, lease_s=30, max_attempts=3)
        assert second.lease.token != first.lease.token
    with sessions.transaction() as session, pytest.raises(JobCancelledError):
        lock_stream(session, first.lease)
    with sessions.transaction() as session:
        leave_pushed(session, first.lease, has_read=True, is_done=True)
        assert claim_pushed(session, job_id, lease_s=30, max_attempts=3) is Refusal.PUBLISHED
