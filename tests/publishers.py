"""Publishers over RTMP on loopback, for tests of streams that are published to the service."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from worker.media.ffmpeg import find_ffmpeg


@contextlib.contextmanager
def publishing(clip: Path, address: str, *pace: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Publish the video of *clip* to *address* with ffmpeg, in real time unless *pace* says otherwise."""
    command = [find_ffmpeg(), "-v", "error", *(pace or ("-re",)), "-i", str(clip), "-c", "copy", "-f", "flv", address]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE) as publisher:
        try:
            yield publisher
        finally:
            publisher.kill()
