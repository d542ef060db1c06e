"""
Decoders written in Python, forked from a launcher that has imported them once (``launcher.py``).

Where the system does not allow to confine forked children as well as others, and on systems without the sandbox, each
decoder is started as a program of its own, which takes twenty times as long.
"""

import atexit
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from shared.observability import get_logger
from worker.media import launcher as program
from worker.media.process import ENVIRONMENT, LIMITS, BoundedProcess, CancelToken, Process, limit_resources
from worker.media.sandbox import sandbox

log = get_logger(__name__)

START_TIMEOUT_S: Final = 30.0
ANSWER_TIMEOUT_S: Final = 10.0
"""How long the launcher may take to fork a child, or to report an end that has come."""
END_TIMEOUT_S: Final = 1.0
MAX_CHILDREN: Final = 200
"""Children of one launcher share the layout of its memory, so that what one file finds out could help a later one."""
DECODER_STATUSES: Final = frozenset({0, 3})
"""Exit statuses of a decoder that has decoded its file, or refused it."""


class LauncherError(Exception):
    """A launcher cannot be started, or does not answer."""


class UnfitError(LauncherError):
    """This system does not allow to fork confined decoders."""


class ForkedProcess:
    """
    A child of a launcher, described as ``subprocess.Popen`` describes one of this process.

    Its id is not reused before ``release``.
    """

    def __init__(self, pid: int, channel: socket.socket, standard_output: int, standard_error: int) -> None:
        self.pid = pid
        self.is_lost = False
        """Whether the launcher did not report how it ended."""
        self._handle = os.pidfd_open(pid)
        self._channel = channel
        self._lock = threading.Lock()
        self._status: int | None = None
        self.stdout = os.fdopen(standard_output, "rb")
        self.stderr = os.fdopen(standard_error, "rb")

    def poll(self) -> int | None:
        """Return its exit status, negative for a signal; None while it runs."""
        return self._find_status(0)

    def wait(self) -> int:
        """Wait until it has ended; return its exit status."""
        status = None
        while status is None:
            status = self._find_status(None)
        return status

    def release(self) -> None:
        """Let the launcher kill what is left of its process group and release its id; call it after ``wait``."""
        os.close(self._handle)
        self._channel.close()

    def _find_status(self, timeout_ms: int | None) -> int | None:
        if self._status is not None:
            return self._status
        # Not under the lock: the thread that waits here must not keep another one from killing the child.
        ended = select.poll()
        ended.register(self._handle, select.POLLIN)
        if not ended.poll(timeout_ms):
            return None
        with self._lock:
            if self._status is None:
                try:
                    self._status = read_number(self._channel)
                except LauncherError:
                    self.is_lost, self._status = True, -signal.SIGKILL
        return self._status


class Launcher:
    """
    A process that forks decoders.

    Args:
        script: The decoder, a file with a function ``main`` as ``launcher.Decode`` describes it.

    Raises:
        LauncherError: It cannot be started, or this system does not allow it to confine children.
    """

    def __init__(self, script: Path) -> None:
        self.children = 0
        """How many it was asked to start."""
        self._script = script
        self._lock = threading.Lock()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.settimeout(START_TIMEOUT_S)
        process: Future[int] = Future()
        # It ends with the thread that starts it, which therefore does nothing else.
        self._owner = threading.Thread(target=self._own, args=(theirs, process), name="decoder-launcher", daemon=True)
        self._owner.start()
        try:
            process.result(START_TIMEOUT_S)
            said = self._control.recv(len(program.READY))
        except OSError as error:
            self.close()
            raise LauncherError(f"the launcher of decoders cannot be started: {error}") from error
        if said != program.READY:
            self.close()
            if said == program.UNFIT:
                raise UnfitError("this system does not allow to fork confined decoders")
            raise LauncherError("the launcher of decoders ended at once")
        self._control.settimeout(ANSWER_TIMEOUT_S)

    def start(self, path: Path, request: dict[str, Any], cpu_s: int) -> ForkedProcess:
        """
        Fork a decoder of the file at *path*.

        Args:
            cpu_s: Limit of its processor time.

        Raises:
            LauncherError: The launcher does not answer.
        """
        line = json.dumps({"path": str(path.absolute()), "request": request, "cpu_s": cpu_s}).encode() + b"\n"
        with contextlib.ExitStack() as given, contextlib.ExitStack() as kept:
            channel, theirs = socket.socketpair()
            kept.enter_context(channel)
            given.enter_context(theirs)
            channel.settimeout(ANSWER_TIMEOUT_S)
            try:
                input_end, request_end = os.pipe()
                for number in (input_end, request_end):
                    given.callback(os.close, number)
                (output_end, their_output), (error_end, their_error) = (_pipe(kept, given) for _ in range(2))
                standard = [input_end, their_output, their_error]
                with self._lock:
                    self.children += 1
                    socket.send_fds(self._control, [b"\0"], [theirs.fileno(), *standard])
                # It fits into the pipe, and the child reads it when it is confined.
                os.write(request_end, line)
                # Otherwise the end of the launcher would not be seen on the channel.
                theirs.close()
                child = ForkedProcess(read_number(channel), channel, output_end, error_end)
            except OSError as error:
                raise LauncherError(f"the launcher of decoders does not answer: {error}") from error
            kept.pop_all()
        return child

    def close(self) -> None:
        """Start no more children; it ends when those that run were released."""
        self._control.close()

    def join(self) -> None:
        """Wait until it has ended after ``close``, if that takes no longer than ``END_TIMEOUT_S``."""
        self._owner.join(END_TIMEOUT_S)

    def _own(self, theirs: socket.socket, started: "Future[int]") -> None:
        network = program.PRIVATE if sandbox().has_no_network else "shared"
        # -I: nothing is imported from the environment or the current folder. -B: decoders may not write files.
        command = [sys.executable, "-I", "-B", str(program.__file__), str(self._script), str(theirs.fileno()), network]
        try:
            process = subprocess.Popen(
                [*sandbox().prefix, *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                pass_fds=(theirs.fileno(),),
                env=ENVIRONMENT,
            )
            limit_resources(process.pid, LIMITS)
        except OSError as error:
            started.set_exception(error)
            return
        finally:
            theirs.close()
        started.set_result(process.pid)
        process.wait()


def _pipe(reader: contextlib.ExitStack, writer: contextlib.ExitStack) -> tuple[int, int]:
    """Make a pipe; *reader* and *writer* close its ends."""
    ends = os.pipe()
    for stack, number in zip((reader, writer), ends, strict=True):
        stack.callback(os.close, number)
    return ends


def read_number(channel: socket.socket) -> int:
    """
    Read the line of a number.

    Raises:
        LauncherError: The channel was closed, or nothing came in time.
    """
    line = b""
    try:
        while not line.endswith(b"\n"):
            letter = channel.recv(1)
            if not letter:
                raise LauncherError("the launcher of decoders has ended, or could not start one")
            line += letter
    except OSError as error:
        raise LauncherError(f"the launcher of decoders does not answer: {error}") from error
    return int(line)


class Launchers:
    """The launchers of this process, one for each script; each is replaced after a while, or after a crash."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew, in a process that was forked."""
        self._lock = threading.Lock()
        self._by_script: dict[Path, Launcher | None] = {}

    def find(self, script: Path) -> Launcher | None:
        """Return the launcher of *script*; None if there can be none on this system."""
        if not sandbox().dies_with_parent:
            return None
        with self._lock:
            found = self._by_script.get(script)
            if found is not None and found.children >= MAX_CHILDREN:
                self._by_script.pop(script)
                found.close()
            if script not in self._by_script:
                try:
                    self._by_script[script] = Launcher(script)
                except UnfitError as error:
                    self._by_script[script] = None
                    log.warning("decoders start slowly", error=str(error))
                except LauncherError as error:
                    # Such as a lack of processes or of time, which the next file may not meet.
                    log.warning("decoder starts slowly", error=str(error))
                    return None
            return self._by_script[script]

    def retire(self, launcher: Launcher) -> None:
        """Let another launcher take over from the next file on."""
        with self._lock:
            for script, current in list(self._by_script.items()):
                if current is launcher:
                    del self._by_script[script]
            launcher.close()

    def end(self) -> None:
        """End all launchers with this process, for those who measure it: the system would kill them anyway."""
        with self._lock:
            for launcher in filter(None, self._by_script.values()):
                launcher.close()
                launcher.join()


launchers: Final = Launchers()
atexit.register(launchers.end)
os.register_at_fork(after_in_child=launchers.forget)


class PythonDecoder(BoundedProcess):
    """
    Context manager that runs a decoder written in Python on one file until the context ends.

    Args:
        script: The decoder, which also runs as ``script PATH REQUEST``.
        request: What to decode, as JSON.
    """

    def __init__(
        self,
        script: Path,
        path: Path,
        request: dict[str, Any],
        *,
        timeout_s: float,
        cancel_token: CancelToken | None = None,
    ) -> None:
        # -I: nothing is imported from the environment or the current folder. -B: the child may not write files.
        command: Sequence[str] = [sys.executable, "-I", "-B", str(script), str(path.absolute()), json.dumps(request)]
        super().__init__(command, timeout_s=timeout_s, cancel_token=cancel_token)
        self._script = script
        self._path = path
        self._request = request
        self._launcher: Launcher | None = None

    def _start(self) -> Process:
        # The second attempt is for a launcher that was killed, or replaced meanwhile.
        for _ in range(2):
            self._launcher = launchers.find(self._script)
            if self._launcher is None:
                break
            try:
                return self._launcher.start(self._path, self._request, self._cpu_limit_s())
            except LauncherError as error:
                log.warning("launcher of decoders replaced", error=str(error))
                launchers.retire(self._launcher)
        return super()._start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not isinstance(self._process, ForkedProcess):
            super().__exit__(kind, error, trace)
            return
        try:
            super().__exit__(kind, error, trace)
        finally:
            self._process.release()
        crashed = not self.was_killed and self._process.wait() not in DECODER_STATUSES
        if self._launcher is not None and (crashed or self.timed_out or self._process.is_lost):
            # Many attempts on one layout of memory could find out where things are in it.
            launchers.retire(self._launcher)
