"""Readers of live streams whose threads meet at the worst moment, which the tests bring about."""

import contextlib
import socket
import threading

import pytest

from shared.streams.pushing import find_pushed
from tests.integration import test_streams as streams
from tests.integration.test_pushed_streams import add_pushed
from worker.live import process
from worker.live.process import Readers
from worker.live.reading import PublisherReader
from worker.live.run import StreamRun
from worker.streams.rtmp.connection import Connection

make_context, context, sessions = streams.make_context, streams.context, streams.sessions
_end_open_streams = streams._end_open_streams


@pytest.fixture
def connection():
    """A publisher's connection, whose other end says nothing."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Connection(ours, max_picture_bytes=1024, max_bytes_per_s=1024)


class WatchedLock:
    """A lock that tells when a thread is about to wait for it."""

    def __init__(self, lock):
        self._lock, self.is_asked = lock, threading.Event()

    def acquire(self, **given):
        self.is_asked.set()
        return self._lock.acquire(**given)

    def release(self):
        self._lock.release()


def test_a_publisher_gets_no_place_that_a_claim_is_taking(make_context, sessions, connection, monkeypatch):
    context = make_context()
    context.settings.worker.__dict__["streams"] = 1
    readers, answers = Readers(context), []
    job_id = streams.add_stream(sessions, "udp://127.0.0.1:9")
    _, key = add_pushed(sessions)
    claim_streams = process.claim_streams
    publisher = threading.Thread(target=lambda: answers.append(readers.publish(key, connection)))

    def claim_meanwhile(session, limit, **given):
        # The places are counted by now.
        taking = readers._taking = WatchedLock(readers._taking)
        publisher.start()
        streams.wait_until(lambda: taking.is_asked.is_set() or not publisher.is_alive())
        return claim_streams(session, limit, **given)

    monkeypatch.setattr(process, "claim_streams", claim_meanwhile)
    monkeypatch.setattr(process, "RESERVE_TIMEOUT_S", 60.0)
    try:
        readers.claim()
        publisher.join()
        assert [run._claim.lease.job_id for run in readers._runs] == [job_id]
    finally:
        readers.stop()
    assert answers == ["this reader has as many streams as it can read; try again"]


def test_a_publisher_is_refused_while_a_claim_waits_for_a_silent_database(context, sessions, connection, monkeypatch):
    _, key = add_pushed(sessions)
    readers, is_claiming, answered = Readers(context), threading.Event(), threading.Event()

    def claim_slowly(*_, **_given):
        is_claiming.set()
        answered.wait(60)
        return []

    monkeypatch.setattr(process, "claim_unattended", claim_slowly)
    monkeypatch.setattr(process, "RESERVE_TIMEOUT_S", 0.1)
    claiming = threading.Thread(target=readers.claim)
    claiming.start()
    try:
        assert is_claiming.wait(20)
        assert readers.publish(key, connection) == "the service cannot look the key up at the moment; try again"
        assert claiming.is_alive()
    finally:
        answered.set()
        claiming.join()
        readers.stop()


def test_a_publisher_whose_thread_fails_while_the_stream_is_looked_at_is_not_forgotten(
    context, sessions, connection, monkeypatch
):
    """What the thread could not record, the reader that takes the stream next has to."""
    job_id, key = add_pushed(sessions)
    renew = StreamRun._renew

    def fail(_):
        raise RuntimeError("the database refused what the publisher's end means")

    def renew_after_the_failure(self):
        # The loop has asked already whether the thread failed.
        self._source.join()
        renew(self)

    monkeypatch.setattr(PublisherReader, "_read", fail)
    monkeypatch.setattr(StreamRun, "_renew", renew_after_the_failure)
    readers = Readers(context)
    assert readers.publish(key, connection) is None
    [run] = readers._runs
    run.join()
    assert streams.get_job_of(sessions, job_id).leased_until is not None
    assert streams.stream_of(sessions, job_id).away_since is None
    streams.wait_until(lambda: readers.claim() or streams.stream_of(sessions, job_id).away_since)
    with contextlib.closing(connection):
        readers.stop()
    assert streams.stream_of(sessions, job_id).error_code == "source_unreachable"
    with sessions.transaction() as session:
        assert find_pushed(session, key) == job_id
