"""
Methods that both clients have: ordinary ones of ``Client``, and coroutines and asynchronous iterators of
``AsyncClient``.

Each is written once, as a coroutine or an asynchronous generator with ``Call`` or ``Iteration`` as its decorator. What
an attribute then is depends on the class of the client, for type checkers as well.
"""

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from types import GenericAlias, MethodType
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, get_args, overload

from deepfakestream.drivers import complete, iterate

_P = ParamSpec("_P")
_T = TypeVar("_T")


class BlockingCalls:
    """Base class of a client whose methods return when the service has answered. It needs the blocking driver."""


class AwaitedCalls:
    """Base class of a client whose methods are awaited."""


class Call(Generic[_P, _T]):
    """
    A method that returns one result.

    Args:
        function: The coroutine function.
    """

    def __init__(self, function: Callable[Concatenate[Any, _P], Coroutine[Any, Any, _T]]) -> None:
        @functools.wraps(function)
        def blocking(this: Any, *arguments: _P.args, **named: _P.kwargs) -> _T:
            return complete(function(this, *arguments, **named))

        self.__doc__ = function.__doc__
        self._awaited, self._blocking = function, blocking

    @overload
    def __get__(self, client: BlockingCalls, kind: Any = None) -> Callable[_P, _T]: ...
    @overload
    def __get__(self, client: AwaitedCalls, kind: Any = None) -> Callable[_P, Coroutine[Any, Any, _T]]: ...
    @overload
    def __get__(self, client: None, kind: type[BlockingCalls]) -> Callable[Concatenate[Any, _P], _T]: ...
    @overload
    def __get__(
        self, client: None, kind: type[AwaitedCalls]
    ) -> Callable[Concatenate[Any, _P], Coroutine[Any, Any, _T]]: ...
    def __get__(self, client: Any, kind: Any = None) -> Any:
        return _bind(client, kind, self._blocking, self._awaited)


class Iteration(Generic[_P, _T]):
    """
    A method that returns an iterator, or an asynchronous one.

    Args:
        function: The asynchronous generator function.
    """

    def __init__(self, function: Callable[Concatenate[Any, _P], AsyncGenerator[_T, None]]) -> None:
        @functools.wraps(function)
        def blocking(this: Any, *arguments: _P.args, **named: _P.kwargs) -> Generator[_T, None, None]:
            return iterate(function(this, *arguments, **named))

        signature = inspect.signature(function)
        # For ``help``, which would show the signature of the asynchronous one.
        returned = GenericAlias(Generator, (get_args(signature.return_annotation)[0], None, None))
        vars(blocking)["__signature__"] = signature.replace(return_annotation=returned)
        self.__doc__ = function.__doc__
        self._awaited, self._blocking = function, blocking

    @overload
    def __get__(self, client: BlockingCalls, kind: Any = None) -> Callable[_P, Generator[_T, None, None]]: ...
    @overload
    def __get__(self, client: AwaitedCalls, kind: Any = None) -> Callable[_P, AsyncGenerator[_T, None]]: ...
    @overload
    def __get__(
        self, client: None, kind: type[BlockingCalls]
    ) -> Callable[Concatenate[Any, _P], Generator[_T, None, None]]: ...
    @overload
    def __get__(
        self, client: None, kind: type[AwaitedCalls]
    ) -> Callable[Concatenate[Any, _P], AsyncGenerator[_T, None]]: ...
    def __get__(self, client: Any, kind: Any = None) -> Any:
        return _bind(client, kind, self._blocking, self._awaited)


def _bind(client: Any, kind: Any, blocking: Callable[..., Any], awaited: Callable[..., Any]) -> Any:
    chosen = blocking if issubclass(kind or type(client), BlockingCalls) else awaited
    return chosen if client is None else MethodType(chosen, client)
