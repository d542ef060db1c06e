"""
The port at which publishers arrive.

A connection has a thread of its own until its key was accepted or refused. It has a few seconds for that, and there is
a limit for all such connections and for those of one address, so that slow ones take nothing away for long. After that
it belongs to the reader of its stream.
"""

import contextlib
import ipaddress
import select
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from shared.observability import PUSH_CONNECTIONS, get_logger
from worker.streams.rtmp.connection import Connection, ConnectionLostError
from worker.streams.rtmp.errors import ProtocolError
from worker.streams.rtmp.session import PublishRequest
from worker.streams.values import StreamLimits

log = get_logger(__name__)

OPENING_S: Final = 8.0
"""Time from the connection to the request to publish."""
MAX_OPENING: Final = 64
"""The most connections that have not been accepted yet."""
MAX_OPENING_PER_ADDRESS: Final = 8
REFUSED_S: Final = 1.0
"""How long a refused connection keeps its place, so that one address cannot try many keys."""
POLL_S: Final = 0.1
BACKLOG: Final = 64
IPV6_PREFIX: Final = 64
"""One client has at least so much of the addresses of IPv6."""

Publish = Callable[[str, Connection], str | None]
"""Takes a key and the connection, and either begins to read it and returns None, or returns why it is refused."""


class Certificate:
    """
    The certificate for TLS, which is read again when its file changes.

    Args:
        chain: PEM file of the certificate and those between it and its root.
        key: PEM file of its private key; the same file by default.

    Raises:
        OSError: A file cannot be read, or is no certificate.
    """

    def __init__(self, chain: Path, key: Path | None) -> None:
        self._chain, self._key = chain, key
        self._changed_at = self._measure()
        self.context = self._load()

    def refresh(self) -> None:
        """Read the files again if they have changed. Files that cannot be read change nothing."""
        with contextlib.suppress(OSError):
            changed_at = self._measure()
            if changed_at != self._changed_at:
                # A new one, since a failure would leave the present one with half of each.
                self.context = self._load()
                self._changed_at = changed_at
                log.info("certificate of the port for publishers read again")

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._chain, self._key)
        return context

    def _measure(self) -> tuple[int, ...]:
        return tuple(path.stat().st_mtime_ns for path in (self._chain, self._key) if path is not None)


class PushListener:
    """
    Context manager that accepts publishers.

    Args:
        host: Address to listen at; empty for all.
        port: 0 for a free one.
        publish: Called in the thread of the connection, within ``OPENING_S`` of its beginning.
        certificate: For RTMPS; RTMP without one.
        limits: Of each connection.

    Raises:
        OSError: The port cannot be opened.
    """

    def __init__(
        self,
        host: str,
        port: int,
        publish: Publish,
        *,
        limits: StreamLimits,
        certificate: Certificate | None = None,
    ) -> None:
        self._publish, self._limits, self._certificate = publish, limits, certificate
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        is_dual = family == socket.AF_INET6 and socket.has_dualstack_ipv6()
        self._socket = socket.create_server((host, port), family=family, backlog=BACKLOG, dualstack_ipv6=is_dual)
        self.port: int = self._socket.getsockname()[1]
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._opening: Counter[str] = Counter()
        self._thread = threading.Thread(target=self._accept, name="push-listener", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join()

    def _accept(self) -> None:
        # Not select(), which fails in a process with more than 1,024 open files.
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        with self._socket:
            while not self._stopping.is_set():
                if not poll.poll(1000 * POLL_S):
                    continue
                try:
                    peer, origin = self._socket.accept()
                except OSError:
                    # The peer has left, or this process has no more files.
                    self._stopping.wait(POLL_S)
                    continue
                self._begin(peer, _network(origin[0]))

    def _begin(self, peer: socket.socket, network: str) -> None:
        with self._lock:
            is_welcome = self._opening.total() < MAX_OPENING and self._opening[network] < MAX_OPENING_PER_ADDRESS
            self._opening[network] += is_welcome
        if not is_welcome:
            PUSH_CONNECTIONS.labels(outcome="limited").inc()
            peer.close()
            return
        try:
            threading.Thread(target=self._open, args=(peer, network), name="push-opening", daemon=True).start()
        except RuntimeError:
            # The system allows no more threads; those that there are end by themselves.
            log.warning("no thread for a publisher")
            peer.close()
            self._forget(network)

    def _open(self, peer: socket.socket, network: str) -> None:
        try:
            outcome = self._converse(peer)
            PUSH_CONNECTIONS.labels(outcome=outcome).inc()
            if outcome != "accepted":
                self._stopping.wait(REFUSED_S)
        except Exception:
            log.exception("connection of a publisher failed")
        finally:
            self._forget(network)

    def _forget(self, network: str) -> None:
        with self._lock:
            self._opening[network] -= 1
            self._opening += Counter()  # Drops those without any.

    def _converse(self, peer: socket.socket) -> str:
        """Talk to a publisher until its key was accepted or refused; return the outcome."""
        deadline = time.monotonic() + OPENING_S
        try:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peer = self._wrap(peer)
        except (OSError, ValueError):
            peer.close()
            return "malformed"
        connection = Connection(
            peer,
            max_picture_bytes=self._limits.max_picture_bytes,
            max_bytes_per_s=self._limits.max_bytes_per_s,
        )
        is_accepted = False
        try:
            key = self._read_key(connection, deadline)
            if key is None:
                return "late"
            refusal = self._publish(key, connection)
            if refusal is None:
                is_accepted = True
                return "accepted"
            connection.session.refuse(refusal)
        except (ProtocolError, ConnectionLostError):
            return "malformed"
        else:
            return "refused"
        finally:
            if not is_accepted:
                connection.close()

    def _wrap(self, peer: socket.socket) -> socket.socket:
        if self._certificate is None:
            return peer
        self._certificate.refresh()
        peer.settimeout(OPENING_S / 2)
        return self._certificate.context.wrap_socket(peer, server_side=True)

    def _read_key(self, connection: Connection, deadline: float) -> str | None:
        """Return the key that the publisher names; None if it takes too long."""
        while (left_s := deadline - time.monotonic()) > 0 and not self._stopping.is_set():
            for event in connection.events(min(left_s, POLL_S)):
                if isinstance(event, PublishRequest):
                    return event.key
        return None


def _network(address: str) -> str:
    """Return the addresses that count as one: of IPv6, those that a client can choose from."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, IPV6_PREFIX), strict=False))
    return str(found)
