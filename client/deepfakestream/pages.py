"""Lists that the service answers in pages."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

from deepfakestream.errors import unexpected_answer_error


def read_items(body: Any) -> list[dict[str, Any]]:
    """Return the documents of a list that the service answered. Raises UnexpectedAnswerError if *body* is not one."""
    items = body.get("items") if isinstance(body, dict) else None
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise unexpected_answer_error(200, "it is no list of documents")
    return items


async def follow_pages(
    ask: Callable[[str | None], Awaitable[Any]], *, cursor: str | None = None, max_pages: int | None = None
) -> AsyncGenerator[dict[str, Any], None]:
    """
    Iterate over the documents of all pages; each page is requested when it is needed.

    Args:
        ask: Returns the page that a cursor names; the first one for None.
        cursor: Cursor of the first page to request.
        max_pages: How many pages there may be; unlimited by default.

    Raises:
        UnexpectedAnswerError: A page is not a list, or the pages do not end: one is empty and names another, one names
            a page that was already read, or there are too many. Errors of *ask* are passed on.
    """
    seen = {cursor}
    while True:
        page = await ask(cursor)
        items = read_items(page)
        for item in items:
            yield item
        cursor = page.get("next_cursor")
        if cursor is None:
            return
        if not (items and cursor and isinstance(cursor, str)) or cursor in seen or len(seen) == max_pages:
            raise unexpected_answer_error(200, "its pages do not end")
        seen.add(cursor)
