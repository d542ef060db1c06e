"""Requests of the SDK: sent, repeated where that can help and does no harm, and their answers read."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

from deepfakestream.addresses import is_loopback, origin
from deepfakestream.errors import (
    AddressError,
    APIError,
    ConnectionFailedError,
    DeepfakeStreamError,
    InvalidRequestError,
    MissingPartError,
    error_from_response,
    redirected,
    unreadable,
)
from deepfakestream.repetition import FailedAttemptError, Repetition, read_retry_after, repeat

USER_AGENT = "deepfakestream-client"
RETRIED_STATUSES = frozenset({429, 502, 503, 504})
UNDONE_STATUSES = frozenset({429})
"""Answers which say that nothing was done; behind the others a proxy may have lost that of the service."""
UNSENT_ERRORS = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
"""Failures before the request was sent."""
GRACE_S = 5.0
"""How much later than a caller's time limit an answer may come that the service held until then."""

Content = Callable[[], Iterator[bytes]]
"""Makes a request's body, anew for each attempt."""


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
        MissingPartError: The proxy or the certificates that the environment names cannot be used.
    """

    def __init__(self, base_url: str, api_key: str, *, timeout_s: float, retries: int) -> None:
        _, host, _ = origin(base_url)
        if not api_key or not (api_key.isascii() and api_key.isprintable()) or " " in api_key:
            raise AddressError("an API key consists of letters, digits and signs of ASCII, such as dfs_…")
        self.base_url = base_url
        self._is_here = is_loopback(host)
        self._retries = retries
        self._timeout_s = timeout_s
        self._http = self._connect(
            base_url=base_url, headers={"Authorization": f"Bearer {api_key}"}, trust_env=not self._is_here
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
        within_s: float | None = None,
        make_content: Content | None = None,
        repetition: Repetition = Repetition.SAFE,
        has_answer: bool = True,
        **arguments: Any,
    ) -> Any:
        """
        Send a request, repeating it where that can help.

        Args:
            wait_s: How long the service may hold its answer.
            within_s: For how long it is tried; as long as ``retries`` allow by default.
            repetition: Whether it may be sent again when its answer was lost.
            has_answer: Whether a success has a document; otherwise it is status 204.

        Returns:
            The parsed answer; None if it has no body.

        Raises:
            ConnectionFailedError: No answer.
            InvalidRequestError: It cannot be sent.
            APIError: An answer other than a success, or one that is no JSON.
        """
        timeout = httpx.Timeout(self._timeout_s, read=wait_s + 30.0 if wait_s else self._timeout_s)
        if within_s is not None:
            limit_s = max(0.0, within_s) + GRACE_S
            timeout = httpx.Timeout(min(self._timeout_s, limit_s), read=min(timeout.read or limit_s, limit_s))

        def send() -> Any:
            content = None if make_content is None else make_content()
            with _failures(f"from {self.base_url}", repetition):
                response = self._http.request(method, path, content=content, timeout=timeout, **arguments)
            if response.is_success:
                return _parsed(response) if has_answer else _check_empty(response)
            raise FailedAttemptError(
                _refusal(response),
                can_be_cured=response.status_code in RETRIED_STATUSES,
                is_perhaps_done=response.status_code not in UNDONE_STATUSES,
                retry_after_s=_retry_after_s(response),
            )

        return repeat(send, retries=self._retries, repetition=repetition, within_s=within_s)

    def download(self, path: str, target: Path, *, media_type: str) -> None:
        """
        Write the answer to a GET request to the file *target*, block by block.

        Args:
            media_type: The type that the answer has to have.

        Raises:
            ConnectionFailedError: No answer, or one that broke off as often as it was asked for.
            APIError: An answer other than a success, or one of another type.
            OSError: The file cannot be written.
        """

        def send() -> None:
            with (
                _failures(f"from {self.base_url}", Repetition.SAFE),
                self._http.stream("GET", path, timeout=self._timeout_s) as response,
            ):
                kind = response.headers.get("content-type", "of no named type")
                if response.is_success and kind == media_type:
                    with target.open("wb") as file:
                        for block in response.iter_bytes():
                            file.write(block)
                    return
                response.read()
            if response.is_success:
                raise unreadable(response.status_code, f"{kind}, where {media_type} is expected")
            raise FailedAttemptError(
                _refusal(response),
                can_be_cured=response.status_code in RETRIED_STATUSES,
                is_perhaps_done=response.status_code not in UNDONE_STATUSES,
                retry_after_s=_retry_after_s(response),
            )

        repeat(send, retries=self._retries)

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
        with self._connect(trust_env=not is_here) as storage:

            def send() -> str:
                with _failures("from the service's storage", Repetition.SAFE, status=201):
                    response = storage.put(url, headers=headers, content=make_content())
                if response.is_success:
                    return upload_id
                status = response.status_code
                raise FailedAttemptError(
                    # Its body is XML, and names things of the service's inside.
                    error_from_response(status, None, None, _retry_after_s(response)),
                    can_be_cured=status in UNDONE_STATUSES or status >= 500,
                    retry_after_s=_retry_after_s(response),
                )

            return str(repeat(send, retries=self._retries))

    def _connect(self, *, trust_env: bool, headers: dict[str, str] | None = None, base_url: str = "") -> httpx.Client:
        try:
            return httpx.Client(
                base_url=base_url,
                headers={"User-Agent": USER_AGENT, **(headers or {})},
                timeout=self._timeout_s,
                follow_redirects=False,
                trust_env=trust_env,
            )
        except (httpx.InvalidURL, ValueError, ImportError, OSError) as error:
            # A proxy of an unknown kind, one whose package is not installed, a file that is not there.
            raise MissingPartError(
                f"the proxy or the certificates that the environment names cannot be used ({error}): correct"
                " HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, SSL_CERT_FILE or SSL_CERT_DIR"
            ) from error


@contextlib.contextmanager
def _failures(source: str, repetition: Repetition, *, status: int = 200) -> Iterator[None]:
    """Turn what HTTPX raises into failed attempts; *status* is that of an answer which cannot be decoded."""
    error: DeepfakeStreamError
    try:
        yield
    except httpx.LocalProtocolError as cause:
        error = InvalidRequestError(422, "invalid_request", f"the request cannot be sent: {cause}")
        raise FailedAttemptError(error, can_be_cured=False) from cause
    except (httpx.InvalidURL, UnicodeError) as cause:
        error = InvalidRequestError(422, "invalid_request", "an option or an id cannot be sent")
        raise FailedAttemptError(error, can_be_cured=False) from cause
    except httpx.DecodingError as cause:
        error = unreadable(status, "its content is not encoded as it says")
        raise FailedAttemptError(error, can_be_cured=False) from cause
    except httpx.RequestError as cause:
        is_perhaps_done = not isinstance(cause, UNSENT_ERRORS)
        said = f"no answer {source} ({type(cause).__name__})"
        if is_perhaps_done and repetition is Repetition.UNSAFE:
            said += "; it may have been carried out, so it was not sent again"
        error = ConnectionFailedError(said)
        raise FailedAttemptError(error, can_be_cured=True, is_perhaps_done=is_perhaps_done) from cause


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


def _check_empty(response: httpx.Response) -> None:
    """Nothing is taken as done that the service does not say it has done."""
    if response.status_code != 204:
        why = f"status {response.status_code}, where 204 says that it is done"
        raise unreadable(response.status_code, why, response.headers.get("x-request-id"))


def _retry_after_s(response: httpx.Response) -> float | None:
    return read_retry_after(response.headers.get("retry-after", ""))
