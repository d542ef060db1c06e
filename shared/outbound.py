"""Checks of the form of URLs from clients. Their destination is checked when the request is made."""

from collections.abc import Collection
from typing import Final
from urllib.parse import SplitResult, urlsplit

from shared.errors import ForbiddenURLError

MAX_URL_CHARACTERS = 2048
STREAM_SCHEMES: Final = ("https", "rtsp", "rtsps", "rtmp", "rtmps", "srt")
INSECURE_STREAM_SCHEMES: Final = ("http", "udp")
WEBRTC_SCHEMES: Final = ("whep", "wheps", "webrtc")


def check_url(url: str, *, allow_insecure: bool) -> SplitResult:
    """
    Check the form of a URL that a client gave.

    Args:
        allow_insecure: Accept ``http:`` in addition to ``https:``.

    Raises:
        ForbiddenURLError: The URL is not acceptable; the message says why.
    """
    return _check_form(url, ("https", "http") if allow_insecure else ("https",))


def check_source_url(url: str, *, allow_insecure: bool) -> SplitResult:
    """
    Check the form of the address of a live stream.

    HLS is read from ``https:``; ``rtsp:``, ``rtsps:``, ``rtmp:``, ``rtmps:`` and ``srt:`` are read as they are.

    Args:
        allow_insecure: Accept ``http:``, and ``udp://@:port`` for a transport stream that is sent to this machine.

    Raises:
        ForbiddenURLError: The URL is not acceptable; the message says why.
    """
    if url.partition(":")[0].lower() in WEBRTC_SCHEMES:
        raise ForbiddenURLError(
            "streams are not pulled over WebRTC; publish it to a media server, and give that server's RTSP or HLS URL"
        )
    parts = _check_form(url, (*STREAM_SCHEMES, *(INSECURE_STREAM_SCHEMES if allow_insecure else ())))
    if parts.scheme in ("srt", "udp") and parts.port is None:
        raise ForbiddenURLError(f"the URL has no port, which {parts.scheme}:// needs")
    if parts.fragment:
        raise ForbiddenURLError("the URL has a fragment (#), which means nothing in the address of a stream")
    return parts


def _check_form(url: str, schemes: Collection[str]) -> SplitResult:
    if len(url) > MAX_URL_CHARACTERS:
        raise ForbiddenURLError(f"the URL is longer than {MAX_URL_CHARACTERS} characters")
    if not url.isascii():
        raise ForbiddenURLError("the URL contains characters that have to be percent-encoded or, in a host, punycode")
    if any(character.isspace() or not character.isprintable() for character in url) or "\\" in url:
        raise ForbiddenURLError("the URL contains white space, control characters or a backslash")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ForbiddenURLError("the URL is malformed") from error
    if parts.scheme not in schemes:
        raise ForbiddenURLError(f"the URL must begin with {' or '.join(f'{name}://' for name in schemes)}")
    # "udp://@:port" is the usual way to write "any address of this machine".
    is_any_address = parts.scheme == "udp" and parts.netloc.startswith("@") and parts.netloc.count("@") == 1
    if not host and not is_any_address:
        raise ForbiddenURLError("the URL has no host")
    if port == 0:
        raise ForbiddenURLError("the URL names port 0")
    if not is_any_address and (parts.username is not None or parts.password is not None):
        raise ForbiddenURLError("the URL contains credentials")
    return parts
