"""Requests of the SDK: sent, repeated where that can help and does no harm, and their answers read."""

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Any

import httpx

from deepfakestream.addresses import is_loopback, origin
from deepfakestream.errors import (
    AddressError,
    APIError,
    ConnectionFailedError,
    InvalidRequestError,
    NotFoundError,
    error_from_response,
    redirected,
    unreadable,
)

USER_AGENT = "deepfakestream-client"
RETRIED_STATUSES = frozenset({429, 502, 503, 504})
UNDONE_STATUSES = frozenset({429})
"""Answers which say that nothing was done; behind the others a proxy may have lost that of the service."""
UNSENT_ERRORS = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
"""Failures before the request was sent."""
LONGEST_PAUSE_S = 60.0
_SECONDS = re.compile(r"[0-9]{1,9}", re.ASCII)

Content = Callable[[], Iterator[bytes]]
"""Makes a request's body, anew for each attempt."""


class Repetition(Enum):
    """What a request that may have been carried out allows."""

    SAFE = "safe"
    """It can be sent again, with the same outcome."""
    GONE_IS_DONE = "gone is done"
    """It can be sent again, and what it would remove may then be gone already."""
    UNSAFE = "unsafe"
    """It would be carried out twice, so it is sent again only if it surely was not."""


class Transport:
    """
    A connection to one service, by one key.

    Redirections are not followed: the key is for the address that was given. To this machine itself requests go
    without a proxy, which would see the key.

    Args:
        base_url: Of the service.
        api_key: Of it.
        timeout_s: Of a single wait on the connection.
        retries: How often a request is repeated.

    Raises:
        AddressError: *base_url* is no address of a service, or *api_key* can be no key.
    """

    def __init__(self, base_url: str, api_key: str, *, timeout_s: float, retries: int) -> None:
        _, host, _ = origin(base_url)
        if not api_key or not (api_key.isascii() and api_key.isprintable()) or " " in api_key:
            raise AddressError("an API key consists of letters, digits and signs of ASCII, such as dfs_…")
        self.base_url = base_url
        self._is_here = is_loopback(host)
        self._retries = retries
        self._timeout_s = timeout_s
        self._http = httpx.Client(
            base_url=base_url,
            headers={"Authorization": f"Bearer {api_key}", "User-Agent": USER_AGENT},
            timeout=timeout_s,
            follow_redirects=False,
            trust_env=not self._is_here,
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def call(
        self,
        method: str,
        path: str,
        *,
        wait_s: float = 0.0,
        make_content: Content | None = None,
        repetition: Repetition = Repetition.SAFE,
        **arguments: Any,
    ) -> Any:
        """
        Send a request, repeating it where that can help.

        Args:
            wait_s: How long the service may hold its answer.
            repetition: Whether it may be sent again when its answer was lost.

        Returns:
            The parsed answer; None if it has no body.

        Raises:
            ConnectionFailedError: No answer.
            APIError: An answer other than a success, or one that is no JSON.
        """
        if wait_s:
            arguments["timeout"] = httpx.Timeout(self._timeout_s, read=wait_s + 30.0)
        is_perhaps_done = False
        for attempt in range(self._retries + 1):
            is_last = attempt == self._retries
            try:
                content = None if make_content is None else make_content()
                response = self._http.request(method, path, content=content, **arguments)
            except (httpx.InvalidURL, UnicodeError) as error:
                raise InvalidRequestError(422, "invalid_request", "an option or an id cannot be sent") from error
            except httpx.DecodingError as error:
                raise unreadable(200, "its content is not encoded as it says") from error
            except httpx.RequestError as error:
                is_perhaps_done = is_perhaps_done or not isinstance(error, UNSENT_ERRORS)
                if is_last or (is_perhaps_done and repetition is Repetition.UNSAFE):
                    raise ConnectionFailedError(_silence(self.base_url, error, is_perhaps_done, repetition)) from error
                time.sleep(_pause_s(attempt, None))
                continue
            if response.is_success:
                return _parsed(response)
            refusal = _refusal(response)
            if isinstance(refusal, NotFoundError) and is_perhaps_done and repetition is Repetition.GONE_IS_DONE:
                # An attempt whose answer was lost removed it.
                return None
            is_perhaps_done = is_perhaps_done or response.status_code not in UNDONE_STATUSES
            may_repeat = not (is_perhaps_done and repetition is Repetition.UNSAFE)
            if response.status_code not in RETRIED_STATUSES or is_last or not may_repeat:
                raise refusal
            time.sleep(_pause_s(attempt, _retry_after_s(response)))
        raise AssertionError("unreachable: the last attempt returns or raises")

    def put(self, upload: Any, make_content: Content) -> str:
        """
        Put a file where the service said, without the API key: that address is not the service's own.

        As with the service, no proxy is asked for what goes to this machine.

        Args:
            upload: The document of the place that the service named.

        Returns:
            Its id.

        Raises:
            ConnectionFailedError: No answer.
            APIError: The storage refuses, or the service named no place that takes a file. Only a service on this
                machine can name a place on this machine: another one has no business with the programs here.
        """
        try:
            upload_id, method, url = (str(upload[name]) for name in ("id", "method", "url"))
            headers = {str(name): str(value) for name, value in upload["headers"].items()}
            _, host, _ = origin(url)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise unreadable(201, "it names no place for the file") from error
        if method != "PUT":
            raise unreadable(201, "it asks for another method than PUT for the file")
        is_here = is_loopback(host)
        if is_here and not self._is_here:
            raise unreadable(201, "it names a place on this machine for the file, and is itself elsewhere")
        with httpx.Client(
            timeout=self._timeout_s, headers={"User-Agent": USER_AGENT}, trust_env=not is_here
        ) as storage:
            for attempt in range(self._retries + 1):
                is_last = attempt == self._retries
                try:
                    response = storage.put(url, headers=headers, content=make_content())
                except httpx.RequestError as error:
                    if is_last:
                        kind = type(error).__name__
                        raise ConnectionFailedError(f"no answer from the service's storage ({kind})") from error
                else:
                    if response.is_success:
                        return upload_id
                    if response.status_code < 500 or is_last:
                        # Its body is XML, and names things of the service's inside.
                        raise error_from_response(response.status_code, None, None, None)
                time.sleep(_pause_s(attempt, None))
        raise AssertionError("unreachable: the last attempt returns or raises")


def _silence(url: str, error: httpx.RequestError, is_perhaps_done: bool, repetition: Repetition) -> str:
    said = f"no answer from {url} ({type(error).__name__})"
    if is_perhaps_done and repetition is Repetition.UNSAFE:
        said += "; it may have been carried out, so it was not sent again"
    return said


def _refusal(response: httpx.Response) -> APIError:
    request_id = response.headers.get("x-request-id")
    if response.has_redirect_location:
        return redirected(response.status_code, response.headers["location"])
    body = None
    with contextlib.suppress(ValueError, RecursionError):
        body = response.json()
    return error_from_response(response.status_code, body, request_id, _retry_after_s(response))


def _parsed(response: httpx.Response) -> Any:
    if not response.content:
        return None
    try:
        return response.json()
    except (ValueError, RecursionError) as error:
        kind = response.headers.get("content-type", "of no named type")
        why = f"status {response.status_code}, {kind}, and no JSON"
        raise unreadable(response.status_code, why, response.headers.get("x-request-id")) from error


def _pause_s(attempt: int, retry_after_s: float | None) -> float:
    return min(LONGEST_PAUSE_S, retry_after_s if retry_after_s is not None else 0.25 * 2**attempt)


def _retry_after_s(response: httpx.Response) -> float | None:
    """Seconds, from either form of RFC 9110; None if the header is missing or has neither."""
    value = response.headers.get("retry-after", "").strip()
    if _SECONDS.fullmatch(value):
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
        return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
