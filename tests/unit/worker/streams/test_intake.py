"""The intake with real senders on loopback: ffmpeg as server, an HTTP server for HLS, UDP."""

import contextlib
import functools
import os
import socket
import subprocess
import threading
import time
from datetime import UTC, datetime
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from shared.errors import (
    DeepfakeStreamError,
    ForbiddenURLError,
    SourceRefusedError,
    SourceStalledError,
    SourceUnreachableError,
    UnsupportedMediaError,
)
from shared.outbound import check_source_url
from tests.rtsp import RTSPServer
from tests.unit.worker.streams.test_cutting import decode, make_stream, own_pictures
from worker.media.ffmpeg import find_ffmpeg
from worker.media.sandbox import sandbox
from worker.streams.hls import HLSFeed
from worker.streams.intake import Position, Source, StreamLimits, read_pieces

SECRET = "hush-hush-4711"
needs_namespace = pytest.mark.skipif(not sandbox().has_no_network, reason="this system allows no namespace of networks")


def read(url, *, password=None, username=None, should_stop=lambda: False, timeout_s=10.0, **options):
    source = Source(url, username, password)
    limits = options.pop("limits", StreamLimits())
    arguments = {"segment_s": 1.5, "limits": limits, "allow_insecure": True, "timeout_s": timeout_s, **options}
    return read_pieces(source, should_stop=should_stop, **arguments)


def free_port(kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def sending(path, *output, pace=()):
    command = [find_ffmpeg(), "-v", "error", *pace, "-i", str(path), "-c", "copy", *output]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as sender:
        try:
            yield sender
        finally:
            sender.kill()


def read_when_ready(url, **options):
    """Read all pieces; connect again until the server listens."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return list(read(url, **options))
        except SourceUnreachableError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("streams") / "clip.ts"
    path.write_bytes(make_stream(4))
    return path


@pytest.fixture(scope="module")
def digests(clip):
    return [digest for _, digest in decode(clip.read_bytes(), "mpegts")]


@pytest.fixture
def web(tmp_path):
    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=tmp_path))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def make_playlist(clip, folder, *options):
    command = [find_ffmpeg(), "-v", "error", "-i", str(clip), "-c", "copy", "-f", "hls", "-hls_time", "1"]
    command += ["-hls_list_size", "0", *options, str(folder / "live.m3u8")]
    subprocess.run(command, check=True, cwd=folder)


@needs_namespace
def test_rtmp_arrives_whole(clip, digests):
    port = free_port()
    with sending(clip, "-f", "flv", "-listen", "1", f"rtmp://127.0.0.1:{port}/live/key"):
        pieces = read_when_ready(f"rtmp://127.0.0.1:{port}/live/key")
    assert [digest for piece in pieces for digest in own_pictures(piece)] == digests


@needs_namespace
def test_rtsp_with_a_login_arrives_whole(clip, digests):
    with RTSPServer(clip, login=f"viewer:{SECRET}@/?") as server:
        url = f"rtsp://127.0.0.1:{server.port}/live"
        pieces = list(read(url, username="viewer", password=f"{SECRET}@/?"))
        got = [digest for piece in pieces for digest in own_pictures(piece)]
        assert got == digests
        assert server.requests[0] == ("OPTIONS", url)


@needs_namespace
def test_rtsp_without_the_login_is_refused(clip):
    with RTSPServer(clip, login=f"viewer:{SECRET}") as server:
        with pytest.raises(SourceRefusedError, match="credentials") as caught:
            list(read(f"rtsp://127.0.0.1:{server.port}/live", username="viewer", password="wrong-4711"))
        assert "wrong-4711" not in str(caught.value)


@needs_namespace
def test_rtsp_leads_to_no_other_host(clip):
    with socket.create_server(("127.0.0.1", 0)) as inside:
        inside.settimeout(0.2)
        redirect = f"rtsp://127.0.0.1:{inside.getsockname()[1]}/inside"
        with RTSPServer(clip, redirect=redirect) as server, pytest.raises(DeepfakeStreamError):
            list(read(f"rtsp://127.0.0.1:{server.port}/live"))
        with pytest.raises(TimeoutError):
            inside.accept()


@needs_namespace
def test_srt_with_a_passphrase_arrives_and_no_process_shows_it(clip):
    port = free_port(socket.SOCK_DGRAM)
    address = f"srt://127.0.0.1:{port}?mode=listener&passphrase={SECRET}"
    with sending(clip, "-f", "mpegts", address, pace=("-re",)) as sender:
        pieces = read(f"srt://127.0.0.1:{port}", password=SECRET)
        first = next(pieces)
        shown = [path for path in Path("/proc").glob("[0-9]*/cmdline") if SECRET.encode() in _read(path)]
        assert shown == [Path(f"/proc/{sender.pid}/cmdline")]
        assert first.width_px == 160
        pieces.close()


@needs_namespace
def test_srt_refuses_another_passphrase(clip):
    port = free_port(socket.SOCK_DGRAM)
    with sending(clip, "-f", "mpegts", f"srt://127.0.0.1:{port}?mode=listener&passphrase={SECRET}"):
        time.sleep(0.3)
        with pytest.raises((SourceRefusedError, SourceUnreachableError)) as caught:
            list(read(f"srt://127.0.0.1:{port}", password="another-passphrase"))
    assert "another-passphrase" not in str(caught.value)


def _read(path):
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_udp_arrives_and_stalls_at_its_end(clip):
    port = free_port(socket.SOCK_DGRAM)
    pieces = []
    output = ("-f", "mpegts", f"udp://127.0.0.1:{port}?pkt_size=1316")
    # Extended piece by piece, since what came before the error counts.
    with sending(clip, *output, pace=("-re",)), pytest.raises(SourceStalledError):
        pieces.extend(read(f"udp://@:{port}", timeout_s=2.0))
    assert pieces[-1].end_s - pieces[0].start_s > 2.5


@pytest.mark.parametrize("kind", ["mpegts", "fmp4"])
def test_hls_arrives_whole(clip, digests, tmp_path, web, kind):
    make_playlist(clip, tmp_path, "-hls_segment_type", kind)
    pieces = list(read(f"{web}/live.m3u8"))
    assert [digest for piece in pieces for digest in own_pictures(piece)] == digests


def test_hls_begins_near_the_end_of_a_live_playlist(clip, tmp_path, web):
    make_playlist(clip, tmp_path)
    playlist = tmp_path / "live.m3u8"
    text = playlist.read_text()
    playlist.write_text(text.replace("#EXT-X-ENDLIST\n", ""))
    pieces = read(f"{web}/live.m3u8")
    first = next(pieces)
    playlist.write_text(text)
    rest = list(pieces)
    assert sum(len(own_pictures(piece)) for piece in [first, *rest]) == 75


def test_an_hls_discontinuity_begins_a_discontinuous_piece(clip, tmp_path, web):
    (tmp_path / "a.ts").write_bytes(clip.read_bytes())
    (tmp_path / "b.ts").write_bytes(make_stream(2, size="192x112"))
    (tmp_path / "live.m3u8").write_text(
        "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\na.ts\n#EXT-X-DISCONTINUITY\n#EXTINF:2,\nb.ts\n#EXT-X-ENDLIST\n"
    )
    pieces = list(read(f"{web}/live.m3u8", segment_s=10.0))
    assert [(piece.width_px, piece.is_discontinuous) for piece in pieces] == [(160, False), (192, True)]
    assert pieces[1].start_s == pytest.approx(4.0, abs=0.05)
    assert [len(own_pictures(piece)) for piece in pieces] == [100, 50]


PART = "#EXTINF:1,\n"
DATED = "#EXT-X-PROGRAM-DATE-TIME:2026-01-01T00:00:{:02d}Z\n" + PART


def place(number, *, silent_s=1.0, name=None, end_s=None):
    """Make positions after the segment before *number*; the playlist has not grown for *silent_s*."""
    end = None if end_s is None else datetime(2026, 1, 1, second=end_s, tzinfo=UTC)
    return lambda: Position(number, name or f"live{number - 1}.ts", end, time.monotonic() - silent_s)


@pytest.mark.parametrize(
    ("text", "position", "start_s", "seconds"),
    [
        pytest.param(
            f"#EXT-X-MEDIA-SEQUENCE:2\n{PART}live2.ts\n{PART}live3.ts\n", place(2), 0.0, 2, id="goes on where it was"
        ),
        pytest.param(
            f"#EXT-X-MEDIA-SEQUENCE:22\n{PART}live2.ts\n{PART}live3.ts\n",
            place(2, silent_s=22),
            20.0,
            2,
            id="the list no longer has what is next",
        ),
        pytest.param(f"{PART}live0.ts\n{PART}live1.ts\n", place(9, silent_s=12), 10.0, 2, id="counted anew from 0"),
        pytest.param(
            f"#EXT-X-MEDIA-SEQUENCE:3\n{PART}new0.ts\n{PART}new1.ts\n{PART}new2.ts\n",
            place(4, silent_s=13),
            10.0,
            3,
            id="counted anew with other names",
        ),
        pytest.param(f"#EXT-X-MEDIA-SEQUENCE:2\n{PART}live2.ts\n", place(2, silent_s=31), 30.0, 1, id="a long silence"),
        pytest.param(
            f"#EXT-X-MEDIA-SEQUENCE:2\n#EXT-X-DISCONTINUITY\n{PART}live2.ts\n",
            place(2, silent_s=9),
            8.0,
            1,
            id="a silence and a discontinuity",
        ),
        pytest.param(
            f"#EXT-X-MEDIA-SEQUENCE:2\n{DATED.format(2)}live2.ts\n{PART}live3.ts\n",
            place(2, silent_s=31, end_s=2),
            0.0,
            2,
            id="a network that was late, by the server's clock",
        ),
        pytest.param(
            f"#EXT-X-MEDIA-SEQUENCE:2\n{DATED.format(9)}live2.ts\n", place(2, silent_s=9, end_s=2), 7.0, 1, id="dated"
        ),
        pytest.param(
            f"#EXT-X-MEDIA-SEQUENCE:2\n{PART}gone.ts\n{PART}live2.ts\n",
            place(2),
            1.0,
            1,
            id="a segment that is gone",
        ),
        pytest.param(
            f"#EXT-X-MEDIA-SEQUENCE:999999999999\n{PART}live2.ts\n", place(2), 21.0, 1, id="an impossible number"
        ),
    ],
)
def test_what_is_missed_of_a_playlist_is_counted(clip, tmp_path, web, text, position, start_s, seconds):
    make_playlist(clip, tmp_path)
    for number in range(3):
        (tmp_path / f"new{number}.ts").write_bytes((tmp_path / f"live{number}.ts").read_bytes())
    (tmp_path / "live.m3u8").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n{text}#EXT-X-ENDLIST\n")
    (tmp_path / "garbage.ts").write_bytes(os.urandom(20_000))
    position = position()
    pieces = list(read(f"{web}/live.m3u8", position=position, segment_s=10.0))
    assert pieces[0].start_s == pytest.approx(start_s, abs=0.7)
    assert sum(piece.end_s - piece.start_s for piece in pieces) == pytest.approx(seconds, abs=0.1)
    assert position.missed_s == 0.0


def test_a_playlist_that_stands_still_is_not_counted_anew_while_its_reader_is_behind(clip, tmp_path, web):
    """What was fetched last and what was read last are two segments then, and two threads note them."""
    make_playlist(clip, tmp_path)
    playlist = tmp_path / "live.m3u8"
    playlist.write_text(playlist.read_text().replace("#EXT-X-ENDLIST\n", ""))
    position = Position()
    feed = HLSFeed(Source(f"{web}/live.m3u8"), StreamLimits(), allow_insecure=True, timeout_s=5.0, position=position)
    url, found = feed._open_media_playlist()
    assert feed._read_segments(url, found)
    # The other thread has only begun to read.
    assert feed.wait_for_run(lambda: False, 5.0) is not None
    assert feed.next_block() == b""
    fetched, position.grown_at = feed._next_number, time.monotonic() - 60.0
    assert position.next_number < fetched
    assert not feed._read_segments(url, found)
    assert feed._next_number == fetched


def test_a_segment_of_garbage_is_missed(clip, tmp_path, web):
    make_playlist(clip, tmp_path)
    (tmp_path / "live0.ts").write_bytes(os.urandom(20_000))
    playlist = tmp_path / "live.m3u8"
    playlist.write_text(playlist.read_text().replace("live1.ts", "live1.ts\n#EXT-X-DISCONTINUITY"))
    text = playlist.read_text()
    playlist.write_text(text.replace("live1.ts\n", "").replace("#EXTINF:1.000000,\n#EXT-X-DIS", "#EXT-X-DIS"))
    position = Position()
    with pytest.raises(DeepfakeStreamError):
        list(read(f"{web}/live.m3u8", position=position))
    assert position.missed_s == pytest.approx(1.0)
    assert [round(piece.start_s) for piece in read(f"{web}/live.m3u8", position=position, segment_s=10.0)] == [1]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ('#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="k"\n#EXTINF:1,\na.ts\n#EXT-X-ENDLIST\n', UnsupportedMediaError),
        ("<html>", UnsupportedMediaError),
        ("#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n", ForbiddenURLError),
        ("#EXTM3U\n#EXT-X-TARGETDURATION:x\n#EXTINF:y,\n\x00\n", DeepfakeStreamError),
        ("#EXTM3U\n#EXTINF:1,\ngarbage.ts\n#EXT-X-ENDLIST\n", DeepfakeStreamError),
    ],
    ids=["encrypted", "no-playlist", "file", "malformed", "garbage"],
)
def test_hostile_playlists_are_refused(tmp_path, web, text, kind):
    (tmp_path / "live.m3u8").write_text(text)
    (tmp_path / "garbage.ts").write_bytes(os.urandom(20_000))
    with pytest.raises(kind):
        list(read(f"{web}/live.m3u8"))


@pytest.mark.parametrize("scheme", ["rtsp", "rtmp", "srt", "https"])
def test_private_addresses_are_refused(scheme):
    with pytest.raises(ForbiddenURLError):
        list(read(f"{scheme}://127.0.0.1:9/live", allow_insecure=False))


@pytest.mark.parametrize(
    "url",
    [
        "http://a/b.m3u8",
        "udp://@:5000",
        "file:///etc/passwd",
        "rtsp://u:p@a/b",
        "whep://a/b",
        "srt://a",
        "rtsp://a/b#c",
    ],
)
def test_addresses_of_another_form_are_refused(url):
    with pytest.raises(ForbiddenURLError):
        check_source_url(url, allow_insecure=False)


@needs_namespace
def test_a_name_is_resolved_once(monkeypatch, clip):
    port, asked = free_port(), []
    resolve = socket.getaddrinfo

    def answer(host, *arguments, **options):
        if host == "camera.example":
            asked.append(host)
            host = "127.0.0.1" if len(asked) == 1 else "127.0.0.9"
        return resolve(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    with sending(clip, "-f", "flv", "-listen", "1", f"rtmp://127.0.0.1:{port}/live/key"):
        time.sleep(0.5)
        assert list(read(f"rtmp://camera.example:{port}/live/key"))
    assert len(asked) == 1


@needs_namespace
def test_a_silent_server_stalls_and_a_stop_leaves_nothing_behind():
    threads = set(threading.enumerate())
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"rtsp://127.0.0.1:{silent.getsockname()[1]}/live"
        with pytest.raises(SourceStalledError):
            list(read(url, timeout_s=0.8))
        began = time.monotonic()
        assert list(read(url, should_stop=lambda: time.monotonic() > began + 0.5)) == []
        assert time.monotonic() - began < 5
    assert set(threading.enumerate()) <= threads
    children = [_read(path) for path in Path(f"/proc/{os.getpid()}/task").glob("*/children")]
    assert not [
        pid for pids in children for pid in pids.split() if b"concat" in _read(Path(f"/proc/{int(pid)}/cmdline"))
    ]


def test_credentials_are_in_no_representation():
    assert SECRET not in repr(Source(f"rtsp://a/{SECRET}", SECRET, SECRET))
