"""Loopback ports of the embedded stack: which are free, and what to say of one that is not."""

import contextlib
import errno
import os
import socket
from typing import Final

from deepfakestream.stack.servers import StackError

API_PORT: Final = 8000
FLOWER_PORT: Final = 5555
"""From where on free ports are looked for."""
_IN_USE: Final = (os.strerror(errno.EADDRINUSE), "Connection in use")
"""How Python, and gunicorn in its own words, say that a port is taken."""


class PortTakenError(StackError):
    """Another program took a port after it had been chosen and before the service listened on it."""


def choose_ports(port: int | None, flower_port: int | None) -> tuple[int, int]:
    """
    The loopback ports of the api and of Flower: those given, or the first free ones from 8000 and 5555 on.

    Raises:
        StackError: One that was given is taken, or they are the same.
    """
    if port is not None and port == flower_port:
        raise StackError(f"port {port} is given to both the api and Flower: choose another one with --flower-port")
    for name, option, given in (("the api", "--port", port), ("Flower", "--flower-port", flower_port)):
        if given is not None and (why := obstacle(given)) is not None:
            raise StackError(
                f"port {given}, for {name}, {why}: choose another one with {option},"
                f" or leave {option} out to get the first free one"
            )
    port = port or free_port(start=API_PORT, besides=flower_port)
    return port, flower_port or free_port(start=FLOWER_PORT, besides=port)


def free_port(*, start: int = 0, besides: int | None = None) -> int:
    """A loopback port: the first free one from *start* on that is not *besides*, or any if *start* is 0."""
    for port in range(start, start + 100) if start else ():
        if port != besides and obstacle(port) is None:
            return port
    with contextlib.closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def obstacle(port: int) -> str | None:
    """Why no server can listen on *port* of loopback; None if one can."""
    with contextlib.closing(socket.socket()) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError as error:
            return "is taken" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
    return None


def says_in_use(log: str) -> bool:
    """Whether a service wrote into its *log* that its port is taken."""
    return any(sentence in log for sentence in _IN_USE)


def taken_while_starting(port: int, service: str, option: str | None) -> PortTakenError:
    """The error that names the *port*, the *service* that wanted it and the *option* that chooses another."""
    advice = f"start again, or choose another one with 'deepfakestream up {option}'" if option else "start again"
    return PortTakenError(f"port {port}, for {service}, was taken by another program meanwhile: {advice}")
