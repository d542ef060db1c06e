"""Lists that a service gives in pages."""

from collections.abc import Callable, Iterator
from typing import Any

from deepfakestream.errors import unreadable


def items_of(body: Any) -> list[dict[str, Any]]:
    """The documents of a list, as the service answers it. Raises UnexpectedAnswerError if it is none."""
    items = body.get("items") if isinstance(body, dict) else None
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise unreadable(200, "it is no list of documents")
    return items


def follow_pages(
    ask: Callable[[str | None], Any], *, cursor: str | None = None, most: int | None = None
) -> Iterator[dict[str, Any]]:
    """
    The documents of all pages, each of which is asked for when it is needed.

    Args:
        ask: Returns the page that a cursor names; the first one for None.
        cursor: Of the page to begin with.
        most: The number of pages that there may be; any by default.

    Raises:
        UnexpectedAnswerError: A page is no list, or the pages do not end: one is empty and names another, one names a
            page that was there before, or there are too many. Besides, whatever *ask* raises.
    """
    seen = {cursor}
    while True:
        page = ask(cursor)
        items = items_of(page)
        yield from items
        cursor = page.get("next_cursor")
        if cursor is None:
            return
        if not (items and cursor and isinstance(cursor, str)) or cursor in seen or len(seen) == most:
            raise unreadable(200, "its pages do not end")
        seen.add(cursor)
