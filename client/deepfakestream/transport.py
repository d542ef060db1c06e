"""HTTP requests of the SDK: sent with retries, and their answers parsed."""

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, TypeVar

import httpx

from deepfakestream.addresses import is_loopback, parse_origin
from deepfakestream.drivers import Driver, HTTPConnection
from deepfakestream.errors import (
    AddressError,
    APIError,
    ConnectionFailedError,
    DeepfakeStreamError,
    InvalidRequestError,
    MissingPartError,
    error_from_response,
    redirection_error,
    unexpected_answer_error,
)
from deepfakestream.retries import FailedAttemptError, RetrySafety, read_retry_after, send_with_retries

USER_AGENT = "deepfakestream-client"
RETRIED_STATUSES = frozenset({429, 502, 503, 504})
NOT_PROCESSED_STATUSES = frozenset({429})
"""Answers to a request that was not processed. After the others it may have been: a proxy may have lost the answer."""
NOT_SENT_ERRORS = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
"""Errors that HTTPX raises before the request is sent."""
GRACE_S = 5.0
"""How many seconds after the caller's time limit an answer may arrive that the service held back until then."""

_Kept = TypeVar("_Kept")
Content = Callable[[], AsyncGenerator[bytes, None]]
"""Makes the body of a request; called again for each attempt."""


class Transport:
    """
    A connection to one service with one API key.

    Redirections are not followed, since the key is meant for the given address alone. Requests to this machine itself
    are sent without a proxy, which would see the key.

    Args:
        base_url: Address of the service.
        api_key: API key for that service.
        timeout_s: Limit in seconds of a single wait on the connection.
        retries: How often a request is sent again at most.
        driver: Does what requests wait for.

    Raises:
        AddressError: *base_url* is not the address of a service, or *api_key* cannot be a key.
        MissingPartError: The proxy or the certificates that the environment names cannot be used.
    """

    def __init__(self, base_url: str, api_key: str, *, timeout_s: float, retries: int, driver: Driver) -> None:
        _, host, _ = parse_origin(base_url)
        if not api_key or not (api_key.isascii() and api_key.isprintable()) or " " in api_key:
            raise AddressError(
                "an API key has only visible ASCII characters, such as dfs_…: give one that the service issued"
            )
        self.base_url = base_url
        self.driver = driver
        self._is_local = is_loopback(host)
        self._retries = retries
        self._timeout_s = timeout_s
        self._http = self._connect(
            base_url=base_url, headers={"Authorization": f"Bearer {api_key}"}, trust_env=not self._is_local
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._http.close()

    async def call(
        self,
        method: str,
        path: str,
        *,
        wait_s: float = 0.0,
        within_s: float | None = None,
        make_content: Content | None = None,
        safety: RetrySafety = RetrySafety.SAFE,
        has_answer: bool = True,
        **arguments: Any,
    ) -> Any:
        """
        Send a request, and send it again after transient errors.

        Args:
            method: HTTP method.
            path: Path of the request, below the address of the service.
            wait_s: Seconds for which the service may hold its answer back.
            within_s: No attempt begins later than this many seconds after the first; no limit by default.
            make_content: Makes the body, if the request has one that is streamed.
            safety: Whether the request may be sent again if the service may have processed it.
            has_answer: Whether a success has a document; otherwise its status must be 204.
            arguments: Further arguments of ``httpx.Client.request``.

        Returns:
            The parsed answer; None if it has no body.

        Raises:
            ConnectionFailedError: The service did not answer.
            InvalidRequestError: The request cannot be sent.
            APIError: The answer is not a success, or is not JSON.
        """
        timeout = httpx.Timeout(self._timeout_s, read=wait_s + 30.0 if wait_s else self._timeout_s)
        if within_s is not None:
            limit_s = max(0.0, within_s) + GRACE_S
            timeout = httpx.Timeout(min(self._timeout_s, limit_s), read=min(timeout.read or limit_s, limit_s))

        async def send() -> Any:
            with _as_failed_attempts(f"from {self.base_url}", safety):
                response = await _request(self._http, method, path, make_content, timeout=timeout, **arguments)
            if response.is_success:
                return _parse_json(response) if has_answer else _check_empty(response)
            raise FailedAttemptError(
                _error_of(response),
                is_transient=response.status_code in RETRIED_STATUSES,
                may_be_processed=response.status_code not in NOT_PROCESSED_STATUSES,
                retry_after_s=_retry_after_s(response),
            )

        return await self._send(send, safety=safety, within_s=within_s)

    async def download(self, path: str, target: Path, *, media_type: str) -> None:
        """
        Write the answer to a GET request to the file *target*, block by block.

        Args:
            media_type: The type that the answer has to have.

        Raises:
            ConnectionFailedError: No answer, or one that broke off as often as it was asked for.
            APIError: An answer other than a success, or one of another type.
            OSError: The file cannot be written.
        """

        async def write(blocks: AsyncGenerator[bytes, None]) -> None:
            with await self.driver.call(target.open, "wb") as file:
                async for block in blocks:
                    await self.driver.call(file.write, block)

        await self._receive(path, media_type, write)

    async def read(self, path: str, *, media_type: str, max_bytes: int) -> bytes:
        """
        Return the content of the answer to a GET request.

        Args:
            media_type: The type that the answer has to have.
            max_bytes: The most bytes that it may have; no more are kept.

        Raises:
            ConnectionFailedError: No answer, or one that broke off as often as it was asked for.
            APIError: An answer other than a success, one of another type, or one that is too long.
        """

        async def collect(blocks: AsyncGenerator[bytes, None]) -> bytes:
            content = bytearray()
            async for block in blocks:
                content += block
                if len(content) > max_bytes:
                    raise unexpected_answer_error(200, f"it has more than {max_bytes} bytes")
            return bytes(content)

        return await self._receive(path, media_type, collect)

    async def _receive(
        self, path: str, media_type: str, keep: Callable[[AsyncGenerator[bytes, None]], Awaitable[_Kept]]
    ) -> _Kept:
        """Return what *keep* makes of the blocks of the answer to a GET request; it is called for each attempt."""

        async def send() -> _Kept:
            with _as_failed_attempts(f"from {self.base_url}", RetrySafety.SAFE):
                async with self._http.stream("GET", path, timeout=self._timeout_s) as response:
                    kind = response.headers.get("content-type", "of no named type")
                    if response.is_success and kind == media_type:
                        async with aclosing(self._http.read_blocks(response)) as blocks:
                            return await keep(blocks)
                    await self._http.read_all(response)
            if response.is_success:
                raise unexpected_answer_error(response.status_code, f"{kind}, where {media_type} is expected")
            raise FailedAttemptError(
                _error_of(response),
                is_transient=response.status_code in RETRIED_STATUSES,
                may_be_processed=response.status_code not in NOT_PROCESSED_STATUSES,
                retry_after_s=_retry_after_s(response),
            )

        kept: _Kept = await self._send(send)
        return kept

    async def put(self, upload: Any, make_content: Content, size_bytes: int) -> str:
        """
        Send a file to the address of a direct upload, without the API key, since it may be another server.

        The address has a signature or a token of its own. As for the service, no proxy is used for one on this machine.

        Args:
            upload: The document of the direct upload, as the service answered it.
            make_content: Makes the content of the file.
            size_bytes: Its length.

        Returns:
            The id of the upload.

        Raises:
            ConnectionFailedError: The server did not answer.
            APIError: It refused the file, or *upload* names no acceptable address. Only a service on this
                machine may name an address on this machine; others must not reach the programs here.
        """
        try:
            upload_id, method, url = (str(upload[name]) for name in ("id", "method", "url"))
            headers = {str(name): str(value) for name, value in upload["headers"].items()}
            scheme, host, _ = parse_origin(url)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise unexpected_answer_error(201, "it names no place for the file") from error
        if not any(name.lower() == "content-length" for name in headers):
            # Storage accepts no body of unknown length.
            headers["Content-Length"] = str(size_bytes)
        if method != "PUT":
            raise unexpected_answer_error(201, "it asks for another method than PUT for the file")
        is_local = is_loopback(host)
        if is_local and not self._is_local:
            # Its own address is what the request's Host says, which some proxies replace by theirs.
            raise unexpected_answer_error(
                201,
                "it names a place on this machine for the file, and is itself elsewhere; a proxy in front of it has to"
                " pass on the header Host",
            )
        own_scheme, own_host, _ = parse_origin(self.base_url)
        if host == own_host and scheme == "http" and own_scheme == "https":
            raise unexpected_answer_error(
                201,
                "it names an address of its own without TLS for the file, because it does not trust the proxy in front"
                " of it: its operator has to set api.trusted_proxies",
            )
        storage = self._connect(trust_env=not is_local)

        async def send() -> str:
            with _as_failed_attempts("from the service's storage", RetrySafety.SAFE, status=201):
                response = await _request(storage, "PUT", url, make_content, headers=headers)
            if response.is_success:
                return upload_id
            status = response.status_code
            raise FailedAttemptError(
                _error_of_storage(response),
                is_transient=status in NOT_PROCESSED_STATUSES or status >= 500,
                retry_after_s=_retry_after_s(response),
            )

        try:
            return str(await self._send(send))
        finally:
            await storage.close()

    async def _send(
        self,
        send: Callable[[], Awaitable[Any]],
        *,
        safety: RetrySafety = RetrySafety.SAFE,
        within_s: float | None = None,
    ) -> Any:
        return await send_with_retries(send, self.driver.sleep, retries=self._retries, safety=safety, within_s=within_s)

    def _connect(self, *, trust_env: bool, headers: dict[str, str] | None = None, base_url: str = "") -> HTTPConnection:
        try:
            return self.driver.connect(
                base_url=base_url,
                headers={"User-Agent": USER_AGENT, **(headers or {})},
                timeout=self._timeout_s,
                follow_redirects=False,
                trust_env=trust_env,
            )
        except (httpx.InvalidURL, ValueError, ImportError, OSError) as error:
            # A proxy of an unknown kind, a proxy whose package is not installed, or a file that does not exist.
            raise MissingPartError(
                f"the proxy or the certificates that the environment names cannot be used ({error}): correct"
                " HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, SSL_CERT_FILE or SSL_CERT_DIR"
            ) from error


async def _request(
    http: HTTPConnection, method: str, url: str, make_content: Content | None, **arguments: Any
) -> httpx.Response:
    if make_content is None:
        return await http.request(method, url, content=None, **arguments)
    # Closed here, since a server may answer before it has read all.
    async with aclosing(make_content()) as content:
        return await http.request(method, url, content=content, **arguments)


@contextlib.contextmanager
def _as_failed_attempts(source: str, safety: RetrySafety, *, status: int = 200) -> Iterator[None]:
    """Turn errors of HTTPX into failed attempts; *status* is reported for an answer that cannot be decoded."""
    error: DeepfakeStreamError
    try:
        yield
    except httpx.LocalProtocolError as cause:
        error = InvalidRequestError(422, "invalid_request", f"the request cannot be sent: {cause}")
        raise FailedAttemptError(error, is_transient=False) from cause
    except (httpx.InvalidURL, UnicodeError) as cause:
        error = InvalidRequestError(422, "invalid_request", "an option or an id cannot be sent")
        raise FailedAttemptError(error, is_transient=False) from cause
    except httpx.DecodingError as cause:
        error = unexpected_answer_error(status, "its content is not encoded as it says")
        raise FailedAttemptError(error, is_transient=False) from cause
    except httpx.RequestError as cause:
        may_be_processed = not isinstance(cause, NOT_SENT_ERRORS)
        message = f"no answer {source} ({type(cause).__name__})"
        if may_be_processed and safety is RetrySafety.UNSAFE:
            message += "; the service may have processed the request, so it was not sent again"
        error = ConnectionFailedError(message)
        raise FailedAttemptError(error, is_transient=True, may_be_processed=may_be_processed) from cause


def _error_of(response: httpx.Response) -> APIError:
    request_id = response.headers.get("x-request-id")
    if response.has_redirect_location:
        return redirection_error(response.status_code, response.headers["location"])
    body = None
    with contextlib.suppress(ValueError, RecursionError):
        body = response.json()
    return error_from_response(response.status_code, body, request_id, _retry_after_s(response))


def _error_of_storage(response: httpx.Response) -> APIError:
    """Return the error for a refused file: that of the service, if it takes files itself."""
    if response.headers.get("content-type", "").partition(";")[0] == "application/problem+json":
        return _error_of(response)
    # The body of another server is left out: that of S3 is XML, and names internals of the service.
    return error_from_response(response.status_code, None, None, _retry_after_s(response))


def _parse_json(response: httpx.Response) -> Any:
    if not response.content:
        return None
    try:
        return response.json()
    except (ValueError, RecursionError) as error:
        kind = response.headers.get("content-type", "of no named type")
        why = f"status {response.status_code}, {kind}, and no JSON"
        raise unexpected_answer_error(response.status_code, why, response.headers.get("x-request-id")) from error


def _check_empty(response: httpx.Response) -> None:
    """Check that the answer is 204, which alone confirms that the request was processed."""
    if response.status_code != 204:
        why = f"status {response.status_code}, where 204 was expected"
        raise unexpected_answer_error(response.status_code, why, response.headers.get("x-request-id"))


def _retry_after_s(response: httpx.Response) -> float | None:
    return read_retry_after(response.headers.get("retry-after", ""))
