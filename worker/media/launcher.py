"""
Program that starts decoders by forking itself: ``python -I -B launcher.py SCRIPT CONTROL NETWORK``.

It imports the decoder's SCRIPT once and forks one child for each file, which takes 3 ms of processor time where
starting Python and Pillow takes 80. It never sees a file, nor the request that names one: the child reads that after
the fork, and it is confined before (``confine`` lists how). What one file does to its child reaches no other file.

CONTROL is the number of a socket. It carries ``READY`` or ``UNFIT`` once, then a message for each child, with four file
descriptors: the child's channel, and its standard input, output and error. On the channel the launcher writes the
child's process id and, when it has ended, its exit status, a line each. When the other side closes the channel, the
child's process group is killed and its id released. The launcher ends when CONTROL is closed and no child is left.

It is run by its path inside the decoders' sandbox, whose environment, limits and lack of privileges children inherit.
"""

import contextlib
import ctypes
import gc
import importlib.util
import json
import os
import resource
import select
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

READY: Final = b"ready"
UNFIT: Final = b"unfit"
"""The system does not allow what ``confine`` needs, or SCRIPT has started threads, which a fork does not copy."""
DESCRIPTORS: Final = 4
PRIVATE: Final = "private"
"""Value of NETWORK with which each child gets namespaces of its own; ``shared`` where the sandbox has none."""

PR_SET_PDEATHSIG: Final = 1
PR_SET_DUMPABLE: Final = 4
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWNET: Final = 0x40000000
NO_CAPABILITIES: Final = (struct.pack("=Ii", 0x20080522, 0), bytes(24))
"""Header (version 3, this process) and empty sets for ``capset``."""

Decode = Callable[[str, dict[str, Any], BinaryIO], int]
"""The function ``main`` of SCRIPT: takes a path, a request and the output; returns the exit status."""


@dataclass(slots=True)
class Child:
    """A child that runs, or that has ended and whose id is kept until its channel is closed."""

    pid: int
    handle: int
    """File descriptor of the process, which becomes readable at its end."""
    channel: int


def main(script: str, control_number: int, network: str) -> None:
    """Import *script*, report whether children can be confined, and start them until the control is closed."""
    control = socket.socket(fileno=control_number)
    control.set_inheritable(False)
    decode = load(script)
    # Debuggers and /proc/PID/mem are closed to processes of the same user: to this one's children above all.
    call("prctl", PR_SET_DUMPABLE, 0, 0, 0, 0)
    # What exists now is not touched by garbage collection, so that children share its memory.
    gc.freeze()
    is_private = network == PRIVATE
    control.send(READY if count_threads() == 1 and can_confine(is_private=is_private) else UNFIT)
    serve(control, decode, is_private=is_private)


def load(script: str) -> Decode:
    """Return the function ``main`` of the file *script*."""
    spec = importlib.util.spec_from_file_location("decoder", script)
    if spec is None or spec.loader is None:
        raise ImportError(f"{script} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    decode: Decode = module.main
    return decode


def count_threads() -> int:
    """Return the number of this process's threads."""
    return len(list(Path("/proc/self/task").iterdir()))


def can_confine(*, is_private: bool) -> bool:
    """Return whether a child can be confined on this system, which a trial shows."""
    if not hasattr(os, "pidfd_open"):
        return False
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(os.pidfd_open(parent))
            confine(parent, is_private=is_private)
            status = 0
        finally:
            os._exit(status)
    return os.waitpid(pid, 0)[1] == 0


def serve(control: socket.socket, decode: Decode, *, is_private: bool) -> None:
    """Start a child for each message, report how each ends, and kill those that nobody wants any more."""
    poller = select.poll()
    poller.register(control, select.POLLIN)
    by_handle: dict[int, Child] = {}
    by_channel: dict[int, Child] = {}
    is_open = True
    while is_open or by_channel:
        ready = {number for number, _ in poller.poll()}
        for number in ready & by_handle.keys():
            poller.unregister(number)
            report_end(by_handle.pop(number))
        for number in ready & by_channel.keys():
            child = by_channel.pop(number)
            poller.unregister(number)
            if by_handle.pop(child.handle, None) is not None:
                poller.unregister(child.handle)
            release(child)
        # Last, since a new child may get descriptors with the numbers of those that were closed above.
        if control.fileno() in ready:
            message, descriptors, _, _ = socket.recv_fds(control, 1, DESCRIPTORS)
            if not message:
                is_open = False
                poller.unregister(control)
            elif (started := start_child(control, descriptors, decode, is_private=is_private)) is not None:
                by_handle[started.handle] = by_channel[started.channel] = started
                poller.register(started.handle, select.POLLIN)
                # Nothing is ever sent on it, so that any event is its end.
                poller.register(started.channel, select.POLLIN)


def start_child(control: socket.socket, descriptors: list[int], decode: Decode, *, is_private: bool) -> Child | None:
    """Fork a child and report its id; close its channel, which reports the failure, if that is not possible."""
    channel, *standard = descriptors
    parent = os.getpid()
    try:
        pid = os.fork()
    except OSError:
        os.close(channel)
        pid = -1
    if pid == 0:
        # Closed by number below. Python must not close the number again, when something else has it.
        control.detach()
        run_child(parent, standard, decode, is_private=is_private)
    for number in standard:
        os.close(number)
    if pid < 0:
        return None
    # Here, too, so that the group exists when the other side learns its id.
    with contextlib.suppress(OSError):
        os.setpgid(pid, pid)
    tell(channel, pid)
    return Child(pid, os.pidfd_open(pid), channel)


def run_child(parent: int, standard: list[int], decode: Decode, *, is_private: bool) -> None:
    """Become a decoder: confine this process, read the request, and decode. Never returns."""
    status = 1
    try:
        for target, number in enumerate(standard):
            os.dup2(number, target)
        os.closerange(3, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        confine(parent, is_private=is_private)
        request = json.loads(sys.stdin.buffer.readline())
        # As for other decoders there is no standard input from here on.
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        resource.setrlimit(resource.RLIMIT_CPU, (request["cpu_s"], request["cpu_s"]))
        status = decode(request["path"], request["request"], sys.stdout.buffer)
        sys.stdout.flush()
    except BaseException:  # noqa: BLE001 - whatever it is, a child must not go on as a launcher
        traceback.print_exc()
    finally:
        os._exit(status)


def confine(parent: int, *, is_private: bool) -> None:
    """
    Separate this process from its launcher and from other children.

    It gets a process group, and where the sandbox has namespaces its own of users and of networks: it has no network,
    and no rights over processes outside. It ends with *parent*, the launcher. It inherits the rest: no new privileges,
    no debugging by others of the user, and the limits on memory, files and core dumps.

    Raises:
        OSError: The system does not allow it.
    """
    os.setpgid(0, 0)
    if is_private:
        call("unshare", CLONE_NEWUSER | CLONE_NEWNET)
        # Whoever makes a namespace of users has all rights in it, of which a decoder needs none.
        call("capset", NO_CAPABILITIES[0], NO_CAPABILITIES[1])
    # A new namespace of users can switch this off, so it comes second.
    call("prctl", PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        raise ProcessLookupError("the launcher has ended")


def call(name: str, *arguments: int | bytes) -> None:
    """Call a function of the C library that returns 0 for success; raise OSError otherwise."""
    function = getattr(ctypes.CDLL(None, use_errno=True), name)
    # Longs, since a function with any number of arguments reads them as such.
    if function(*(ctypes.c_ulong(one) if isinstance(one, int) else one for one in arguments)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def report_end(child: Child) -> None:
    """Write the exit status to the child's channel, negative for a signal, without releasing the process id."""
    ended = os.waitid(os.P_PIDFD, child.handle, os.WEXITED | os.WNOWAIT)
    if ended is not None:
        tell(child.channel, ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status)


def release(child: Child) -> None:
    """Kill what is left of the child's process group, and release its id."""
    # A child can have left its group, which only the leader of a session cannot do.
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError):
            kill(child.pid, signal.SIGKILL)
    os.waitpid(child.pid, 0)
    os.close(child.handle)
    os.close(child.channel)


def tell(channel: int, number: int) -> None:
    """Write *number* as a line, unless the other side is gone."""
    with contextlib.suppress(OSError):
        os.write(channel, b"%d\n" % number)


if __name__ == "__main__":
    main(str(Path(sys.argv[1])), int(sys.argv[2]), sys.argv[3])
