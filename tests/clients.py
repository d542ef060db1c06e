"""Both clients of the SDK behind one interface, so that one test holds for both."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from types import TracebackType
from typing import Any, Self

from deepfakestream import AsyncClient, Client


class AwaitedClient:
    """An ``AsyncClient`` with an event loop of its own, whose methods can be called like those of ``Client``."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self._runner = asyncio.Runner()
        self.inner = AsyncClient(*arguments, **named)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        return self._called(found) if inspect.ismethod(found) else found

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the client and its event loop."""
        self._runner.run(self.inner.aclose())
        self._runner.close()

    def _called(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            result = method(*arguments, **named)
            return self._iterate(result) if inspect.isasyncgen(result) else self._runner.run(result)

        return call

    def _iterate(self, items: AsyncIterator[Any]) -> Iterator[Any]:
        while True:
            try:
                yield self._runner.run(_next(items))
            except StopAsyncIteration:
                return


async def _next(items: AsyncIterator[Any]) -> Any:
    return await anext(items)


BOTH_CLIENTS = (Client, AwaitedClient)
"""Parameters of tests that hold for both."""
CLIENT_IDS = ("Client", "AsyncClient")
