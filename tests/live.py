"""Live sources on loopback, and faults of theirs and of the network, for tests of streams."""

import asyncio
import contextlib
import functools
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, Self

from tests.clips import run
from worker.media.ffmpeg import find_ffmpeg

LISTENER_TIMEOUT_S: Final = 60.0


class Playlist:
    """
    A live HLS source: a playlist that grows by ``publish`` and ends by ``finish``, served from *folder*.

    Args:
        clip: The transport stream that its segments are cut from, with a key frame every second.
        folder: An empty folder.
    """

    def __init__(self, clip: Path, folder: Path) -> None:
        self._folder, self.published, self._is_finished = folder, 0, False
        self._first, self._prefix = 0, "part"
        self._cut(clip)
        self.is_away = False

    def _cut(self, clip: Path) -> None:
        name = str(self._folder / f"{self._prefix}%d.ts")
        run("-i", str(clip), "-c", "copy", "-f", "segment", "-segment_time", "1", name)
        self.parts = len(list(self._folder.glob(f"{self._prefix}*.ts")))

    def publish(self, count: int = 1, *, kept: int | None = None) -> None:
        """Add the next *count* segments of a second each; list only the last *kept*."""
        self.published += count
        self._first = 0 if kept is None else self.published - kept
        assert self.published <= self.parts
        self._write()

    def restart(self, clip: Path) -> None:
        """Begin anew with another clip and from the number 0, as a server whose encoder was started again."""
        self.published = self._first = 0
        self._prefix = "again"
        self._cut(clip)

    def finish(self) -> None:
        """Add the mark of the end."""
        self._is_finished = True
        self._write()

    def _write(self) -> None:
        lines = ["#EXTM3U", "#EXT-X-VERSION:3", "#EXT-X-TARGETDURATION:1", f"#EXT-X-MEDIA-SEQUENCE:{self._first}"]
        for number in range(self._first, self.published):
            lines += ["#EXTINF:1.0,", f"{self._prefix}{number}.ts"]
        lines += ["#EXT-X-ENDLIST"] if self._is_finished else []
        new = self._folder / "new"
        new.write_text("\n".join(lines) + "\n")
        new.rename(self._folder / "live.m3u8")


def join_parts(folder: Path, parts: Sequence[tuple[Path, float]]) -> Path:
    """
    Make a transport stream of the beginnings of videos, with a key frame every second at 25 pictures a second.

    Args:
        parts: The video of each part, and how many of its seconds.
    """
    listed, joined = folder / "parts.txt", folder / "live.ts"
    listed.write_text("".join(f"file '{path}'\noutpoint {seconds}\n" for path, seconds in parts))
    run("-f", "concat", "-safe", "0", "-i", str(listed), "-c:v", "libx264", "-crf", "18", "-g", "25", str(joined))
    return joined


@contextlib.contextmanager
def serving(playlist: Playlist, folder: Path) -> Iterator[str]:
    """Serve *folder* on loopback and give the playlist's address; while ``is_away`` is set every answer is 503."""
    with serving_folder(folder, lambda: playlist.is_away) as port:
        yield f"http://127.0.0.1:{port}/live.m3u8"


@contextlib.contextmanager
def serving_folder(folder: Path, is_away: Callable[[], bool] = lambda: False) -> Iterator[int]:
    """Serve *folder* on a port of loopback; while *is_away* says so every answer is 503."""

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            # Clients that are killed leave in the middle of an answer.
            with contextlib.suppress(OSError):
                if is_away():
                    self.send_error(503)
                else:
                    super().do_GET()

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def wait_until(is_so: Callable[[], object], *, timeout_s: float = 60.0) -> None:
    """Wait until *is_so* returns something true."""
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline, "it did not become so"
        time.sleep(0.05)


class TransportSender:
    """
    A sender of transport streams over UDP in real time, which begins once somebody listens at *port*.

    Unlike ffmpeg it can go on with anything: another stream, garbage, nothing.
    """

    def __init__(self, port: int) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        # Its own port must not be one that somebody else has been promised.
        self._socket.bind(("127.0.0.2", 0))
        self._socket.connect(("127.0.0.1", port))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def wait_for_listener(self) -> None:
        """Send packets without content until they are not refused, or raise TimeoutError after a minute."""
        nothing = b"\x47\x1f\xff\x10" + b"\xff" * 184
        accepted, began = 0, time.monotonic()
        while accepted < 3:
            if time.monotonic() - began > LISTENER_TIMEOUT_S:
                raise TimeoutError(f"nobody listens at {self._socket.getpeername()}")
            accepted = accepted + 1 if self._send(nothing) else 0
            time.sleep(0.05)

    def send(self, data: bytes, seconds: float) -> None:
        """Send *data* within *seconds*."""
        began, sent = time.monotonic(), 0
        while sent < len(data):
            wanted = int(len(data) * min(1.0, (time.monotonic() - began) / seconds))
            while sent < wanted:
                self._send(data[sent : sent + 1316])
                sent += 1316
            time.sleep(0.02)

    def _send(self, data: bytes) -> bool:
        # Refused while nobody listens, as between two connections of a reader.
        try:
            self._socket.send(data)
        except ConnectionRefusedError:
            return False
        return True


class Cable:
    """
    Context manager that passes the bytes of connections to ``port`` on to *target*, a port of loopback.

    While ``is_cut`` is set, it passes nothing on and closes nothing, like a network that is interrupted.
    """

    def __init__(self, target: int, *, kind: str = "tcp") -> None:
        self._target, self._kind = target, kind
        self.is_cut = False
        self.port = 0
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="cable")

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(5)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def cut(self, duration_s: float) -> None:
        """Cut the cable for a while."""
        self.is_cut = True
        time.sleep(duration_s)
        self.is_cut = False

    async def _listen(self) -> None:
        if self._kind == "tcp":
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
            self.port = self._server.sockets[0].getsockname()[1]
        else:
            listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            listener.bind(("127.0.0.1", 0))
            listener.setblocking(False)
            self.port = listener.getsockname()[1]
            self._serving = asyncio.ensure_future(self._serve_datagrams(listener))

    async def _end(self) -> None:
        if self._server is not None:
            self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _wait(self) -> None:
        while self.is_cut:  # noqa: ASYNC110 - another thread sets it
            await asyncio.sleep(0.05)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                while data := await source.read(1 << 16):
                    await self._wait()
                    sink.write(data)
                    await sink.drain()

        ends = [writer]
        try:
            await self._wait()
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
            ends.append(far_writer)
            pumps = [asyncio.ensure_future(pump(reader, far_writer)), asyncio.ensure_future(pump(far_reader, writer))]
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for one in pumps:
                one.cancel()
        except OSError:
            pass
        finally:
            for end in ends:
                end.close()

    async def _serve_datagrams(self, listener: socket.socket) -> None:
        loop, peers = asyncio.get_running_loop(), {}

        async def answer(far: socket.socket, peer: Any) -> None:
            while True:
                try:
                    data = await loop.sock_recv(far, 1 << 16)
                except OSError:
                    await asyncio.sleep(0.05)
                    continue
                if not self.is_cut:
                    listener.sendto(data, peer)

        with contextlib.ExitStack() as opened:
            opened.enter_context(listener)
            while True:
                data, peer = await loop.sock_recvfrom(listener, 1 << 16)
                if peer not in peers:
                    far = opened.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                    far.setblocking(False)
                    far.connect(("127.0.0.1", self._target))
                    peers[peer] = far, asyncio.ensure_future(answer(far, peer))
                if not self.is_cut:
                    with contextlib.suppress(OSError):
                        peers[peer][0].send(data)


class RestartedSender:
    """
    Context manager with an ffmpeg that serves a clip in real time, and is started again whenever it ends.

    Args:
        output: Its options for the output; the address comes last.
    """

    def __init__(self, clip: Path, *output: str) -> None:
        self.clip = clip
        self._output = output
        self._is_away = False
        self._over = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name="sender")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.end_connection()
        self._thread.join()

    def end_connection(self) -> None:
        """Kill the ffmpeg that runs now."""
        if self._process is not None:
            self._process.kill()

    def replace(self, clip: Path) -> None:
        """Serve another clip, with another ffmpeg."""
        self.clip = clip
        self.end_connection()

    def stay_away(self, duration_s: float) -> None:
        """Serve nothing for a while, and begin anew."""
        self._is_away = True
        self.end_connection()
        time.sleep(duration_s)
        self._is_away = False

    def freeze(self, duration_s: float) -> None:
        """Send nothing for a while, without closing anything, and go on."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)
            time.sleep(duration_s)
            self._process.send_signal(signal.SIGCONT)

    def _run(self) -> None:
        while not self._over.is_set():
            if self._is_away:
                time.sleep(0.1)
                continue
            command = [find_ffmpeg(), "-v", "error", "-re", "-stream_loop", "-1", "-i", str(self.clip), "-c", "copy"]
            with subprocess.Popen(
                [*command, *self._output], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            ) as self._process:
                while self._process.poll() is None and not self._over.wait(0.1):
                    pass
                self._process.kill()
