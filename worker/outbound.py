"""
Requests to untrusted URLs: webhook receivers and URL sources.

A host name is resolved once, and all of its addresses must be globally reachable, so that no internal address can be
requested. The connection goes to an address that was checked, so that a second DNS answer cannot redirect it.
"""

import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, Self

import httpx

from shared.errors import ForbiddenURLError, SourceAbsentError, SourceUnreachableError
from shared.outbound import check_url
from worker.media.process import CancelToken

IPV4_EMBEDDING_NETWORKS: Final = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("::/96"))
"""IPv6 networks whose last 32 bits are an IPv4 address: RFC 6052 (NAT64) and RFC 4291 (deprecated)."""


@dataclass(frozen=True, slots=True)
class Target:
    """A URL that is pinned to a checked address."""

    url: str
    """The URL with the address in place of the host name."""
    host: str
    """Value of the ``Host`` header."""
    hostname: str
    """Name for SNI and the certificate."""


def resolve(url: str, *, allow_insecure: bool) -> Target:
    """
    Resolve *url* and pin it to one checked address.

    Args:
        allow_insecure: Accept ``http:`` and addresses that are not globally reachable.

    Raises:
        ForbiddenURLError: The URL or one of its addresses is not allowed.
        SourceAbsentError: There is no such host name.
        SourceUnreachableError: The host name could not be resolved just now.
    """
    parts = check_url(url, allow_insecure=allow_insecure)
    hostname = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    address = resolve_host(hostname, port, allow_insecure=allow_insecure)
    literal = f"[{address}]" if address.version == 6 else str(address)
    host = f"[{hostname}]" if ":" in hostname else hostname
    if parts.port is not None:
        host = f"{host}:{parts.port}"
    pinned = parts._replace(netloc=f"{literal}:{port}", fragment="").geturl()
    return Target(url=pinned, host=host, hostname=hostname)


def resolve_host(hostname: str, port: int, *, allow_insecure: bool) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """
    Resolve *hostname* and return one checked address, to which the connection must go.

    Args:
        allow_insecure: Accept addresses that are not globally reachable.

    Raises:
        ForbiddenURLError: One of its addresses is not allowed.
        SourceAbsentError: There is no such host name.
        SourceUnreachableError: The host name could not be resolved just now.
    """
    try:
        found = socket.getaddrinfo(hostname, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        is_absent = isinstance(error, UnicodeError) or error.errno == socket.EAI_NONAME
        kind = SourceAbsentError if is_absent else SourceUnreachableError
        raise kind("the URL's host name does not resolve") from error
    addresses = [ipaddress.ip_address(str(entry[4][0]).split("%")[0]) for entry in found]
    if not allow_insecure and not all(map(_is_public, addresses)):
        raise ForbiddenURLError("the URL leads to an address that is not publicly reachable")
    return addresses[0]


@contextmanager
def request(
    method: str,
    url: str,
    *,
    allow_insecure: bool,
    timeout_s: float,
    total_s: float,
    cancel_token: CancelToken | None = None,
    **arguments: Any,
) -> Iterator[httpx.Response]:
    """
    Send one request; yield the response, with its body unread and redirects not followed.

    Args:
        timeout_s: Timeout of each wait.
        total_s: Timeout of the whole exchange, the block included, also for a server that sends its answer slowly.
        cancel_token: Ends the exchange from another thread, as if it had taken too long.

    Raises:
        ForbiddenURLError: See ``resolve``.
        SourceAbsentError: There is no such host, or its certificate is not valid.
        SourceUnreachableError: There was no answer in time.
    """
    target = resolve(url, allow_insecure=allow_insecure)
    headers = {"Host": target.host, "User-Agent": "DeepfakeStream", **arguments.pop("headers", {})}
    # A proxy from the environment would resolve the host name again.
    with (
        _ConnectionDeadline(total_s, cancel_token or CancelToken()) as deadline,
        httpx.Client(timeout=min(timeout_s, total_s), trust_env=False, follow_redirects=False) as client,
    ):
        extensions = {"sni_hostname": target.hostname, "trace": deadline.track_connection}
        try:
            with client.stream(method, target.url, headers=headers, extensions=extensions, **arguments) as response:
                yield response
        except httpx.HTTPError as error:
            kind, why = _judge_error(error, has_expired=deadline.has_expired)
            raise kind(f"the URL's server could not be reached ({why})") from error


class _ConnectionDeadline:
    """Context manager that shuts its connection down after *after_s*: HTTPX limits single waits, not their sum."""

    def __init__(self, after_s: float, cancel_token: CancelToken) -> None:
        self._cancel_token = cancel_token
        self.has_expired = False
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._timer = threading.Timer(after_s, self._shut_down)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._timer.start()
        self._cancel_token.attach(self._shut_down)
        return self

    def __exit__(self, *_: object) -> None:
        self._cancel_token.detach()
        self._timer.cancel()

    def track_connection(self, event: str, info: dict[str, Any]) -> None:
        """Remember the socket of the connection; called by HTTPX's ``trace`` extension."""
        if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            with self._lock:
                self._socket = info["return_value"].get_extra_info("socket")
            if self.has_expired:
                self._shut_down()

    def _shut_down(self) -> None:
        with self._lock:
            self.has_expired = True
            if self._socket is not None:
                with suppress(OSError):
                    # The plain socket's method: that of a TLS socket would interfere with the thread that reads.
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


def _is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if any(address in network for network in IPV4_EMBEDDING_NETWORKS):
            inner = ipaddress.IPv4Address(address.packed[-4:])
        if inner is not None:
            return _is_public(inner)
    return address.is_global and not address.is_multicast and not address.is_reserved


def _judge_error(error: httpx.HTTPError, *, has_expired: bool) -> tuple[type[SourceUnreachableError], str]:
    """Return the error to raise for one of HTTPX, and why the server could not be reached."""
    if has_expired or isinstance(error, httpx.TimeoutException):
        return SourceUnreachableError, "it took too long"
    if not isinstance(error, httpx.ConnectError):
        return SourceUnreachableError, "the exchange broke off"
    # HTTPX and the library below it each raise an error of their own while they handle that of the system.
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ConnectionRefusedError):
            return SourceUnreachableError, "it refuses connections"
        if isinstance(cause, ssl.SSLCertVerificationError):
            return SourceAbsentError, "it has no valid certificate for its name"
        cause = cause.__cause__ or cause.__context__
    return SourceUnreachableError, "no connection"
