"""Streams that ffmpeg publishes to a real listener, with real readers, database, broker and storage."""

import contextlib

import pytest

from shared.streams.creation import NewStream, create_stream
from shared.streams.keys import new_push_key
from tests.integration.rows import new_job_of
from tests.integration.test_streams import (  # noqa: F401 - fixtures
    MANIFEST,
    _end_open_streams,
    clip,
    context,
    events_of,
    files,
    get_job_of,
    has_read,
    make_context,
    score,
    segments_of,
    sessions,
    stop,
    stream_of,
)
from tests.live import wait_until
from tests.publishers import publishing
from worker.live.process import Readers, listening
from worker.tasks.finish import finish


class Reader:
    """A process of the stream role, but for its loop: ``claim`` is one turn of it."""

    def __init__(self, context):
        self.readers = Readers(context)
        self.claim = self.readers.claim
        self.port = 0

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
        with publishing(clip, reader.address(key), "-readrate", "4") as publisher:
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
