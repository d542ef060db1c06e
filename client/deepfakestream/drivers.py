"""
The two ways in which requests are run. The requests themselves are written once, as coroutines.

Such a coroutine waits for three things only: an HTTP server, a pause, and a file. A driver does these. The blocking
driver does them on the calling thread before it returns, so that the coroutine is never suspended and needs no event
loop: ``complete`` runs it to its end like a function. The other driver waits in the event loop of asyncio.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, ParamSpec, Protocol, TypeVar

import httpx

_P = ParamSpec("_P")
_T = TypeVar("_T")


class HTTPConnection(Protocol):
    """Connections to HTTP servers."""

    async def request(
        self, method: str, url: str, *, content: AsyncGenerator[bytes, None] | None, **arguments: Any
    ) -> httpx.Response:
        """Send a request and return the whole response; further *arguments* are those of HTTPX."""

    def stream(self, method: str, url: str, **arguments: Any) -> AbstractAsyncContextManager[httpx.Response]:
        """Send a request and yield the response before its body is read."""

    def read_blocks(self, response: httpx.Response) -> AsyncGenerator[bytes, None]:
        """Iterate over the body of a response that ``stream`` yielded."""

    async def read_all(self, response: httpx.Response) -> None:
        """Read the body of a response that ``stream`` yielded, so that it can be parsed."""

    async def close(self) -> None:
        """Close the connections."""


class Driver(Protocol):
    """Does what requests wait for."""

    def connect(self, **arguments: Any) -> HTTPConnection:
        """Return connections that are opened as they are needed; *arguments* are those of HTTPX's clients."""

    async def sleep(self, seconds: float) -> None:
        """Pause."""

    async def call(self, function: Callable[_P, _T], *arguments: _P.args, **named: _P.kwargs) -> _T:
        """Return the result of a function that reads or writes a file."""


class BlockingDriver:
    """Waits on the calling thread."""

    def connect(self, **arguments: Any) -> HTTPConnection:
        """Return connections on which the calling thread waits."""
        return _BlockingConnection(httpx.Client(**arguments))

    async def sleep(self, seconds: float) -> None:
        """Pause the calling thread."""
        time.sleep(seconds)  # noqa: ASYNC251 - no event loop runs this coroutine

    async def call(self, function: Callable[_P, _T], *arguments: _P.args, **named: _P.kwargs) -> _T:
        """Call *function* on the calling thread."""
        return function(*arguments, **named)


class AsyncioDriver:
    """Waits in the event loop; files are read and written in threads."""

    def connect(self, **arguments: Any) -> HTTPConnection:
        """Return connections of the event loop that first uses them."""
        return _AsyncioConnection(httpx.AsyncClient(**arguments))

    async def sleep(self, seconds: float) -> None:
        """Let other tasks run for some time."""
        await asyncio.sleep(seconds)

    async def call(self, function: Callable[_P, _T], *arguments: _P.args, **named: _P.kwargs) -> _T:
        """Call *function* in a thread."""
        return await asyncio.to_thread(function, *arguments, **named)


def complete(awaitable: Awaitable[_T]) -> _T:
    """
    Run a coroutine of the blocking driver to its end, and return its result.

    Raises:
        RuntimeError: It waits for an event loop.
    """
    steps = awaitable.__await__()
    try:
        next(steps)
    except StopIteration as end:
        result: _T = end.value
        return result
    steps.close()
    raise RuntimeError("a coroutine of the blocking driver waits for an event loop")


def iterate(items: AsyncGenerator[_T, None]) -> Generator[_T, None, None]:
    """Iterate over an asynchronous generator of the blocking driver; it is closed when this one is."""
    try:
        while True:
            try:
                item = complete(anext(items))
            except StopAsyncIteration:
                return
            yield item
    finally:
        complete(items.aclose())


class _BlockingConnection:
    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    async def request(
        self, method: str, url: str, *, content: AsyncGenerator[bytes, None] | None, **arguments: Any
    ) -> httpx.Response:
        return self._http.request(method, url, content=None if content is None else iterate(content), **arguments)

    @asynccontextmanager
    async def stream(self, method: str, url: str, **arguments: Any) -> AsyncIterator[httpx.Response]:
        with self._http.stream(method, url, **arguments) as response:
            yield response

    async def read_blocks(self, response: httpx.Response) -> AsyncGenerator[bytes, None]:
        for block in response.iter_bytes():
            yield block

    async def read_all(self, response: httpx.Response) -> None:
        response.read()

    async def close(self) -> None:
        self._http.close()


class _AsyncioConnection:
    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def request(
        self, method: str, url: str, *, content: AsyncGenerator[bytes, None] | None, **arguments: Any
    ) -> httpx.Response:
        return await self._http.request(method, url, content=content, **arguments)

    def stream(self, method: str, url: str, **arguments: Any) -> AbstractAsyncContextManager[httpx.Response]:
        return self._http.stream(method, url, **arguments)

    async def read_blocks(self, response: httpx.Response) -> AsyncGenerator[bytes, None]:
        async for block in response.aiter_bytes():
            yield block

    async def read_all(self, response: httpx.Response) -> None:
        await response.aread()

    async def close(self) -> None:
        await self._http.aclose()
