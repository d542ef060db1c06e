"""Cameras of every protocol that are stopped, frozen, cut off and replaced while the service watches them."""

import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.clips import make_clip
from tests.live import Cable, RestartedSender, serving_folder
from tests.rtsp import RTSPServer

AWAY_S = (4.0, 16.0)
"""The least and the longest time of an ordinary fault."""
LONG_S = 30.0
PAUSE_S = (3.0, 9.0)
"""Between two faults of cameras."""


@dataclass
class Camera:
    """A live source."""

    scheme: str
    url: str
    replace: Callable[[Path], None]
    """Go on with another clip, after a new start."""
    faults: dict[str, Callable[[float], None]]
    """Kind → function that makes the fault last so many seconds."""
    username: str | None = None
    away: list[tuple[float, float, str]] = field(default_factory=list)
    """Begin and end, by the clock, and kind of each fault in which nothing was sent."""


def make_clips(folder: Path) -> list[Path]:
    """Make clips of several sizes and codecs, with a face and without; the first one is what cameras begin with."""
    options = {"seconds": 10.0, "extra": ("-g", "10", "-bf", "0")}
    return [
        make_clip(folder / "first.ts", **options),
        make_clip(folder / "large.ts", size=(640, 480), **options),
        make_clip(folder / "hevc.ts", codec="hevc", seconds=10.0, extra=("-g", "10")),
        make_clip(folder / "nobody.ts", faces=(), **options),
    ]


@contextmanager
def cameras(clip: Path, folder: Path) -> Iterator[list[Camera]]:
    """Run one camera of each protocol."""
    with ExitStack() as running:
        yield [
            _udp_camera(running, clip),
            _hls_camera(running, clip, folder),
            _rtmp_camera(running, clip),
            _srt_camera(running, clip),
            _rtsp_camera(running, clip),
        ]


class Trouble(threading.Thread):
    """A thread that injects faults of cameras at random times until ``stop``."""

    def __init__(self, watched: list[Camera], clips: list[Path], seed: int) -> None:
        super().__init__(name="trouble", daemon=True)
        self.injected: Counter[str] = Counter()
        self._cameras, self._clips, self._rng = watched, clips, random.Random(f"{seed}/cameras")
        self._over = threading.Event()

    def run(self) -> None:
        """Inject every kind of fault of every camera once in random order, and again."""
        order: list[tuple[Camera, str]] = []
        while not self._over.wait(self._rng.uniform(*PAUSE_S)):
            every = [(camera, kind) for camera in self._cameras for kind in (*camera.faults, "replaced")]
            order = order or self._rng.sample(every, len(every))
            camera, kind = order.pop()
            self.injected[f"{camera.scheme} {kind}"] += 1
            if kind == "replaced":
                camera.replace(self._rng.choice(self._clips))
                continue
            began = time.time()
            camera.faults[kind](LONG_S if self._rng.random() < 0.15 else self._rng.uniform(*AWAY_S))
            camera.away.append((began, time.time(), kind))

    def stop(self) -> None:
        """Inject nothing more; the fault that lasts ends first."""
        self._over.set()
        self.join()


def _free_port(kind: socket.SocketKind) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _of_sender(sender: RestartedSender, cable: Cable | None = None) -> dict[str, Callable[[float], None]]:
    faults = {"stopped": sender.stay_away, "frozen": sender.freeze}
    return faults if cable is None else {**faults, "cut off": cable.cut}


def _udp_camera(running: ExitStack, clip: Path) -> Camera:
    port = _free_port(socket.SOCK_DGRAM)
    sender = running.enter_context(RestartedSender(clip, "-f", "mpegts", f"udp://127.0.0.1:{port}?pkt_size=1316"))
    return Camera("udp", f"udp://127.0.0.1:{port}", sender.replace, _of_sender(sender))


def _hls_camera(running: ExitStack, clip: Path, folder: Path) -> Camera:
    folder.mkdir()
    options = ("-f", "hls", "-hls_time", "1", "-hls_list_size", "6", "-hls_flags", "delete_segments+omit_endlist")
    sender = running.enter_context(RestartedSender(clip, *options, str(folder / "live.m3u8")))
    port = running.enter_context(serving_folder(folder))
    cable = running.enter_context(Cable(port))
    return Camera("hls", f"http://127.0.0.1:{cable.port}/live.m3u8", sender.replace, _of_sender(sender, cable))


def _rtmp_camera(running: ExitStack, clip: Path) -> Camera:
    port = _free_port(socket.SOCK_STREAM)
    sender = RestartedSender(clip, "-f", "flv", "-listen", "1", f"rtmp://127.0.0.1:{port}/live/key")
    running.enter_context(sender)
    cable = running.enter_context(Cable(port))
    return Camera("rtmp", f"rtmp://127.0.0.1:{cable.port}/live/key", sender.replace, _of_sender(sender, cable))


def _srt_camera(running: ExitStack, clip: Path) -> Camera:
    port = _free_port(socket.SOCK_DGRAM)
    sender = running.enter_context(RestartedSender(clip, "-f", "mpegts", f"srt://127.0.0.1:{port}?mode=listener"))
    cable = running.enter_context(Cable(port, kind="udp"))
    return Camera("srt", f"srt://127.0.0.1:{cable.port}", sender.replace, _of_sender(sender, cable))


def _rtsp_camera(running: ExitStack, clip: Path) -> Camera:
    server = running.enter_context(RTSPServer(clip, is_endless=True))
    cable = running.enter_context(Cable(server.port))
    return Camera("rtsp", f"rtsp://127.0.0.1:{cable.port}/hall", server.replace, {"cut off": cable.cut})
