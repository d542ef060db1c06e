"""
A child process with limits, for decoders: they read untrusted files.

The child runs in its own process group. It has no standard input, limited memory and processor time, may write no
files and, where the system supports it, has no network (``sandbox.py``). The whole group is killed at the wall-clock
limit, when the context ends, and when the worker is killed. A crash of the child does not affect the worker.
"""

import contextlib
import fcntl
import os
import re
import resource
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import IO, Final, Protocol, Self

from shared.errors import DecodeTimeoutError
from worker.cores import available_cores
from worker.media.sandbox import sandbox

MEMORY_BYTES = 4 * 1024**3
"""Address space of a decoder: decoding 8K with several reference frames stays below it."""
PIPE_BYTES = 1024**2
"""Buffer size of the output pipe, where it can be set: frames are then read in fewer pieces."""
MIN_POLL_S = 0.05
"""Shortest interval between checks of a child's deadline while its clock is paused."""
LINE_BYTES = 4096
"""Longest part of a log line that is read; the rest of the line is dropped."""
KEPT_LINES = 200

# The worker's environment holds addresses and passwords, so none of it is passed on.
# Colours mark the lines that are ffmpeg's own: see ``read_authentic``.
ENVIRONMENT: Final = {"PATH": os.defpath, "LC_ALL": "C.UTF-8", "AV_LOG_FORCE_COLOR": "1"}
LIMITS: Final = {
    resource.RLIMIT_AS: MEMORY_BYTES,
    resource.RLIMIT_CORE: 0,
    # The child writes only to pipes.
    resource.RLIMIT_FSIZE: 0,
}
"""Limits of every decoder; the one of processor time depends on its timeout."""

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def strip_colours(line: str) -> str:
    """Return *line* of a log without its colour codes."""
    return _COLOUR.sub("", line)


def read_authentic(line: str) -> str | None:
    """
    Return *line* of ffmpeg's log without its colour codes, or None if it does not begin with one.

    Only ffmpeg itself can begin a line with a colour code: it replaces the escape character in every text that it
    quotes from the file. Any other line may have been written by the file's author.
    """
    return strip_colours(line) if line.startswith("\x1b[") else None


class Process(Protocol):
    """A child process that was started, as ``subprocess.Popen`` describes it."""

    @property
    def pid(self) -> int:
        """Its process id, which is not reused before ``wait`` was called; also the id of its process group."""

    @property
    def stdout(self) -> IO[bytes] | None:
        """Its standard output."""

    @property
    def stderr(self) -> IO[bytes] | None:
        """Its standard error."""

    def poll(self) -> int | None:
        """Return its exit status, negative for a signal; None while it runs."""

    def wait(self) -> int:
        """Wait until it has ended; return its exit status."""


class CancelToken:
    """Kills, from any thread, the child process that is attached to it, and each one that is attached later."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kill: Callable[[], None] | None = None
        self._is_cancelled = False

    @property
    def is_cancelled(self) -> bool:
        """Whether ``cancel`` was called."""
        return self._is_cancelled

    def cancel(self) -> None:
        """Kill the attached child and, from now on, each child at once when it is attached."""
        with self._lock:
            self._is_cancelled = True
            if self._kill is not None:
                self._kill()

    def attach(self, kill: Callable[[], None]) -> None:
        """Register *kill*, which ends the child that runs now."""
        with self._lock:
            self._kill = kill
            if self._is_cancelled:
                kill()

    def detach(self) -> None:
        """Forget the attached child, which has ended."""
        with self._lock:
            self._kill = None


class BoundedProcess:
    """
    Context manager that runs *arguments* as a child process until the context ends.

    Args:
        arguments: Program and arguments; no shell.
        timeout_s: Wall-clock limit.
        max_timeout_s: Sum of all limits that ``extend`` will set, if it is used; the limit of processor time follows
            from it.
        on_line: Called with each line of the child's standard error, up to ``LINE_BYTES`` of it, in another thread.
        cancel_token: Kills the child from another thread.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        timeout_s: float,
        max_timeout_s: float | None = None,
        on_line: Callable[[str], None] | None = None,
        cancel_token: CancelToken | None = None,
    ) -> None:
        self._arguments = [*sandbox().prefix, *arguments]
        self._cancel_token = cancel_token or CancelToken()
        self._left_s = timeout_s
        self._timeout_s = timeout_s
        self._max_timeout_s = max_timeout_s or timeout_s
        self._on_line = on_line
        self._began: float | None = None
        self._frame_times = threading.Lock()
        self._is_over = threading.Event()
        self.timed_out = False
        self.was_killed = False
        """Whether it was killed from here, for any reason."""
        self.lines: deque[str] = deque(maxlen=KEPT_LINES)
        """The last lines of standard error, without colours."""

    def __enter__(self) -> Self:
        self._process = self._start()
        self._enlarge_pipe()
        self._cancel_token.attach(self._kill)
        self._began = time.monotonic()
        self._watch = threading.Thread(target=self._expire, name="decoder-clock", daemon=True)
        self._watch.start()
        self._reader = threading.Thread(target=self._read_lines, name="decoder-log", daemon=True)
        self._reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._kill()
        self._process.wait()
        self._is_over.set()
        self._watch.join()
        self._cancel_token.detach()
        self._reader.join()
        self.stdout.close()

    @property
    def stdout(self) -> IO[bytes]:
        """The child's standard output."""
        if self._process.stdout is None:
            raise RuntimeError("the child's standard output was not captured")
        return self._process.stdout

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the clock in the block, in which the caller does other work and the child waits for it."""
        with self._frame_times:
            self._left_s, self._began = self._seconds_left(), None
        try:
            yield
        finally:
            with self._frame_times:
                self._began = time.monotonic()

    def extend(self, timeout_s: float) -> None:
        """Set the time limit of what follows to *timeout_s*; call it in a pause, with at least the time left."""
        with self._frame_times:
            self._left_s = self._timeout_s = timeout_s

    def end(self) -> None:
        """Kill the child, from any thread; ``wait`` then returns the status of SIGKILL."""
        self._kill()

    def wait(self) -> int:
        """
        Wait until the child has ended and its log is read.

        Returns:
            Its exit status; negative for a signal.

        Raises:
            DecodeTimeoutError: It was killed at its time limit.
        """
        status = self._process.wait()
        self._reader.join()
        if self.timed_out:
            raise DecodeTimeoutError(f"the decoder was stopped at its limit of {self._timeout_s:g} s")
        return status

    def _start(self) -> Process:
        """Start the child, with its limits."""
        process = subprocess.Popen(
            self._arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            close_fds=True,
            env=ENVIRONMENT,
        )
        limit_resources(process.pid, {**LIMITS, resource.RLIMIT_CPU: self._cpu_limit_s()})
        return process

    def _cpu_limit_s(self) -> int:
        return int(self._max_timeout_s * available_cores()) + 1

    def _seconds_left(self) -> float:
        return self._left_s if self._began is None else self._left_s - (time.monotonic() - self._began)

    def _expire(self) -> None:
        """
        Kill the child when its time is over.

        One thread serves all pauses of the child, since starting a thread for each would take 0.1 ms.
        """
        wait_s = self._left_s
        while not self._is_over.wait(wait_s):
            with self._frame_times:
                wait_s = self._seconds_left()
                if self._began is None:
                    # The time cannot run out before the pause ends, so the next check may wait as long.
                    wait_s = max(wait_s, MIN_POLL_S)
                elif wait_s <= 0.0:
                    self.timed_out = True
                    break
        if self.timed_out:
            self._kill()

    def _enlarge_pipe(self) -> None:
        # Only Linux supports it, and the sum over all pipes of a user is limited.
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            with contextlib.suppress(OSError):
                fcntl.fcntl(self.stdout, fcntl.F_SETPIPE_SZ, PIPE_BYTES)

    def _kill(self) -> None:
        # The id of the group cannot be reused until the child was waited for.
        if self._process.poll() is None:
            # The child may have ended since the check; macOS then refuses the signal, which Linux allows.
            # A forked decoder can have left its group, but not its own id.
            for kill in (os.killpg, os.kill):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    kill(self._process.pid, signal.SIGKILL)
                    self.was_killed = True

    def _read_lines(self) -> None:
        stream = self._process.stderr
        if stream is None:
            return
        next_starts_line = True
        with stream:
            while raw := stream.readline(LINE_BYTES):
                # The rest of an overlong line must not be taken for another line.
                starts_line, next_starts_line = next_starts_line, raw.endswith(b"\n")
                if not starts_line:
                    continue
                line = raw.decode("utf-8", "replace").rstrip("\r\n")
                self.lines.append(strip_colours(line))
                if self._on_line is not None:
                    self._on_line(line)


def limit_resources(pid: int, limits: Mapping[int, int]) -> None:
    """
    Limit the resources of a child process, where the system supports it.

    Set from the parent, since running code between fork and exec is unsafe in a process with threads. The child has
    only begun to load by now.
    """
    if hasattr(resource, "prlimit"):
        with contextlib.suppress(ProcessLookupError):
            for name, value in limits.items():
                resource.prlimit(pid, name, (value, value))


def read_exactly(stream: IO[bytes], count: int) -> bytes:
    """Read *count* bytes, or fewer if the stream ends first."""
    blocks = []
    while count > 0:
        block = stream.read(count)
        if not block:
            break
        blocks.append(block)
        count -= len(block)
    return b"".join(blocks) if len(blocks) != 1 else blocks[0]


def seconds_left(deadline: float) -> float:
    """Return the seconds until *deadline* on the monotonic clock, at least 0.1."""
    return max(0.1, deadline - time.monotonic())
