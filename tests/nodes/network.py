"""
Simulated machines: network namespaces joined by a bridge, and forwarders to servers outside of them.

Without permission to make namespaces, all nodes use the loopback interface and only have separate folders.
"""

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

IP = shutil.which("ip") or "/usr/sbin/ip"


class Network:
    """A bridge with an address for the host, and any number of nodes."""

    def __init__(self) -> None:
        self._name = f"dfs{secrets.token_hex(3)}"
        self._nodes: list[str] = []
        # From the block that is reserved for benchmarks of network devices (RFC 2544).
        self._prefix = f"198.18.{secrets.randbelow(254) + 1}"
        self.has_namespaces = os.geteuid() == 0 and self._make_bridge()

    @property
    def address(self) -> str:
        """Address of the host."""
        return f"{self._prefix}.1" if self.has_namespaces else "127.0.0.1"

    def add_node(self) -> "Node":
        """Add a node."""
        number = len(self._nodes) + 2
        if not self.has_namespaces:
            return Node("", "127.0.0.1", [])
        name, inside, outside = f"{self._name}-{number}", "eth0", f"{self._name}v{number}"
        self._nodes.append(name)
        _ip("netns", "add", name)
        _ip("link", "add", outside, "type", "veth", "peer", "name", inside, "netns", name)
        _ip("link", "set", outside, "master", self._name, "up")
        address = f"{self._prefix}.{number}"
        _ip("-n", name, "address", "add", f"{address}/24", "dev", inside)
        _ip("-n", name, "link", "set", inside, "up")
        _ip("-n", name, "link", "set", "lo", "up")
        return Node(outside, address, [IP, "netns", "exec", name])

    def close(self) -> None:
        """Remove all nodes and the bridge."""
        for name in self._nodes:
            _ip("netns", "del", name, check=False)
        if self.has_namespaces:
            _ip("link", "del", self._name, check=False)

    def _make_bridge(self) -> bool:
        if not Path(IP).exists() or _ip("link", "add", self._name, "type", "bridge", check=False):
            return False
        _ip("address", "add", f"{self._prefix}.1/24", "dev", self._name)
        _ip("link", "set", self._name, "up")
        return True


class Node:
    """One machine."""

    def __init__(self, link: str, address: str, prefix: Sequence[str]) -> None:
        self.address = address
        self.prefix = list(prefix)
        """Prefix of command lines that run on the node."""
        self._link = link

    def cut_off(self) -> None:
        """Disconnect the node; connections are not closed but no longer transfer data."""
        if self._link:
            _ip("link", "set", self._link, "down")

    def join(self) -> None:
        """Undo ``cut_off``."""
        if self._link:
            _ip("link", "set", self._link, "up")


def _ip(*arguments: str, check: bool = True) -> int:
    done = subprocess.run([IP, *arguments], capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise OSError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.returncode


Target = tuple[str, int] | Path
"""Host and port, or a Unix socket."""


class Forwarder:
    """
    A TCP forwarder that passes each connection to the next of its targets that accepts it.

    It serves as a load balancer, and as a port of servers that listen on a Unix socket or on loopback only.
    """

    def __init__(self, host: str, targets: Sequence[Target]) -> None:
        self._targets = list(targets)
        self._next = 0
        self._is_away = False
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server((host, 0), backlog=256)
        self.host, self.port = self._listener.getsockname()[:2]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Accept no more connections."""
        self._listener.close()

    def go_away(self) -> None:
        """Simulate an outage: close every connection, and each new one at once."""
        self._is_away = True
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def come_back(self) -> None:
        """Undo ``go_away``."""
        self._is_away = False

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        if self._is_away:
            connection.close()
            return
        self._open.add(connection)
        try:
            with connection, contextlib.suppress(OSError), self._reach() as onward:
                back = threading.Thread(target=_pump, args=(onward, connection), daemon=True)
                back.start()
                _pump(connection, onward)
                back.join()
        finally:
            self._open.discard(connection)

    @contextlib.contextmanager
    def _reach(self) -> Iterator[socket.socket]:
        first, self._next = self._next, self._next + 1
        error: OSError | None = None
        for offset in range(len(self._targets)):
            target = self._targets[(first + offset) % len(self._targets)]
            try:
                onward = _connect(target)
            except OSError as refused:
                error = refused
                continue
            with onward:
                yield onward
            return
        raise error or OSError("nobody to forward to")


def _connect(target: Target) -> socket.socket:
    if isinstance(target, Path):
        onward = socket.socket(socket.AF_UNIX)
        try:
            onward.connect(str(target))
        except OSError:
            onward.close()
            raise
        return onward
    onward = socket.create_connection(target, timeout=2.0)
    onward.settimeout(None)
    return onward


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    # Only this direction has ended; the other one may continue.
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
