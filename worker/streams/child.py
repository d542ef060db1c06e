"""The child process that reads a stream: ffmpeg in the decoders' sandbox, for as long as the stream lasts."""

import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

from shared.errors import (
    DecodeError,
    DeepfakeStreamError,
    NoVideoStreamError,
    SourceRefusedError,
    SourceUnreachableError,
    UnsupportedCodecError,
    UnsupportedMediaError,
)
from worker.media.process import KEPT_LINES, LINE_BYTES, read_authentic
from worker.media.sandbox import sandbox
from worker.streams import launcher

MEMORY_BYTES: Final = 1024**3
"""Address space of the child, most of which is the program itself."""
START_CPU_S: Final = 10.0
CPU_SHARE: Final = 0.5
"""Share of one core that the child may use over its life; taking 4 Mbit/s apart needs about a hundredth."""
CHECK_S: Final = 2.0
LAUNCH_TIMEOUT_S: Final = 10.0

_REASONS: Final[Sequence[tuple[str, type[DeepfakeStreamError], str]]] = (
    ("401 Unauthorized", SourceRefusedError, "the source refused the credentials"),
    ("authorization failed", SourceRefusedError, "the source refused the credentials"),
    ("403 Forbidden", SourceRefusedError, "the source refused the credentials"),
    ("ERROR:UNAUTHORIZED", SourceRefusedError, "the source refused the credentials"),
    ("connection rejected", SourceRefusedError, "the source refused the stream id or the passphrase"),
    ("404 ", SourceRefusedError, "the source has no such stream"),
    ("StreamNotFound", SourceRefusedError, "the source has no such stream"),
    ("Server error:", SourceRefusedError, "the source answered with an error"),
    ("Server returned ", SourceRefusedError, "the source answered with an error"),
    ("not on whitelist", UnsupportedCodecError, "the stream's video codec is not accepted"),
    ("matches no streams", NoVideoStreamError, "the stream has no video"),
    ("does not contain any stream", NoVideoStreamError, "the stream has no video"),
    ("Connection refused", SourceUnreachableError, "the source ended the connection"),
    ("Connection reset", SourceUnreachableError, "the source ended the connection"),
    ("Input/output error", SourceUnreachableError, "the source ended the connection"),
    ("timed out", SourceUnreachableError, "the source did not answer in time"),
    ("Connection timeout", SourceUnreachableError, "the source did not answer in time"),
    ("End of file", SourceUnreachableError, "the source ended the connection before the first picture"),
    ("Invalid data", UnsupportedMediaError, "the stream could not be read as video"),
)
"""Part of a line that ffmpeg logs → the error that it means. The first that is found counts."""


class StreamChild:
    """
    Context manager that runs *arguments* until the context ends.

    It ends with the thread that started it, as every child in the sandbox. Its standard input and output are for
    ``select``, and do not block.

    Args:
        server: The one server that it may speak to; without it, there is no network at all.
        kind: ``tcp`` or ``udp``, with *server*.
        is_private: Whether it gets a network namespace of its own, with *server*.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        server: tuple[IPv4Address | IPv6Address, int] | None = None,
        kind: str = "tcp",
        is_private: bool = True,
    ) -> None:
        self._arguments = list(arguments)
        self._server = server
        self._kind = kind
        self._is_private = is_private
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._checked = 0.0
        self.listener: socket.socket | None = None
        """The socket at which the child will look for *server*."""

    def __enter__(self) -> Self:
        channel, theirs = socket.socketpair()
        with channel, theirs:
            command = self._arguments
            if self._server is not None:
                network = "private" if self._is_private else "shared"
                start = [sys.executable, "-I", "-S", str(Path(launcher.__file__))]
                command = [*start, str(theirs.fileno()), self._kind, network, *map(str, self._server), *command]
            self._process = subprocess.Popen(
                [*sandbox().prefix, *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,
                pass_fds=() if self._server is None else (theirs.fileno(),),
                # Nothing of the worker's environment, which has passwords; colours mark ffmpeg's own lines.
                env={"PATH": os.defpath, "LC_ALL": "C.UTF-8", "AV_LOG_FORCE_COLOR": "1"},
            )
            self._began = time.monotonic()
            self._log = threading.Thread(target=self._read_lines, name="stream-log", daemon=True)
            self._log.start()
            try:
                self._limit_resources()
                for pipe in (self.stdin, self.stdout):
                    os.set_blocking(pipe.fileno(), False)
                theirs.close()
                if self._server is not None:
                    self.listener = _receive(channel)
            except BaseException:
                self.__exit__(None, None, None)
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The id of the group cannot be reused until the child was waited for.
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._log.join()
        if self.listener is not None:
            self.listener.close()
        for pipe in (self.stdin, self.stdout):
            with contextlib.suppress(OSError):
                pipe.close()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def stdin(self) -> IO[bytes]:
        """Its standard input."""
        if self._process.stdin is None:
            raise RuntimeError("the child has no standard input")
        return self._process.stdin

    @property
    def stdout(self) -> IO[bytes]:
        """Its standard output."""
        if self._process.stdout is None:
            raise RuntimeError("the child's standard output was not captured")
        return self._process.stdout

    def check_processor_time(self) -> None:
        """Raise UnsupportedMediaError if it has used too much processor time for its age."""
        age_s = time.monotonic() - self._began
        if age_s - self._checked < CHECK_S:
            return
        self._checked = age_s
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return
        used_s = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        if used_s > START_CPU_S + CPU_SHARE * age_s:
            raise UnsupportedMediaError("reading the stream takes too much processor time")

    def explain(self) -> DeepfakeStreamError:
        """Return the error that explains why the child ended without a picture."""
        try:
            self._process.wait(LAUNCH_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return DecodeError("the reader of the stream does not end")
        self._log.join()
        for part, kind, message in _REASONS:
            if any(part in line for line in self._lines):
                return kind(message)
        if self._process.returncode < 0:
            return DecodeError(f"the reader of the stream was ended by signal {-self._process.returncode}")
        return UnsupportedMediaError("the stream could not be read as video")

    def _limit_resources(self) -> None:
        if not hasattr(resource, "prlimit"):
            return
        limits = {resource.RLIMIT_AS: MEMORY_BYTES, resource.RLIMIT_CORE: 0, resource.RLIMIT_FSIZE: 0}
        with contextlib.suppress(ProcessLookupError):
            for name, value in limits.items():
                resource.prlimit(self._process.pid, name, (value, value))

    def _read_lines(self) -> None:
        stream = self._process.stderr
        if stream is None:
            return
        with stream:
            while raw := stream.readline(LINE_BYTES):
                # Only what ffmpeg says itself counts: the sender can write any text into the other lines.
                line = read_authentic(raw.decode("utf-8", "replace").rstrip("\r\n"))
                if line is not None:
                    self._lines.append(line)


def _receive(channel: socket.socket) -> socket.socket:
    channel.settimeout(LAUNCH_TIMEOUT_S)
    try:
        _, descriptors, _, _ = socket.recv_fds(channel, 16, 1)
    except OSError as error:
        raise DecodeError("the reader of the stream did not start in time") from error
    if not descriptors:
        raise DecodeError("the reader of the stream could not open its socket")
    return socket.socket(fileno=descriptors[0])
