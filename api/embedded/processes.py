"""Supervision of child processes: starting, watching, restarting and stopping them."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections import deque
from functools import partial
from pathlib import Path

MAX_STARTS = 5
RESTART_WINDOW_S = 60.0
"""A process is started at most MAX_STARTS times within this window."""
LINUX_SET_PARENT_DEATH_SIGNAL = 1


class Service:
    """
    A child process that runs one service, with its log in a file.

    Args:
        name: Name of the service, such as ``worker-gpu``.
        command: Program and arguments.
        environment: All environment variables.
        folder: Working folder.
        log: File to which its output is appended.
        grace_s: Seconds that it may take to stop before it is killed.
        niceness: How far its priority for processor time is lowered, 0 to 19.
        port: Loopback port on which it listens; None if it listens on none.
    """

    def __init__(
        self,
        name: str,
        command: list[str],
        *,
        environment: dict[str, str],
        folder: Path,
        log: Path,
        grace_s: float = 10.0,
        niceness: int = 0,
        port: int | None = None,
    ) -> None:
        self.name = name
        self.port = port
        self._log_start = 0
        self._niceness = niceness
        self.log = log
        self._command = command
        self._environment = environment
        self._folder = folder
        self._grace_s = grace_s
        self._starts: deque[float] = deque(maxlen=MAX_STARTS)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> "subprocess.Popen[bytes]":
        """Start the process."""
        self._starts.append(time.monotonic())
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            self.process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                cwd=self._folder,
                # A group of its own: Ctrl-C in the terminal reaches the supervisor alone, which stops all in order.
                start_new_session=True,
                preexec_fn=partial(self._prepare, os.getpid()),  # noqa: PLW1509 - no threads here
            )
        return self.process

    def _prepare(self, parent: int) -> None:
        os.nice(self._niceness)
        if sys.platform == "linux":
            _die_with_parent()
            if os.getppid() != parent:
                # It was killed before the kernel knew what to do then.
                os._exit(1)

    def has_died(self) -> bool:
        """Whether the process has ended without having been stopped."""
        return self.process is not None and self.process.poll() is not None

    def may_restart(self) -> bool:
        """Whether it died seldom enough to be started again."""
        return len(self._starts) < MAX_STARTS or time.monotonic() - self._starts[0] > RESTART_WINDOW_S

    def ask_to_stop(self) -> None:
        """Send SIGTERM to the process."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()

    def stop(self) -> None:
        """Stop the process and its group: by SIGTERM, and by SIGKILL after the grace period."""
        if self.process is None:
            return
        self.ask_to_stop()
        try:
            self.process.wait(self._grace_s)
        except subprocess.TimeoutExpired:
            # macOS refuses it, where Linux allows it, for a group whose processes have just ended.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        # Other processes of its group, such as the children of a pool, may still run.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process = None

    def last_lines(self, count: int = 15) -> str:
        """Return the last *count* lines that it has written to its log since its last start."""
        try:
            with self.log.open("rb") as log:
                log.seek(self._log_start)
                text = log.read().decode(errors="replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-count:])


def _die_with_parent() -> None:
    """Ask the kernel to send SIGTERM when the supervisor is killed, so that no process stays behind."""
    ctypes.CDLL(None).prctl(LINUX_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)
