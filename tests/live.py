"""Live sources on loopback, and readers in this process, for tests of streams."""

import contextlib
import functools
import threading
import time
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.clips import run


class Playlist:
    """
    A live HLS source: a playlist that grows by ``publish`` and ends by ``finish``, served from *folder*.

    Args:
        clip: The transport stream that its segments are cut from, with a key frame every second.
        folder: An empty folder.
    """

    def __init__(self, clip: Path, folder: Path) -> None:
        self._folder, self.published, self._is_finished = folder, 0, False
        self._first = 0
        run("-i", str(clip), "-c", "copy", "-f", "segment", "-segment_time", "1", str(folder / "part%d.ts"))
        self.parts = len(list(folder.glob("part*.ts")))
        self.is_away = False

    def publish(self, count: int = 1, *, kept: int | None = None) -> None:
        """Add the next *count* segments of a second each; list only the last *kept*."""
        self.published += count
        self._first = 0 if kept is None else self.published - kept
        assert self.published <= self.parts
        self._write()

    def finish(self) -> None:
        """Add the mark of the end."""
        self._is_finished = True
        self._write()

    def _write(self) -> None:
        lines = ["#EXTM3U", "#EXT-X-VERSION:3", "#EXT-X-TARGETDURATION:1", f"#EXT-X-MEDIA-SEQUENCE:{self._first}"]
        for number in range(self._first, self.published):
            lines += ["#EXTINF:1.0,", f"part{number}.ts"]
        lines += ["#EXT-X-ENDLIST"] if self._is_finished else []
        new = self._folder / "new"
        new.write_text("\n".join(lines) + "\n")
        new.rename(self._folder / "live.m3u8")


@contextlib.contextmanager
def serving(playlist: Playlist, folder: Path) -> Iterator[str]:
    """Serve *folder* on loopback and give the playlist's address; while ``is_away`` is set every answer is 503."""

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            if playlist.is_away:
                self.send_error(503)
            else:
                super().do_GET()

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/live.m3u8"
        server.shutdown()
        thread.join()


def wait_until(is_so: Callable[[], object], *, timeout_s: float = 20.0) -> None:
    """Wait until *is_so* returns something true."""
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline, "it did not become so"
        time.sleep(0.05)
