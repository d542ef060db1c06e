"""
The SDK: two classes whose methods are the requests of the API, each defined once with its subject.

``Client`` and ``AsyncClient`` differ in how they wait, see ``deepfakestream.calls`` and ``deepfakestream.drivers``.
"""

import os
from pathlib import Path
from types import TracebackType
from typing import Self

from deepfakestream.addresses import parse_origin
from deepfakestream.calls import AwaitedCalls, BlockingCalls
from deepfakestream.connection import Connection, find_connection
from deepfakestream.drivers import AsyncioDriver, BlockingDriver, Driver, complete
from deepfakestream.requests.batches import BatchRequests
from deepfakestream.requests.explanations import ExplanationRequests
from deepfakestream.requests.reports import ReportRequests
from deepfakestream.requests.streams import StreamRequests
from deepfakestream.requests.usage import UsageRequests
from deepfakestream.transport import Transport
from deepfakestream.webhooks import verify_webhook


class _AllRequests(BatchRequests, ReportRequests, ExplanationRequests, StreamRequests, UsageRequests):
    """Everything that both clients can do."""

    verify_webhook = staticmethod(verify_webhook)

    def _open(
        self,
        base_url: str | None,
        api_key: str | None,
        *,
        state: str | os.PathLike[str] | None,
        timeout_s: float,
        retries: int,
        driver: Driver,
    ) -> None:
        found = _choose_connection(base_url, api_key, None if state is None else Path(state))
        self._transport = Transport(found.url, found.api_key, timeout_s=timeout_s, retries=retries, driver=driver)


class Client(BlockingCalls, _AllRequests):
    """
    A client of a DeepfakeStream service, whose methods return when the service has answered.

    Threads may share one. In a program with an event loop of asyncio, use ``AsyncClient``.

    Args:
        base_url: Address of the service, such as ``https://deepfakes.example``. If not given, the environment variable
            ``DEEPFAKESTREAM_URL`` names it, or else the embedded stack that runs on this machine is used.
        api_key: API key, ``dfs_…``. If not given, ``DEEPFAKESTREAM_API_KEY`` is used, unless that belongs to another
            address; for the stack on this machine, otherwise the stack's own key.
        state: State folder of the embedded stack. If not given, ``DEEPFAKESTREAM_STATE`` names it, or else the running
            stack is found.
        timeout_s: Limit in seconds of a single wait on the connection, not of a whole upload.
        retries: How often a request is sent again that got no answer, or 429, 502, 503 or 504. This is safe:
            submissions have an idempotency key, and a request that must not be processed twice is not sent again.

    Raises:
        AddressError: The address is not that of a service, or the key cannot be one.
        MissingKeyError: No key is known for the address.
        MissingPartError: No service is named and none runs on this machine, or the proxy or the certificates that the
            environment names cannot be used.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        state: str | os.PathLike[str] | None = None,
        timeout_s: float = 30.0,
        retries: int = 3,
    ) -> None:
        self._open(base_url, api_key, state=state, timeout_s=timeout_s, retries=retries, driver=BlockingDriver())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        complete(self._transport.close())


class AsyncClient(AwaitedCalls, _AllRequests):
    """
    A client of a DeepfakeStream service for programs with an event loop of asyncio.

    It has the methods of ``Client`` with the same arguments, results and errors: those that return a result are
    awaited, and those that iterate are for ``async for``. Cancelling a task ends its request and closes the connection
    of that request. Files are read and written in threads. Callbacks are called in the event loop, so they must not
    block. A client belongs to one event loop.

    Args:
        base_url: Address of the service, as for ``Client``.
        api_key: API key, as for ``Client``.
        state: State folder of the embedded stack, as for ``Client``.
        timeout_s: Limit in seconds of a single wait on the connection, not of a whole upload.
        retries: How often a request is sent again, as by ``Client``.

    Raises:
        AddressError, MissingKeyError, MissingPartError: As from ``Client``.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        state: str | os.PathLike[str] | None = None,
        timeout_s: float = 30.0,
        retries: int = 3,
    ) -> None:
        self._open(base_url, api_key, state=state, timeout_s=timeout_s, retries=retries, driver=AsyncioDriver())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._transport.close()


def _choose_connection(base_url: str | None, api_key: str | None, state: Path | None) -> Connection:
    """Choose as the command line does; what is given as an empty text is an error, and not replaced."""
    if base_url is not None:
        parse_origin(base_url)
        if api_key is not None:
            return Connection(base_url, api_key)
    return find_connection(base_url, api_key, state, key_option="api_key", state_option="state")
