"""What all requests share: the connection, documents, pages and downloads."""

import json
import time
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote

from pydantic import ValidationError

from deepfakestream.errors import InvalidRequestError, WaitTimeoutError, unexpected_answer_error
from deepfakestream.files import replaced_when_whole
from deepfakestream.pages import follow_pages
from deepfakestream.results import Document
from deepfakestream.transport import Transport

MAX_PAUSE_S: Final = 60.0
"""The longest pause between two requests that a service can ask for."""


class Requests:
    """Requests of one subject, over a connection that all subjects of a client share."""

    _transport: Transport

    async def _download(self, path: str, target: Path, media_type: str) -> Path:
        """Write the answer to a GET request to *target* once it has arrived whole."""
        with replaced_when_whole(target) as partial_file:
            await self._transport.download(path, partial_file, media_type=media_type)
        return target

    async def _get_items(
        self, path: str, params: dict[str, Any], *, limit: int | None = None
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Iterate over the documents of a list, at most *limit*; pages are requested as needed."""
        left = limit
        if left is not None and left <= 0:
            return
        async with aclosing(follow_pages(partial(self._get_page, path, params))) as items:
            async for item in items:
                yield item
                if left is not None:
                    left -= 1
                    if left == 0:
                        return

    async def _get_page(
        self, path: str, params: dict[str, Any], cursor: str | None = None, *, deadline: float | None = None
    ) -> Any:
        left_s = None if deadline is None else deadline - time.monotonic()
        if left_s is not None and left_s <= 0:
            raise WaitTimeoutError("the time limit ended before all pages were read")
        position = {} if cursor is None else {"cursor": cursor}
        return await self._transport.call("GET", path, params=params | position, within_s=left_s)


_Document = TypeVar("_Document", bound=Document)


def parse_document(kind: type[_Document], document: Any) -> _Document:
    """Read *document*, which the service answered. Raises UnexpectedAnswerError if it is not one of that *kind*."""
    try:
        return kind.from_json(document)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in problem["loc"]) or "all of it"
        why = f"it is no {kind.__name__.lower()}: {where}: {problem['msg']}"
        raise unexpected_answer_error(200, why) from error


def collect_options(**given: Any) -> dict[str, Any]:
    """Return the options that are not None. Raises InvalidRequestError for a value that cannot be written as JSON."""
    options = {name: value for name, value in given.items() if value is not None}
    for name, value in options.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidRequestError(422, "invalid_request", f"{name} cannot be written as JSON: {error}") from error
    return options


def check_events(events: Iterable[str] | None) -> list[str] | None:
    """
    Return the names of events as a list.

    Raises:
        TypeError: It is text, whose letters are no names, or something in it is no text.
        ValueError: There is no name, or one has a comma, which separates names where they are sent in a query.
    """
    if events is None:
        return None
    if isinstance(events, str):
        raise TypeError(f"webhook_events is a list of names: give [{events!r}] instead of {events!r}")
    names = list(events)
    if not names:
        raise ValueError("webhook_events is empty: name at least one event, or leave it out for all of them")
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"webhook_events is a list of names, and {name!r} is none")
        if "," in name:
            raise ValueError(
                f"webhook_events has one name for each event: give {name.split(',')} instead of [{name!r}]"
            )
    return names


def choose_pause(asked_s: float | None, least_s: float) -> float:
    """Return the seconds between two requests: what the service asks for, at least *least_s*, at most a minute."""
    return max(least_s, min(asked_s or 0.0, MAX_PAUSE_S))


def job_path(job_id: str, *more: str, collection: str = "jobs") -> str:
    """
    Return the path of a job, or of what belongs to it.

    Args:
        collection: ``jobs``, or ``streams`` for a live stream.

    Raises:
        InvalidRequestError: A part is ``.`` or ``..``, which would name another resource, quoted or not.
    """
    parts = (job_id, *more)
    for part in parts:
        if part in (".", ".."):
            raise InvalidRequestError(422, "invalid_request", f"{part!r} is not an id or a name")
    # Quoted, so that no id can be the path of another resource.
    return "/".join([f"/v1/{collection}", *(quote(part, safe="", errors="replace") for part in parts)])
