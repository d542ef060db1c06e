"""Checks of the form of URLs from clients. Their destination is checked when the request is made."""

from urllib.parse import SplitResult, urlsplit

from shared.errors import ForbiddenURLError

MAX_URL_CHARACTERS = 2048


def check_url(url: str, *, allow_insecure: bool) -> SplitResult:
    """
    Check the form of a URL that a client gave.

    Args:
        allow_insecure: Accept ``http:`` in addition to ``https:``.

    Raises:
        ForbiddenURLError: The URL is not acceptable; the message says why.
    """
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
    schemes = ("https", "http") if allow_insecure else ("https",)
    if parts.scheme not in schemes:
        raise ForbiddenURLError(f"the URL must begin with {' or '.join(f'{name}://' for name in schemes)}")
    if not host:
        raise ForbiddenURLError("the URL has no host")
    if port == 0:
        raise ForbiddenURLError("the URL names port 0")
    if parts.username is not None or parts.password is not None:
        raise ForbiddenURLError("the URL contains credentials")
    return parts
