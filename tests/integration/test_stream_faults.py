"""Faults of live sources and of the network before them, through the whole reader: each ends well and says its gaps."""

import contextlib
import os
import random
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
from sqlalchemy import func, update

from shared.errors import StorageError
from shared.jobs.leases import Step, acquire
from shared.models import Job
from shared.states import StreamEnd
from shared.streams.claims import claim_streams
from tests.integration import test_streams as streams
from tests.live import Cable, Playlist, RestartedSender, TransportSender, serving, wait_until
from tests.rtsp import RTSPServer
from tests.unit.worker.streams.test_cutting import make_stream
from tests.unit.worker.streams.test_intake import free_port, needs_namespace
from worker.live import reading, run
from worker.live.lateness import Lateness
from worker.live.process import Readers
from worker.live.run import StreamRun
from worker.streams import hls

make_context, context, sessions = streams.make_context, streams.context, streams.sessions
_end_open_streams = streams._end_open_streams

TOLERANCE_S = 2.0
"""Of the length of gaps, on a busy machine; and a source is connected again after pauses of up to two seconds."""
STORING_S = 0.3
"""More than a tenth of a piece of two seconds, and a third of one of a second."""


@dataclass(frozen=True)
class Case:
    """A source with a fault."""

    name: str
    play: Callable[[TransportSender], None]
    gap_s: float = 0.0
    tolerance_s: float = TOLERANCE_S
    scored_s: float = 0.0
    """The least length of all segments with pictures."""
    ending: str = "request"
    status: str = "succeeded"
    reconnects: int = 0


@pytest.fixture(scope="module")
def clips():
    quiet = ("-x265-params", "log-level=error")
    middle = make_stream(12, extra=("-bf", "0"))
    half = len(middle) // 188 // 2 * 188
    return {
        "long": make_stream(20, extra=("-bf", "0")),
        "first half": middle[:half],
        "second half": middle[half:],
        "clip": make_stream(4, extra=("-bf", "0")),
        "large": make_stream(4, size="320x192", extra=("-bf", "0")),
        "hevc": make_stream(12, codec="libx265", extra=quiet),
        "later": make_stream(4, extra=("-bf", "0", "-output_ts_offset", "7200")),
        "wrapped": make_stream(4, extra=("-bf", "0", "-output_ts_offset", str(2**33 / 90_000 - 2.0))),
        "still": make_stream(1, extra=("-bf", "0", "-vf", "loop=-1:1,trim=end=8")),
        "garbage": random.Random(3).randbytes(400_000),
    }


def cases(clips):
    def play(*parts):
        def send_all(sender):
            for name, seconds in parts:
                if name == "silence":
                    time.sleep(seconds)
                else:
                    sender.send(clips[name], seconds)

        return send_all

    return [
        Case("it stops", play(("clip", 4)), gap_s=15.0, scored_s=3.5, ending="source"),
        Case("it freezes", play(("clip", 4), ("silence", 8), ("clip", 4)), gap_s=8.0, scored_s=7.0, reconnects=1),
        Case(
            "it freezes with its clock",
            play(("first half", 6), ("silence", 4.5), ("second half", 6)),
            gap_s=4.5,
            scored_s=10.0,
        ),
        Case("the same picture for ever", play(("still", 8)), scored_s=5.5),
        Case("another size", play(("clip", 4), ("large", 4)), scored_s=5.5),
        # On a busy machine it takes seconds until it is connected again.
        Case("another codec", play(("clip", 4), ("hevc", 12)), gap_s=4.0, tolerance_s=4.0, scored_s=6.0, reconnects=1),
        Case(
            "garbage in the middle",
            play(("clip", 4), ("garbage", 7), ("first half", 6)),
            gap_s=9.0,
            # It is connected again at some time within the garbage, and after the next pause.
            tolerance_s=3.5,
            scored_s=5.0,
            reconnects=1,
        ),
        Case("only garbage", play(("garbage", 16)), ending="source", status="failed"),
        Case("its clock goes back for hours", play(("later", 4), ("clip", 4)), scored_s=5.5),
        Case("its clock jumps by hours", play(("clip", 4), ("later", 4)), scored_s=5.5),
        Case("its clock wraps", play(("wrapped", 4)), scored_s=1.9),
    ]


def slow_down(storage, seconds, monkeypatch):
    """Let every new file take so long, as on a busy server."""
    create = type(storage).create

    def wait(self, key):
        time.sleep(seconds)
        return create(self, key)

    monkeypatch.setattr(type(storage), "create", wait)


def leftovers():
    """Names of the threads, and command lines of the children, that belong to streams; and the open files."""
    names = [thread.name for thread in threading.enumerate() if thread.name.startswith("stream")]
    children = [path.read_text().split() for path in Path(f"/proc/{os.getpid()}/task").glob("*/children")]
    lines = [Path(f"/proc/{pid}/cmdline") for pids in children for pid in pids]
    with contextlib.suppress(OSError):
        names += [str(line.read_bytes()) for line in lines if b"matroska" in line.read_bytes()]
    return names


def open_files():
    """The number of open pipes, and of sockets for datagrams."""
    links = []
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            links.append(str(path.readlink()))
    rows = [row.split() for name in ("udp", "unix") for row in Path(f"/proc/self/net/{name}").read_text().splitlines()]
    datagrams = {f"socket:[{row[9]}]" for row in rows[1:] if len(row) > 9}
    return sum(link.startswith("pipe:") or link in datagrams for link in links)


@contextlib.contextmanager
def serving_clip(tmp_path, clips):
    """Serve the first four seconds of a playlist that does not end, and give its address."""
    folder = tmp_path / "source"
    folder.mkdir()
    (tmp_path / "clip.ts").write_bytes(clips["clip"])
    source = Playlist(tmp_path / "clip.ts", folder)
    source.publish(4)
    with serving(source, folder) as url:
        yield url


def problems(sessions, job_id, case):
    """What is wrong with a stream that has ended, given what is expected of it."""
    job, stream = streams.get_job_of(sessions, job_id), streams.stream_of(sessions, job_id)
    segments, events = streams.segments_of(sessions, job_id), streams.events_of(sessions, job_id)
    gaps = [one for one in segments if one.reasons == ["gap"]]
    gap_s = sum(one.end_s - one.start_s for one in gaps)
    scored_s = sum(one.end_s - one.start_s for one in segments if one.status == "scored")
    told = [event.payload["index"] for event in events if event.kind == "segment"]
    checks = {
        f"its end is {stream.ending}": stream.ending == case.ending,
        f"its status is {job.status} {job.error_code}": job.status == case.status,
        f"gaps are {gap_s:.1f} s": abs(gap_s - case.gap_s) <= case.tolerance_s if case.gap_s else gap_s == 0.0,
        f"{scored_s:.1f} s are scored": scored_s >= case.scored_s,
        f"it was connected again {stream.reconnects} times": stream.reconnects == case.reconnects,
        "segments do not follow one another": all(a.end_s == b.start_s for a, b in pairwise(segments)),
        "counters are wrong": (stream.gaps, stream.segments) == (len(gaps), len(segments) - len(gaps)),
        "events are not consecutive": [event.seq for event in events] == list(range(1, len(events) + 1)),
        "a segment has no event, or two": told == list(range(len(segments))),
        "it has not one end": [event.kind for event in events].count("ended") == 1,
    }
    return [f"{case.name}: {what}" for what, is_so in checks.items() if not is_so]


def end_all(context, sessions, job_ids):
    """Score what waits and judge the streams, until all have ended."""

    def have_ended():
        is_over = True
        for job_id in job_ids:
            streams.score(sessions, job_id, [0.01])
            job = streams.get_job_of(sessions, job_id)
            if job.segments_total is not None and job.status == "running":
                streams.finish(context, job_id)
            is_over &= streams.get_job_of(sessions, job_id).status not in ("queued", "running")
        return is_over

    wait_until(have_ended, timeout_s=60)


def test_sources_with_faults_end_well_and_say_what_was_missed(make_context, sessions, clips, monkeypatch):
    """All at once, since each takes seconds in which it does next to nothing."""
    # ffmpeg looks at the first two seconds before it gives a picture.
    monkeypatch.setattr(reading, "PICTURE_TIMEOUT_S", 6.0)
    monkeypatch.setattr(reading, "Lateness", partial(Lateness, late_s=2.5))
    files = open_files()
    context, table = make_context(source_timeout_s=15.0), cases(clips)
    slow_down(context.storage, STORING_S, monkeypatch)
    context.settings.worker.__dict__["streams"] = len(table)
    ports = [free_port(socket.SOCK_DGRAM) for _ in table]
    job_ids = [streams.add_stream(sessions, f"udp://127.0.0.1:{port}") for port in ports]

    def play(case, port, job_id):
        with TransportSender(port) as sender:
            sender.wait_for_listener()
            case.play(sender)
        if case.ending == "request":
            streams.stop(sessions, job_id)

    with streams.reading(context) as readers:
        players = [threading.Thread(target=play, args=given) for given in zip(table, ports, job_ids, strict=True)]
        for player in players:
            player.start()
        while any(player.is_alive() for player in players):
            for job_id in job_ids:
                streams.score(sessions, job_id, [0.01])
            time.sleep(0.5)
        wait_until(lambda: all(streams.stream_of(sessions, job_id).ending for job_id in job_ids), timeout_s=60)
        end_all(context, sessions, job_ids)
        wait_until(lambda: not any(one.is_alive() for one in readers._runs))
    found = [what for case, job_id in zip(table, job_ids, strict=True) for what in problems(sessions, job_id, case)]
    assert found == [], "\n".join(found)
    wait_until(lambda: leftovers() == [])
    assert open_files() == files


@contextlib.contextmanager
def camera(scheme, clip):
    """Serve *clip* again and again; give the port, the kind of its packets, and the rest of the address."""
    if scheme == "rtsp":
        with RTSPServer(clip) as server:
            yield server.port, "tcp", "/hall"
    elif scheme == "rtmp":
        port = free_port()
        with RestartedSender(clip, "-f", "flv", "-listen", "1", f"rtmp://127.0.0.1:{port}/live/key"):
            yield port, "tcp", "/live/key"
    else:
        port = free_port(socket.SOCK_DGRAM)
        with RestartedSender(clip, "-f", "mpegts", f"srt://127.0.0.1:{port}?mode=listener"):
            yield port, "udp", ""


def watch_through_a_cut(context, sessions, clips, folder, *, cut_s, late_s):
    """Watch a camera of each protocol through a cable that is cut for a while; return what is wrong afterwards."""
    # It is noticed at once, and how late the source is connected again depends on the pause before that.
    shape = {"gap_s": cut_s + late_s / 2, "tolerance_s": late_s / 2 + 1.0, "scored_s": 4.0, "reconnects": 1}
    cases = [Case(scheme, lambda _: None, **shape) for scheme in ("rtsp", "rtmp", "srt")]
    path = folder / "camera.ts"
    path.write_bytes(clips["long"])
    with contextlib.ExitStack() as running:
        cables, job_ids = [], []
        for case in cases:
            port, kind, rest = running.enter_context(camera(case.name, path))
            cables.append(running.enter_context(Cable(port, kind=kind)))
            url = f"{case.name}://127.0.0.1:{cables[-1].port}{rest}"
            job_ids.append(streams.add_stream(sessions, url, username=None))
        readers = running.enter_context(streams.reading(context))
        wait_until(lambda: all(streams.has_read(sessions, one, 2) for one in job_ids), timeout_s=60)
        for cable in cables:
            cable.is_cut = True
        time.sleep(cut_s)
        for cable in cables:
            cable.is_cut = False
        wait_until(lambda: all(streams.stream_of(sessions, one).reconnects for one in job_ids), timeout_s=60)
        wait_until(lambda: all(not streams.segments_of(sessions, one)[-1].reasons for one in job_ids))
        for job_id in job_ids:
            streams.stop(sessions, job_id)
        end_all(context, sessions, job_ids)
        wait_until(lambda: not any(one.is_alive() for one in readers._runs))
    return [what for case, one in zip(cases, job_ids, strict=True) for what in problems(sessions, one, case)]


@needs_namespace
@pytest.mark.parametrize(
    ("cut_s", "timeout_s", "late_s"),
    [
        pytest.param(6.0, 4.0, 2.0, id="short"),
        pytest.param(30.0, 10.0, 12.0, id="half a minute", marks=pytest.mark.nightly),
    ],
)
def test_a_network_that_is_cut_is_a_gap_of_that_length(
    context, sessions, clips, tmp_path, monkeypatch, cut_s, timeout_s, late_s
):
    monkeypatch.setattr(reading, "PICTURE_TIMEOUT_S", timeout_s)
    files = open_files()
    found = watch_through_a_cut(context, sessions, clips, tmp_path, cut_s=cut_s, late_s=late_s)
    assert found == [], "\n".join(found)
    wait_until(lambda: leftovers() == [])
    assert open_files() == files


def test_an_hls_server_that_begins_anew_is_read_on_after_a_gap(make_context, sessions, clips, tmp_path, monkeypatch):
    monkeypatch.setattr(hls, "STALE_S", 2.0)
    folder = tmp_path / "source"
    folder.mkdir()
    for name in ("long", "large"):
        (tmp_path / f"{name}.ts").write_bytes(clips[name])
    source = Playlist(tmp_path / "long.ts", folder)
    source.publish(7)
    context = make_context(source_timeout_s=20.0)
    with serving(source, folder) as url, streams.reading(context) as readers:
        job_id = streams.add_stream(sessions, url)
        readers.claim()
        wait_until(lambda: streams.has_read(sessions, job_id, 2))
        time.sleep(4.0)
        source.restart(tmp_path / "large.ts")
        source.publish(3)
        wait_until(lambda: streams.has_read(sessions, job_id, 5))
        source.publish()
        source.finish()
        wait_until(lambda: streams.stream_of(sessions, job_id).ending)
        end_all(context, sessions, [job_id])
    # About 5 s passed between its last segment and the next ones, of which it still had 3.
    case = Case("hls", lambda _: None, gap_s=2.0, scored_s=6.5, ending="source")
    found = problems(sessions, job_id, case)
    assert found == [], "\n".join(found)


def test_storage_that_refuses_for_a_while_costs_its_time_and_no_connection(make_context, sessions, clips, monkeypatch):
    context = make_context()
    port, refusing = free_port(socket.SOCK_DGRAM), threading.Event()
    create = type(context.storage).create

    def refuse(self, key):
        if refusing.is_set():
            raise StorageError("the disk is full")
        return create(self, key)

    monkeypatch.setattr(type(context.storage), "create", refuse)
    job_id = streams.add_stream(sessions, f"udp://127.0.0.1:{port}")
    with streams.reading(context), TransportSender(port) as sender:
        sender.wait_for_listener()
        sender.send(clips["clip"], 4)
        wait_until(lambda: streams.has_read(sessions, job_id, 2))
        refusing.set()
        sender.send(clips["clip"], 4)
        wait_until(lambda: streams.stream_of(sessions, job_id).error_code == "storage_error")
        refusing.clear()
        sender.send(clips["clip"], 4)
        wait_until(lambda: streams.has_read(sessions, job_id, 10))
        streams.stop(sessions, job_id)
        end_all(context, sessions, [job_id])
    # Two or three pieces of two seconds are lost; the time goes on as if they were there.
    case = Case("storage", lambda _: None, gap_s=4.0, scored_s=6.0, reconnects=1)
    found = problems(sessions, job_id, case)
    assert found == [], "\n".join(found)


def test_of_two_readers_at_once_the_first_gives_up_without_a_trace(make_context, sessions, clips, tmp_path):
    """The first one was cut off from the database for longer than its lease, and does not know it yet."""
    folder = tmp_path / "source"
    folder.mkdir()
    (tmp_path / "long.ts").write_bytes(clips["long"])
    source = Playlist(tmp_path / "long.ts", folder)
    source.publish(4)
    first, second = Readers(make_context()), Readers(make_context())
    with serving(source, folder) as url:
        job_id = streams.add_stream(sessions, url)
        first.claim()
        wait_until(lambda: streams.has_read(sessions, job_id, 2))
        try:
            with sessions.transaction() as session:
                session.execute(
                    update(Job).where(Job.id == job_id).values(leased_until=func.now() - timedelta(seconds=1))
                )
                [claim] = claim_streams(session, 1, lease_s=30, max_attempts=3)
            taken_over = StreamRun(second._context, claim)
            second._runs.append(taken_over)
            taken_over.start()
            for _ in range(4):
                source.publish()
                time.sleep(0.5)
            wait_until(lambda: not any(one.is_alive() for one in first._runs))
            source.finish()
            wait_until(lambda: streams.stream_of(sessions, job_id).ending)
            end_all(second._context, sessions, [job_id])
        finally:
            first.stop()
            second.stop()
    found = problems(sessions, job_id, Case("two", lambda _: None, scored_s=5.0, ending="source"))
    assert [what for what in found if "gaps are" not in what] == [], "\n".join(found)
    # Nobody has noted that the source was away, so that the second reader had nothing new to tell.
    assert [event.payload["state"] for event in streams.events_of(sessions, job_id, "source")] == ["connected"]


def test_a_source_that_ends_while_the_stream_is_looked_at_ends_the_stream(
    make_context, sessions, clips, tmp_path, monkeypatch
):
    """Its thread says so once, at any time, also while the other one asks the database whether there is an end."""
    find_end = StreamRun._find_end

    def find_end_of_ending(self, *args):
        found = find_end(self, *args)
        if streams.stream_of(sessions, job_id).segments:
            # What was found above knows nothing of it.
            self._source._end(StreamEnd.SOURCE)
        return found

    monkeypatch.setattr(StreamRun, "_find_end", find_end_of_ending)
    context = make_context()
    with serving_clip(tmp_path, clips) as url:
        job_id = streams.add_stream(sessions, url)
        with streams.reading(context):
            wait_until(lambda: streams.stream_of(sessions, job_id).ending, timeout_s=20)
            end_all(context, sessions, [job_id])
    assert streams.stream_of(sessions, job_id).ending == StreamEnd.SOURCE


@pytest.mark.parametrize("has_reader", [True, False])
def test_segments_that_nobody_has_scored_by_the_end_have_their_events(
    make_context, sessions, clips, tmp_path, monkeypatch, has_reader
):
    monkeypatch.setattr(run, "DRAIN_S", 0.5)
    context = make_context()
    with serving_clip(tmp_path, clips) as url:
        job_id = streams.add_stream(sessions, url)
        with streams.reading(context):
            wait_until(lambda: streams.has_read(sessions, job_id, 2))
            with sessions.transaction() as session:
                assert acquire(session, Step.SCORE, (job_id, 0), 30, max_attempts=3) is not None
            if has_reader:
                streams.stop(sessions, job_id)
                wait_until(lambda: streams.get_job_of(sessions, job_id).segments_total)
    if not has_reader:
        streams.stop(sessions, job_id)
    streams.finish(context, job_id)
    found = problems(sessions, job_id, Case("unscored", lambda _: None))
    assert [what for what in found if "gaps" not in what] == []
    assert streams.stream_of(sessions, job_id).dropped >= 1
