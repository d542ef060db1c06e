"""Child processes of the embedded stack: started, watched, restarted, stopped."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

RESTARTS = 5
RESTART_WINDOW_S = 60.0
LINUX_SET_PARENT_DEATH_SIGNAL = 1


class Service:
    """
    One child process, with its log in a file.

    Args:
        name: For people and for the log's name.
        command: Program and arguments.
        environment: All of it.
        folder: Working folder.
        log: Appended to.
        grace_s: How long it may take to stop.
        niceness: By how much it gives way to others where the processor is short, 0 to 19.
        port: That it listens on, of loopback; None if on none.
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
        self._starts: deque[float] = deque(maxlen=RESTARTS)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> "subprocess.Popen[bytes]":
        """Start it."""
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
                # Its own group: a Ctrl-C in the terminal is for the stack, which then stops its children in order.
                start_new_session=True,
                preexec_fn=self._prepare,  # noqa: PLW1509 - no threads here
            )
        return self.process

    def _prepare(self) -> None:
        os.nice(self._niceness)
        if sys.platform == "linux":
            _die_with_parent()

    def has_died(self) -> bool:
        """Whether it ended though nothing asked it to."""
        return self.process is not None and self.process.poll() is not None

    def may_restart(self) -> bool:
        """Whether it died seldom enough to be worth another start."""
        return len(self._starts) < RESTARTS or time.monotonic() - self._starts[0] > RESTART_WINDOW_S

    def ask_to_stop(self) -> None:
        """Send SIGTERM."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()

    def stop(self) -> None:
        """Wait for its end, and kill it with its whole group after the grace period."""
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
        # What it left of its group, for instance a pool's children.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process = None

    def last_lines(self, count: int = 15) -> str:
        """The end of its log, as far as it was written since the last start."""
        try:
            with self.log.open("rb") as log:
                log.seek(self._log_start)
                text = log.read().decode(errors="replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-count:])


def _die_with_parent() -> None:
    """Ask the kernel for SIGTERM when the stack is killed, so that no process stays behind."""
    ctypes.CDLL(None).prctl(LINUX_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)
