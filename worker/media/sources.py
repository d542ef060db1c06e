"""Downloads of URL sources, limited in size and time and to checked addresses."""

import time
from urllib.parse import urljoin, urlsplit

from shared.errors import ForbiddenURLError, SourceRefusedError, TooLargeError
from shared.storage import BLOCK_BYTES, Upload
from worker.outbound import request

MAX_REDIRECTS = 3


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
        SourceUnreachableError: No server, or not in time.
        TooLargeError: The file exceeds *max_bytes*.
    """
    deadline = time.monotonic() + timeout_s
    host = urlsplit(url).hostname
    for _ in range(MAX_REDIRECTS + 1):
        with request(
            "GET",
            url,
            allow_insecure=allow_insecure,
            timeout_s=30.0,
            total_s=max(0.1, deadline - time.monotonic()),
            # A compressed body could unpack to anything; media gains nothing from it.
            headers={"Accept-Encoding": "identity"},
        ) as response:
            if response.has_redirect_location:
                url = _resolve_redirect(url, response.headers["location"])
                if urlsplit(url).hostname != host:
                    raise ForbiddenURLError("the URL redirects to another host")
                continue
            if response.status_code != 200:
                raise SourceRefusedError(f"the URL's server answered {response.status_code}")
            # HTTPX has rejected lengths that are not at most 20 ASCII digits.
            if int(response.headers.get("content-length", "0")) > max_bytes:
                raise _too_large_error(max_bytes)
            for block in response.iter_raw(BLOCK_BYTES):
                upload.write(block)
                if upload.size_bytes > max_bytes:
                    raise _too_large_error(max_bytes)
            return
    raise SourceRefusedError(f"the URL redirects more than {MAX_REDIRECTS} times")


def _resolve_redirect(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError as error:
        raise SourceRefusedError("the URL redirects to an invalid URL") from error


def _too_large_error(max_bytes: int) -> TooLargeError:
    return TooLargeError(f"the file at the URL is larger than the limit max_upload_bytes, {max_bytes}")
