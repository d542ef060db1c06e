"""Publishers over RTMP on loopback, for tests of streams that are published to the service."""

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from worker.media.ffmpeg import find_ffmpeg
from worker.streams.rtmp.amf import read_values, write_values
from worker.streams.rtmp.chunks import ChunkReader, MessageType, write_message


@contextlib.contextmanager
def publishing(
    clip: Path, address: str, *, is_live: bool = True, trusted: Path | None = None
) -> Iterator["subprocess.Popen[bytes]"]:
    """Publish the video of *clip* to *address* with ffmpeg, in real time or at once; *trusted* is a certificate."""
    command = [
        find_ffmpeg(),
        "-v",
        "error",
        *(("-re",) if is_live else ()),
        "-i",
        str(clip),
        "-c",
        "copy",
        "-f",
        "flv",
        address,
    ]
    environment = os.environ | ({} if trusted is None else {"SSL_CERT_FILE": str(trusted)})
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment) as publisher:
        try:
            yield publisher
        finally:
            publisher.kill()


class Publisher:
    """
    A publisher that does what a test says, step by step.

    Args:
        port: Port on loopback.
    """

    def __init__(self, port: int, *, application: str = "live") -> None:
        self._application = application
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10.0)
        self._reader = ChunkReader(1024)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def shake_hands(self) -> None:
        """Begin the conversation."""
        self.socket.sendall(b"\3" + bytes(1536))
        answer = b""
        while len(answer) < 1 + 2 * 1536:
            data = self.socket.recv(4096)
            assert data
            answer += data
        assert answer[1 + 1536 :] == bytes(1536)
        self.socket.sendall(answer[1 : 1 + 1536])

    def command(self, *values: Any, stream: int = 0) -> None:
        """Send a command."""
        self.socket.sendall(write_message(3, MessageType.COMMAND, stream, write_values(*values), 128))

    def answers(self) -> Iterator[list[Any]]:
        """Iterate over the commands that come back, until the connection ends."""
        deadline = time.monotonic() + 10.0
        while time.monotonic() < deadline and (data := self.socket.recv(4096)):
            for message in self._reader.feed(data):
                if message.type == MessageType.COMMAND:
                    yield read_values(message.data)

    def publish(self, key: str) -> str:
        """Publish with *key*; return the code of the answer."""
        self.shake_hands()
        self.command("connect", 1.0, {"app": self._application})
        self.command("createStream", 2.0, None)
        self.command("publish", 3.0, None, key, "live", stream=1)
        for name, _, _, information in self.answers():
            if name in ("onStatus", "_error"):
                return str(information["code"])
        return "no answer"
