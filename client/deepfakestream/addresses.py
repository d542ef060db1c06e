"""Addresses of services: what is one, and when two are the same place."""

import ipaddress
import socket

import httpx

from deepfakestream.errors import AddressError

_PORTS = {"http": 80, "https": 443}

Origin = tuple[str, str, int]
"""Scheme, host in lower case, and port: a key that was made for one is sent to no other."""


def parse_origin(url: str) -> Origin:
    """
    The origin of *url*, as browsers compare them.

    Raises:
        AddressError: It is no address of a service: not http or https, without a host, or with a user's name.
    """
    try:
        found = httpx.URL(url)
        port = found.port or _PORTS.get(found.scheme)
    except (httpx.InvalidURL, ValueError, TypeError) as error:
        raise AddressError(f"{url!r} is no address of a service: {error}") from error
    if found.scheme not in _PORTS or not found.host or port is None or not 0 < port < 65536:
        raise AddressError(f"{url!r} is no address of a service, such as https://deepfakes.example")
    if found.userinfo:
        # It would be sent in place of the key. The address is not quoted: it may hold a password.
        raise AddressError("the address of a service has no user name or password: services take API keys alone")
    return found.scheme, found.host.lower(), port


def is_loopback(host: str) -> bool:
    """
    Whether *host* is this machine itself, in any form in which resolvers take it.

    These are ``localhost`` and names below it (RFC 6761), loopback addresses, short ones such as ``127.1`` and those
    mapped into IPv6 included, and the unspecified address, which systems connect to loopback. A name of another kind
    is not looked up.
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
