"""Addresses of services: validation, and comparison by origin."""

import ipaddress
import re
import socket

import httpx

from deepfakestream.errors import AddressError

_HOST = re.compile(r"[A-Za-z0-9.-]+(:[0-9]+)?(/[^@\s]*)?")
"""A host with perhaps a port and a path, as people type it."""
_DEFAULT_PORTS = {"http": 80, "https": 443}

Origin = tuple[str, str, int]
"""Scheme, host in lower case, and port. An API key that was created for one origin is sent to no other."""


def parse_origin(url: str) -> Origin:
    """
    Return the origin of *url*, by which browsers, too, compare addresses.

    Raises:
        AddressError: It is not the address of a service: not http or https, without a host, or with a user name.
    """
    if "://" not in url and _HOST.fullmatch(url):
        # "localhost:8000" would otherwise be an address of the scheme "localhost".
        scheme = "http" if is_loopback(url.partition("/")[0].rpartition(":")[0] or url) else "https"
        raise AddressError(f"{url!r} is not the address of a service: it has no scheme, write {scheme}://{url}")
    try:
        parsed = httpx.URL(url)
        port = parsed.port or _DEFAULT_PORTS.get(parsed.scheme)
    except (httpx.InvalidURL, ValueError, TypeError) as error:
        raise AddressError(f"{url!r} is not the address of a service: {error}") from error
    if parsed.scheme not in _DEFAULT_PORTS or not parsed.host or port is None or not 0 < port < 65536:
        raise AddressError(f"{url!r} is not the address of a service: give one such as https://deepfakes.example")
    if parsed.userinfo:
        # It would be sent instead of the key. The address is not quoted, since it may contain a password.
        raise AddressError(
            "the address of a service has no user name or password: leave them out, services accept API keys only"
        )
    return parsed.scheme, parsed.host.lower(), port


def is_loopback(host: str) -> bool:
    """
    Whether *host* is this machine itself, in any form that resolvers accept.

    These are ``localhost`` and names below it (RFC 6761), loopback addresses, including short ones such as ``127.1``
    and those mapped into IPv6, and the unspecified address, which systems connect to loopback. Other names are not
    resolved.
    """
    name = host.lower().removesuffix(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        try:
            address = ipaddress.IPv4Address(socket.inet_aton(name))
        except OSError:
            return False
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_unspecified
