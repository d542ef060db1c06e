"""Downloads of URL sources, limited in size and time and to checked addresses."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import urljoin, urlsplit

import httpx

from shared.errors import ForbiddenURLError, SourceRefusedError, TooLargeError
from shared.storage import BLOCK_BYTES, Upload
from worker.media.process import CancelToken
from worker.outbound import request

MAX_REDIRECTS = 3
LIMIT_NAME = "max_upload_bytes"


def fetch(url: str, upload: Upload, *, max_bytes: int, timeout_s: float, allow_insecure: bool) -> None:
    """
    Write what *url* serves into *upload*; the caller commits or aborts it.

    Redirects are followed within the same host only, each checked like the first address.

    Args:
        max_bytes: More than this is refused, whatever the server announced.
        timeout_s: Wall-clock limit of the whole fetch.

    Raises:
        ForbiddenURLError: The URL, or where it redirects, is not allowed.
        SourceRefusedError: The server answered with anything but the file.
        SourceAbsentError: There is no such server.
        SourceUnreachableError: No answer, or not in time.
        TooLargeError: The file exceeds *max_bytes*.
    """
    with follow(url, timeout_s=timeout_s, allow_insecure=allow_insecure) as response:
        if response.status_code != 200:
            raise SourceRefusedError(f"the URL's server answered {response.status_code}")
        for block in read_bounded(response, max_bytes, f"the file at the URL is larger than the limit {LIMIT_NAME}"):
            upload.write(block)


@contextmanager
def follow(
    url: str,
    *,
    timeout_s: float,
    allow_insecure: bool,
    headers: Mapping[str, str] | None = None,
    cancel_token: CancelToken | None = None,
) -> Iterator[httpx.Response]:
    """
    Request *url*, follow redirects within the same host, each checked like the first address; yield the answer.

    Args:
        timeout_s: Wall-clock limit of all requests and of the block.
        headers: Sent with each request.
        cancel_token: Ends the exchange from another thread.

    Raises:
        ForbiddenURLError: The URL, or where it redirects, is not allowed.
        SourceRefusedError: There were too many redirects.
        SourceAbsentError: There is no such server.
        SourceUnreachableError: The server did not answer, or not in time.
    """
    deadline = time.monotonic() + timeout_s
    first = urlsplit(url)
    for _ in range(MAX_REDIRECTS + 1):
        with request(
            "GET",
            url,
            allow_insecure=allow_insecure,
            timeout_s=30.0,
            total_s=max(0.1, deadline - time.monotonic()),
            cancel_token=cancel_token,
            # A compressed body could unpack to anything; media gains nothing from it.
            headers={"Accept-Encoding": "identity", **(headers or {})},
        ) as response:
            if not response.has_redirect_location:
                yield response
                return
            url = _resolve_redirect(url, response.headers["location"])
            if urlsplit(url).hostname != first.hostname:
                raise ForbiddenURLError("the URL redirects to another host")
            if headers and urlsplit(url)[:2] != first[:2]:
                # Another port is another server, which must not get the credentials.
                headers = {name: value for name, value in headers.items() if name != "Authorization"}
    raise SourceRefusedError(f"the URL redirects more than {MAX_REDIRECTS} times")


def read_bounded(response: httpx.Response, max_bytes: int, refusal: str) -> Iterator[bytes]:
    """Yield the body of *response*. Raises TooLargeError, which says *refusal*, beyond *max_bytes*."""
    # HTTPX has rejected lengths that are not at most 20 ASCII digits.
    if int(response.headers.get("content-length", "0")) > max_bytes:
        raise TooLargeError(f"{refusal}, {max_bytes}")
    count = 0
    for block in response.iter_raw(BLOCK_BYTES):
        count += len(block)
        if count > max_bytes:
            raise TooLargeError(f"{refusal}, {max_bytes}")
        yield block


def _resolve_redirect(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError as error:
        raise SourceRefusedError("the URL redirects to an invalid URL") from error
