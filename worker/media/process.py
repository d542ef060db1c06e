"""
A child process on a cancel_token: for decoders, which read what strangers send.

The child runs in a process group of its own with nothing to read from, limited memory and processor time, no file to
write and, where the system offers it, no network (``sandbox.py``). It is killed with its whole group at its wall-clock
limit, when the context ends, and when its worker is killed. A crash takes down the child alone.
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
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import IO, Self

from shared.errors import DecodeTimeoutError
from worker.cores import available_cores
from worker.media.sandbox import sandbox

MEMORY_BYTES = 4 * 1024**3
"""Address space of a decoder: decoding 8K with several reference frames stays below it."""
PIPE_BYTES = 1024**2
"""What may wait to be read, where a pipe's size can be chosen: frames then come in fewer pieces."""
MIN_POLL_S = 0.05
"""Between two looks at a child whose time is over, while it is in a pause."""
LINE_BYTES = 4096
KEPT_LINES = 200

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def strip_colours(line: str) -> str:
    """*line* of a log without its colours."""
    return _COLOUR.sub("", line)


def read_authentic(line: str) -> str | None:
    """
    *line* of ffmpeg's log without its colours, or None if it does not begin with one.

    It may be of the file's making then: ffmpeg replaces the control character that begins a colour where a text that it
    prints holds one.
    """
    return strip_colours(line) if line.startswith("\x1b[") else None


class CancelToken:
    """Ends, from any thread, the child that runs on it, and any that would come after."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kill: Callable[[], None] | None = None
        self._is_cut = False

    @property
    def is_cut(self) -> bool:
        """Whether ``cut`` was called."""
        return self._is_cut

    def cut(self) -> None:
        """End the child, now and for good."""
        with self._lock:
            self._is_cut = True
            if self._kill is not None:
                self._kill()

    def hold(self, kill: Callable[[], None] | None) -> None:
        """Let *kill* end the child that runs now; None once it has ended."""
        with self._lock:
            self._kill = kill
            if kill is not None and self._is_cut:
                kill()


class BoundedProcess:
    """
    Runs *arguments* while its context lasts.

    Args:
        arguments: Program and arguments; no shell.
        timeout_s: Wall-clock limit.
        whole_timeout_s: Of all that the child may be given by ``extend``, if it may; its processor time is limited to
            a small multiple of it.
        on_line: Called with each line of the child's standard error, up to ``LINE_BYTES`` of it, in a thread of its
            own.
        cancel_token: To end it from another thread.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        timeout_s: float,
        whole_timeout_s: float | None = None,
        on_line: Callable[[str], None] | None = None,
        cancel_token: CancelToken | None = None,
    ) -> None:
        self._arguments = [*sandbox().prefix, *arguments]
        self._cancel_token = cancel_token or CancelToken()
        self._left_s = timeout_s
        self._timeout_s = timeout_s
        self._whole_timeout_s = whole_timeout_s or timeout_s
        self._on_line = on_line
        self._began: float | None = None
        self._frame_times = threading.Lock()
        self._is_over = threading.Event()
        self.timed_out = False
        self.lines: deque[str] = deque(maxlen=KEPT_LINES)
        """The last lines of standard error, without colours."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            close_fds=True,
            # Nothing of the worker's environment, with its addresses and passwords, is the decoder's business.
            # Colours are ffmpeg's signature under its own words: see ``read_authentic``.
            env={"PATH": os.defpath, "LC_ALL": "C.UTF-8", "AV_LOG_FORCE_COLOR": "1"},
        )
        self._limit_resources()
        self._enlarge_pipe()
        self._cancel_token.hold(self._kill)
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
        self._cancel_token.hold(None)
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
        """The clock stands still in the block: whoever reads the output is at something else, and the child waits."""
        with self._frame_times:
            self._left_s, self._began = self._seconds_left(), None
        try:
            yield
        finally:
            with self._frame_times:
                self._began = time.monotonic()

    def extend(self, timeout_s: float) -> None:
        """Within a pause: *timeout_s*, which is no less than was left, for what comes after it."""
        with self._frame_times:
            self._left_s = self._timeout_s = timeout_s

    def end(self) -> None:
        """Kill the child, from any thread; its status is then that of SIGKILL."""
        self._kill()

    def wait(self) -> int:
        """
        Wait for the child's end and the last line of its log.

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

    def _seconds_left(self) -> float:
        return self._left_s if self._began is None else self._left_s - (time.monotonic() - self._began)

    def _expire(self) -> None:
        """End the child when its time is over, by a thread for all of its pauses: to start one takes 0.1 ms."""
        wait_s = self._left_s
        while not self._is_over.wait(wait_s):
            with self._frame_times:
                wait_s = self._seconds_left()
                if self._began is None:
                    # Its time cannot be over sooner than if the pause ended now.
                    wait_s = max(wait_s, MIN_POLL_S)
                elif wait_s <= 0.0:
                    self.timed_out = True
                    break
        if self.timed_out:
            self._kill()

    def _enlarge_pipe(self) -> None:
        # Linux alone has it, and there are limits for all pipes of a user together.
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            with contextlib.suppress(OSError):
                fcntl.fcntl(self.stdout, fcntl.F_SETPIPE_SZ, PIPE_BYTES)

    def _limit_resources(self) -> None:
        # From outside, since code that runs between fork and exec is unsafe in a process with threads. The
        # child can have done little by now: it has only begun to load.
        if not hasattr(resource, "prlimit"):
            return
        cpu_s = int(self._whole_timeout_s * available_cores()) + 1
        limits = {
            resource.RLIMIT_AS: MEMORY_BYTES,
            resource.RLIMIT_CPU: cpu_s,
            resource.RLIMIT_CORE: 0,
            # It writes to pipes only.
            resource.RLIMIT_FSIZE: 0,
        }
        with contextlib.suppress(ProcessLookupError):
            for name, value in limits.items():
                resource.prlimit(self._process.pid, name, (value, value))

    def _kill(self) -> None:
        # The group is gone once the child was waited for; until then its id cannot be reused.
        if self._process.poll() is None:
            # macOS refuses it, where Linux allows it, for a child that has ended since.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _read_lines(self) -> None:
        stream = self._process.stderr
        if stream is None:
            return
        is_begin = True
        with stream:
            while raw := stream.readline(LINE_BYTES):
                # What is left of a line that is too long must not be taken for another line.
                was_begin, is_begin = is_begin, raw.endswith(b"\n")
                if not was_begin:
                    continue
                line = raw.decode("utf-8", "replace").rstrip("\r\n")
                self.lines.append(strip_colours(line))
                if self._on_line is not None:
                    self._on_line(line)


def read_exactly(stream: IO[bytes], count: int) -> bytes:
    """*count* bytes, or fewer if the stream ends first."""
    blocks = []
    while count > 0:
        block = stream.read(count)
        if not block:
            break
        blocks.append(block)
        count -= len(block)
    return b"".join(blocks) if len(blocks) != 1 else blocks[0]


def seconds_left(deadline: float) -> float:
    """Until *deadline* on the monotonic clock, but never nothing at all."""
    return max(0.1, deadline - time.monotonic())
