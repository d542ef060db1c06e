"""Loopback ports of the embedded stack: which are free, and what to say about one that is not."""

import contextlib
import errno
import os
import socket
from typing import Final

from api.embedded.errors import PortTakenError, StackError

API_PORT: Final = 8000
FLOWER_PORT: Final = 5555
PUSH_PORT: Final = 1935
"""First ports that are tried for the api, for Flower, and for publishers of live streams."""
MAX_TRIED_PORTS: Final = 100
_IN_USE_MESSAGES: Final = (os.strerror(errno.EADDRINUSE), "Connection in use")
"""How Python, and gunicorn in its own words, report that a port is taken."""


def choose_ports(port: int | None, flower_port: int | None) -> tuple[int, int]:
    """
    Choose the loopback ports of the api and of Flower: those given, or the first free ones from 8000 and 5555 on.

    Raises:
        StackError: A given port is taken, or both are the same.
    """
    if port is not None and port == flower_port:
        raise StackError(f"port {port} is given to both the api and Flower: choose another one with --flower-port")
    for name, option, given in (("the api", "--port", port), ("Flower", "--flower-port", flower_port)):
        _check_given(given, name, option)
    port = port or find_free_port(start=API_PORT, excluded=flower_port)
    return port, flower_port or find_free_port(start=FLOWER_PORT, excluded=port)


def choose_push_port(given: int | None, *, excluded: int | None = None) -> int:
    """
    Choose the loopback port for publishers of live streams: the given one, or the first free one from 1935 on.

    Raises:
        StackError: The given port is taken.
    """
    _check_given(given, "publishers", "--push-port")
    return given or find_free_port(start=PUSH_PORT, excluded=excluded)


def _check_given(given: int | None, name: str, option: str) -> None:
    if given is not None and (problem := port_problem(given)) is not None:
        raise StackError(
            f"port {given}, for {name}, {problem}: choose another one with {option},"
            f" or leave {option} out to get the first free one"
        )


def find_free_port(*, start: int = 0, excluded: int | None = None) -> int:
    """
    Find a free loopback port.

    Args:
        start: The first port that is tried; 0 for any port that the system chooses.
        excluded: A port that is not returned.
    """
    for port in range(start, start + MAX_TRIED_PORTS) if start else ():
        if port != excluded and port_problem(port) is None:
            return port
    with contextlib.closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def port_problem(port: int) -> str | None:
    """Say why no server can listen on *port* of loopback; None if one can."""
    with contextlib.closing(socket.socket()) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError as error:
            return "is taken" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
    return None


def reports_port_in_use(log: str) -> bool:
    """Whether a process wrote into its *log* that its port is taken."""
    return any(message in log for message in _IN_USE_MESSAGES)


def port_taken_error(port: int, service: str, option: str | None) -> PortTakenError:
    """
    Make the error for a port that another program took while the stack started.

    Args:
        port: The port.
        service: What listens on it, as a person calls it.
        option: The option of ``up`` that chooses another port; None if there is none.
    """
    advice = f"start again, or choose another one with 'deepfakestream up {option}'" if option else "start again"
    return PortTakenError(f"port {port}, for {service}, was taken by another program meanwhile: {advice}")
