"""Live streams with a real source, reader, database, broker and storage; the scores are those that a test records."""

import socket
import time
import uuid
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import undefer

from shared.jobs.deliveries import list_deliveries
from shared.jobs.ending import cancel_job, delete_job
from shared.jobs.leases import RetryPolicy, Step, acquire
from shared.jobs.queries import get_job, get_segments, lock_job
from shared.jobs.results import record_segment
from shared.manifests import DEFAULT_CHECKPOINT, PACKAGED_MODELS_DIR, read_manifest
from shared.models import Job, Removal, Segment, Stream, StreamEvent
from shared.queues import ALL_LISTS, LIVE_QUEUE, SCORE_LIVE, Sender, make_celery
from shared.streams.claims import claim_streams
from shared.streams.cleanup import find_stream
from shared.streams.creation import NewStream, create_stream
from shared.streams.ending import request_stop
from shared.streams.events import read_events
from tests.integration.rows import add_job, new_job_of
from tests.live import Playlist, serving, wait_until
from tests.rtsp import RTSPServer
from tests.unit.worker.streams.test_cutting import make_stream
from tests.unit.worker.streams.test_intake import needs_namespace, sending
from worker.config import WorkerSettings
from worker.detection.people import LOOK_SIZE, pack_look
from worker.live.process import Readers
from worker.live.reading import SourceReader
from worker.tasks.context import Context
from worker.tasks.expiry import expire
from worker.tasks.finish import finish
from worker.tasks.sweep import sweep
from worker.tasks.upkeep import find_orphans

SECRET = "hush-hush-4711"
MANIFEST = read_manifest(PACKAGED_MODELS_DIR / DEFAULT_CHECKPOINT)
LOOK = pack_look(np.linspace(-1.0, 1.0, LOOK_SIZE, dtype=np.float32))
BOX = [10.0, 10.0, 90.0, 110.0]


def result_of(score, *, start_s, end_s):
    """The result of a segment with one person, whose faces all have the same *score*; nobody if that is None."""
    times = [] if score is None else [start_s + (end_s - start_s) * share for share in (0.1, 0.4, 0.7)]
    faces = [
        {
            "time_s": time_s,
            "box_px": BOX,
            "landmarks_px": [[1.0, 1.0]] * 5,
            "confidence": 0.99,
            "size_px": 80.0,
            "sharpness": 90.0,
            "problem": None,
            "fake_score": score,
            "luma": 120.0,
            "turned_deg": 0,
        }
        for time_s in times
    ]
    people = [{"person": 0, "fake_score": score, "faces": faces}] if faces else []
    return {"fake_score": score, "reasons": [] if faces else ["no_face"], "people": people, "frames_decoded": 3}


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("streams") / "clip.ts"
    path.write_bytes(make_stream(12))
    return path


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "source"
    path.mkdir()
    return path


@pytest.fixture
def source(clip, folder):
    return Playlist(clip, folder)


@pytest.fixture
def address(source, folder):
    with serving(source, folder) as url:
        yield url


@pytest.fixture
def make_context(migrated_url, redis_server, tmp_path):
    made = []

    def make(**streams):
        settings = WorkerSettings(
            database={"url": migrated_url},
            broker={"url": redis_server.url},
            storage={"url": f"file://{tmp_path / 'storage'}"},
            webhooks={"allow_insecure": True},
            streams={"lease_s": 2.0, "max_waiting": 100, **streams},
        )
        context = Context.connect(settings, Sender(make_celery(settings.broker, settings.jobs)))
        made.append(context)
        return context

    yield make
    for context in made:
        context.sessions.engine.dispose()


@pytest.fixture
def context(make_context):
    return make_context()


@pytest.fixture
def sessions(context):
    """Transactions whose effects run."""
    return context.sessions


@pytest.fixture(autouse=True)
def _end_open_streams(sessions):
    """End what this test and those of other files leave open, since readers claim all streams."""

    def end_all():
        with sessions.transaction() as session:
            for job_id in session.scalars(select(Stream.job_id).where(Stream.ended_at.is_(None))).all():
                cancel_job(session, lock_job(session, job_id))

    end_all()
    yield
    end_all()


@contextmanager
def reading(context):
    """Read streams, as the process of the role does."""
    readers = Readers(context)
    readers.claim()
    try:
        yield readers
    finally:
        readers.stop()


def add_stream(
    sessions, url, *, webhook_url=None, duration_limit_s=600.0, record="none", threshold=None, username="viewer"
):
    with sessions.transaction() as session:
        new = NewStream(url, username, SECRET if username else None, duration_limit_s, threshold, record)
        job, is_new = create_stream(session, new_job_of(session, MANIFEST, webhook_url=webhook_url), new)
        assert is_new
        return job.id


def score(sessions, job_id, scores):
    """Score all pending segments in order: each with the next of *scores*, the last of them for all others."""
    scores = list(scores)
    with sessions.transaction() as session:
        pending = [
            (one.index, one.start_s, one.end_s) for one in get_segments(session, job_id) if one.status == "pending"
        ]
    for index, start_s, end_s in pending:
        given = scores.pop(0) if len(scores) > 1 else scores[0]
        with sessions.transaction() as session:
            lease = acquire(session, Step.SCORE, (job_id, index), 30, max_attempts=3)
        with sessions.transaction() as session:
            result = result_of(given, start_s=start_s, end_s=end_s)
            # One look for all: the faces of one person.
            record_segment(session, lease, fake_score=given, result=result, looks=[LOOK] if given is not None else [])


def stream_of(sessions, job_id):
    with sessions.transaction() as session:
        return find_stream(session, job_id)


def segments_of(sessions, job_id):
    with sessions.transaction() as session:
        return get_segments(session, job_id)


def events_of(sessions, job_id, kind=None):
    with sessions.transaction() as session:
        return [event for event in read_events(session, job_id) if kind in (None, event.kind)]


def stop(sessions, job_id):
    with sessions.transaction() as session:
        job = lock_job(session, job_id)
        request_stop(session, job, find_stream(session, job_id))


def has_read(sessions, job_id, end_s):
    return any(segment.end_s >= end_s for segment in segments_of(sessions, job_id))


def files(tmp_path):
    return [path for path in (tmp_path / "storage").rglob("*") if path.is_file()]


def test_a_source_that_ends_gives_a_judged_job(context, sessions, source, address, tmp_path):
    source.publish(8)
    source.finish()
    job_id = add_stream(sessions, address, webhook_url="https://receiver.example/hook")
    with reading(context):
        wait_until(lambda: stream_of(sessions, job_id).state == "ending")
        assert len(files(tmp_path)) == 4
        score(sessions, job_id, [0.01])
        wait_until(lambda: get_job_of(sessions, job_id).segments_total == 4)
    assert files(tmp_path) == []
    finish(context, job_id)
    job, stream = get_job_of(sessions, job_id), stream_of(sessions, job_id)
    assert (job.status, job.verdict, job.reasons) == ("succeeded", "real", [])
    assert (stream.state, stream.ending, stream.segments, stream.gaps, stream.dropped) == ("ended", "source", 4, 0, 0)
    found = segments_of(sessions, job_id)
    assert [(round(one.start_s), round(one.end_s)) for one in found] == [(0, 2), (2, 4), (4, 6), (6, 8)]
    kinds = [event.kind for event in events_of(sessions, job_id)]
    assert kinds == ["source", "segment", "segment", "segment", "segment", "ended"]
    with sessions.transaction() as session:
        [delivery] = list_deliveries(session, job_id)
        assert (delivery.event, delivery.payload) == ("stream.ended", None)
        loaded = session.scalars(select(Stream).options(undefer(Stream.secret)).where(Stream.job_id == job_id)).one()
        assert (loaded.secret, loaded.source) == (None, f"{address.rpartition('/')[0]}/…")


def test_a_slow_end_is_no_gap(context, sessions, source, address, monkeypatch):
    """A busy machine must not add missed time to a source that has said that it ended."""
    stop = SourceReader.stop

    def stop_late(self):
        time.sleep(3.5)
        stop(self)

    monkeypatch.setattr(SourceReader, "stop", stop_late)
    source.publish(2)
    source.finish()
    job_id = add_stream(sessions, address)
    with reading(context):
        wait_until(lambda: stream_of(sessions, job_id).state == "ending")
        assert stream_of(sessions, job_id).gaps == 0


def get_job_of(sessions, job_id):
    with sessions.transaction() as session:
        return get_job(session, job_id)


def test_an_alert_is_raised_once_and_cleared(context, sessions, source, address):
    source.publish(12)
    source.finish()
    job_id = add_stream(sessions, address, webhook_url="https://receiver.example/hook")
    with reading(context):
        wait_until(lambda: has_read(sessions, job_id, 11.5))
        score(sessions, job_id, [0.1, 0.97, 0.97, 0.97, 0.1, 0.1])
        wait_until(lambda: get_job_of(sessions, job_id).segments_total)
    alerts = [event.payload for event in events_of(sessions, job_id, "alert")]
    assert [(alert["action"], alert["person"], round(alert["time_s"])) for alert in alerts] == [
        ("raised", 0, 4),
        ("cleared", 0, 12),
    ]
    with sessions.transaction() as session:
        sent = [
            (delivery.event, delivery.number, delivery.payload["action"])
            for delivery in list_deliveries(session, job_id)
        ]
    assert sent == [("stream.alert", 1, "raised"), ("stream.alert", 2, "cleared")]


def test_a_reader_that_dies_is_replaced_and_says_what_was_missed(make_context, sessions, source, address):
    source.publish(4)
    job_id = add_stream(sessions, address)
    first, second = Readers(make_context()), Readers(make_context())
    first.claim()
    wait_until(lambda: has_read(sessions, job_id, 2))
    for run in first._runs:
        # As if the process were gone: nothing is given back, and nothing is renewed or recorded any more.
        run._source.stop()
        run._lost.set()
        run.join()
    # The source still has three seconds of what it sent meanwhile.
    time.sleep(5.0)
    source.publish(6)
    try:
        wait_until(lambda: second.claim() or stream_of(sessions, job_id).gaps == 1, timeout_s=20)
        wait_until(lambda: segments_of(sessions, job_id)[-1].reasons != ["gap"])
    finally:
        second.stop()
    found = segments_of(sessions, job_id)
    [gap] = [segment for segment in found if segment.reasons == ["gap"]]
    assert gap.status == "unscorable"
    assert 1 < gap.end_s - gap.start_s < 60
    assert [one.start_s for one in found[1:]] == [one.end_s for one in found[:-1]]


def test_a_source_that_comes_back_goes_on_after_a_gap(context, sessions, source, address):
    source.publish(4)
    job_id = add_stream(sessions, address)
    with reading(context):
        wait_until(lambda: has_read(sessions, job_id, 2))
        source.is_away = True
        wait_until(lambda: stream_of(sessions, job_id).state == "away")
        stream = stream_of(sessions, job_id)
        assert stream.error_code == "source_refused"
        time.sleep(2.5)
        source.is_away = False
        source.publish(8, kept=4)
        source.finish()
        wait_until(lambda: stream_of(sessions, job_id).state == "ending")
        score(sessions, job_id, [0.01])
        wait_until(lambda: get_job_of(sessions, job_id).segments_total)
    finish(context, job_id)
    job, stream = get_job_of(sessions, job_id), stream_of(sessions, job_id)
    assert (stream.gaps, stream.reconnects) == (1, 1)
    assert (job.status, job.verdict, job.reasons) == ("succeeded", "inconclusive", ["gap"])


def test_a_lost_connection_to_a_source_that_keeps_what_it_sent_is_no_gap(context, sessions, source, address):
    source.publish(4)
    job_id = add_stream(sessions, address)
    with reading(context):
        wait_until(lambda: has_read(sessions, job_id, 2))
        source.is_away = True
        wait_until(lambda: stream_of(sessions, job_id).state == "away")
        source.is_away = False
        source.publish(8)
        source.finish()
        wait_until(lambda: stream_of(sessions, job_id).state == "ending")
    stream, found = stream_of(sessions, job_id), segments_of(sessions, job_id)
    assert (stream.gaps, stream.reconnects) == (0, 1)
    # The first of twelve seconds is before the place at which a live playlist is entered.
    assert found[-1].end_s == pytest.approx(11.0, abs=0.1)


def test_a_playlist_that_does_not_grow_any_more_ends_the_stream_and_is_read_once(
    make_context, sessions, source, address
):
    source.publish(4)
    job_id = add_stream(sessions, address)
    with reading(make_context(source_timeout_s=4.0)):
        wait_until(lambda: stream_of(sessions, job_id).ending == "source")
    *read, gap = segments_of(sessions, job_id)
    assert [round(one.end_s) for one in read] == [2, 3]
    assert gap.reasons == ["gap"]


def test_what_cannot_be_scored_in_time_is_dropped_oldest_first(make_context, sessions, source, address, tmp_path):
    source.publish(12)
    source.finish()
    job_id = add_stream(sessions, address)
    with reading(make_context(max_waiting=2)):
        wait_until(lambda: stream_of(sessions, job_id).dropped == 4)
        found = segments_of(sessions, job_id)
        assert [one.status for one in found] == ["unscorable"] * 4 + ["pending"] * 2
        assert found[0].reasons == ["dropped"]
        assert len(files(tmp_path)) == 2
        score(sessions, job_id, [0.01])
        wait_until(lambda: get_job_of(sessions, job_id).segments_total == 6)


def test_a_stream_stops_on_request_while_it_is_read(context, sessions, source, address):
    source.publish(6)
    job_id = add_stream(sessions, address)
    with reading(context):
        wait_until(lambda: has_read(sessions, job_id, 2))
        score(sessions, job_id, [0.01])
        stop(sessions, job_id)
        began = time.monotonic()
        wait_until(lambda: stream_of(sessions, job_id).ending == "request")
        assert time.monotonic() - began < 20
        score(sessions, job_id, [0.01])
        wait_until(lambda: get_job_of(sessions, job_id).segments_total)
    finish(context, job_id)
    assert get_job_of(sessions, job_id).status == "succeeded"


def test_a_stream_without_a_reader_stops_on_request(sessions):
    job_id = add_stream(sessions, "https://nobody.example/live.m3u8")
    stop(sessions, job_id)
    job, stream = get_job_of(sessions, job_id), stream_of(sessions, job_id)
    assert (job.status, stream.state, stream.ending) == ("cancelled", "ended", "request")


def test_a_stream_ends_at_its_limit_of_duration(context, sessions, source, address):
    source.publish(6)
    job_id = add_stream(sessions, address, duration_limit_s=1.5)
    with reading(context):
        wait_until(lambda: stream_of(sessions, job_id).ending == "duration")
        score(sessions, job_id, [0.01])
        wait_until(lambda: get_job_of(sessions, job_id).segments_total)


def test_a_source_that_never_answers_fails_the_stream(make_context, sessions, source, address):
    source.is_away = True
    job_id = add_stream(sessions, address, webhook_url="https://receiver.example/hook")
    with reading(make_context(source_timeout_s=1.0)):
        wait_until(lambda: get_job_of(sessions, job_id).status == "failed")
    job = get_job_of(sessions, job_id)
    assert (job.error_code, stream_of(sessions, job_id).state) == ("source_refused", "ended")
    with sessions.transaction() as session:
        assert [delivery.event for delivery in list_deliveries(session, job_id)] == ["stream.ended"]


@needs_namespace
def test_a_camera_with_a_login_is_read_with_the_secret(context, sessions, clip):
    with RTSPServer(clip, login=f"viewer:{SECRET}") as server:
        job_id = add_stream(sessions, f"rtsp://127.0.0.1:{server.port}/hall")
        with reading(context):
            wait_until(lambda: has_read(sessions, job_id, 2))
            stop(sessions, job_id)
            # What has arrived by then is the last segment.
            wait_until(lambda: score(sessions, job_id, [0.01]) or get_job_of(sessions, job_id).segments_total)
    assert stream_of(sessions, job_id).error_code is None


def test_a_source_that_falls_silent_ends_the_stream(make_context, sessions, clip):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    job_id = add_stream(sessions, f"udp://127.0.0.1:{port}")
    with reading(make_context(source_timeout_s=4.0)):
        # Datagrams before the reader listens are lost; so the clip repeats until a piece has been read.
        pace = ("-readrate", "4", "-stream_loop", "-1")
        with sending(clip, "-f", "mpegts", f"udp://127.0.0.1:{port}?pkt_size=1316", pace=pace):
            wait_until(lambda: has_read(sessions, job_id, 2))
        wait_until(lambda: stream_of(sessions, job_id).ending == "source")
        score(sessions, job_id, [0.01])
        wait_until(lambda: get_job_of(sessions, job_id).segments_total)
    stream = stream_of(sessions, job_id)
    assert (stream.error_code, stream.segments >= 1) == ("source_stalled", True)


def test_an_erased_stream_leaves_nothing(context, sessions, source, address, tmp_path):
    source.publish(6)
    job_id = add_stream(sessions, address, record="suspicious")
    with reading(context) as readers:
        wait_until(lambda: has_read(sessions, job_id, 2))
        assert files(tmp_path)
        with context.sessions.transaction() as session:
            delete_job(session, lock_job(session, job_id))
        wait_until(lambda: not any(run.is_alive() for run in readers._runs))
    assert files(tmp_path) == []
    with sessions.transaction() as session:
        for table in (Stream, StreamEvent, Segment):
            assert session.scalar(select(func.count()).select_from(table).where(table.job_id == job_id)) == 0


@pytest.mark.parametrize("ends", ["stop", "cancel"])
def test_nothing_without_an_alert_is_kept_of_a_stream_that_ends_without_a_reader(
    context, sessions, source, address, tmp_path, ends
):
    source.publish(6)
    job_id = add_stream(sessions, address, record="suspicious")
    with reading(context):
        wait_until(lambda: has_read(sessions, job_id, 2))
        score(sessions, job_id, [0.01])
        wait_until(lambda: events_of(sessions, job_id, "segment"))
    assert files(tmp_path)
    if ends == "stop":
        stop(sessions, job_id)
        finish(context, job_id)
    else:
        with sessions.transaction() as session:
            cancel_job(session, lock_job(session, job_id))
    assert get_job_of(sessions, job_id).is_final
    assert files(tmp_path) == []


def test_only_what_is_around_alerts_is_kept_until_its_retention(make_context, sessions, source, address, tmp_path):
    source.publish(12)
    source.finish()
    job_id = add_stream(sessions, address, record="suspicious")
    context = make_context(window_s=2.0)
    with reading(context):
        wait_until(lambda: has_read(sessions, job_id, 11.5))
        score(sessions, job_id, [0.1, 0.1, 0.97, 0.1, 0.1, 0.1])
        wait_until(lambda: get_job_of(sessions, job_id).segments_total == 6)
    finish(context, job_id)
    kept = [segment.index for segment in segments_of(sessions, job_id) if segment.storage_key]
    assert kept == [1, 2, 3, 4]
    assert len(files(tmp_path)) == 4
    keys = {segment.storage_key for segment in segments_of(sessions, job_id)} - {None}
    assert keys.isdisjoint(find_orphans(context, datetime.now(UTC) + timedelta(days=2)))
    with sessions.transaction() as session:
        session.execute(update(Job).where(Job.id == job_id).values(finished_at=func.now() - timedelta(days=31)))
    expire(context.sessions, context.settings.jobs)
    assert files(tmp_path) == []


def test_no_other_step_touches_a_stream(context, sessions):
    job_id = add_stream(sessions, "https://nobody.example/live.m3u8")
    with sessions.transaction() as session:
        assert acquire(session, Step.INGEST, (job_id,), 30, max_attempts=3) is None
        assert acquire(session, Step.FINISH, (job_id,), 30, max_attempts=3) is None
        assert acquire(session, Step.STREAM, (job_id,), -1, max_attempts=3) is not None
    policy = RetryPolicy(3, 0.0)
    sweep(context.sessions, context.settings.jobs, policy, dict.fromkeys(ALL_LISTS, 0))
    assert get_job_of(sessions, job_id).status == "running"
    with sessions.transaction() as session:
        plain = add_job(session).id
        assert acquire(session, Step.STREAM, (plain,), 30, max_attempts=3) is None


def test_a_stream_that_kills_its_readers_fails(context, sessions):
    job_id = add_stream(sessions, "https://nobody.example/live.m3u8")
    for _ in range(3):
        with sessions.transaction() as session:
            assert acquire(session, Step.STREAM, (job_id,), -1, max_attempts=3)
    with sessions.transaction() as session:
        assert acquire(session, Step.STREAM, (job_id,), 30, max_attempts=3) is None
    sweep(context.sessions, context.settings.jobs, RetryPolicy(3, 0.0), dict.fromkeys(ALL_LISTS, 0))
    job = get_job_of(sessions, job_id)
    assert (job.status, job.error_code) == ("failed", "attempts_exhausted")
    assert "stream" in job.error_detail


def test_a_stream_without_attempts_left_takes_no_place_of_another(sessions):
    spent, fresh = (add_stream(sessions, "https://nobody.example/live.m3u8") for _ in range(2))
    with sessions.transaction() as session:
        session.execute(
            update(Job).where(Job.id == spent).values(attempts=3, leased_until=func.now() - timedelta(seconds=1))
        )
    with sessions.transaction() as session:
        [claim] = claim_streams(session, 1, lease_s=30, max_attempts=3)
    assert claim.lease.job_id == fresh


@pytest.mark.parametrize("why", ["request", "duration", "source"])
def test_a_stream_that_should_have_ended_needs_no_reader_for_it(context, sessions, why):
    """Its reader died with the end on its hands, and no other one comes."""
    over, going_on = (add_stream(sessions, "https://nobody.example/live.m3u8") for _ in range(2))
    with sessions.transaction() as session:
        claim_streams(session, 2, lease_s=-60, max_attempts=3)
        values = {
            "request": {"stop_requested_at": func.now() - timedelta(minutes=1)},
            "duration": {"duration_limit_s": -60.0},
            "source": {"ending": "source"},
        }
        session.execute(update(Stream).where(Stream.job_id == over).values(values[why]))
    sweep(context.sessions, context.settings.jobs, RetryPolicy(3, 0.0), dict.fromkeys(ALL_LISTS, 0))
    job, stream = get_job_of(sessions, over), stream_of(sessions, over)
    assert (job.status, stream.state, stream.ending) == (
        "cancelled" if why == "request" else "failed",
        "ended",
        why,
    )
    assert get_job_of(sessions, going_on).status == "running"


def test_lost_messages_of_a_stream_go_to_its_own_queue(context, sessions):
    job_id = add_stream(sessions, "https://nobody.example/live.m3u8")
    with sessions.transaction() as session:
        acquire(session, Step.STREAM, (job_id,), 30, max_attempts=3)
        session.add(
            Segment(job_id=job_id, index=0, start_s=0.0, end_s=2.0, storage_key=f"live/{uuid.uuid4()}", lead_s=0.0)
        )
    before = context.sender.depth(LIVE_QUEUE)
    sweep(context.sessions, context.settings.jobs, RetryPolicy(3, 0.0), dict.fromkeys(ALL_LISTS, 0))
    assert context.sender.depth(LIVE_QUEUE) == before + 1
    with sessions.transaction() as session:
        delete_job(session, lock_job(session, job_id))
        assert session.scalar(select(func.count()).select_from(Removal).where(Removal.storage_key.startswith("live/")))
    assert SCORE_LIVE.endswith("score_live")
