"""Pagination: the size of a page, and the cursor of the next one."""

from api.errors import APIError
from api.schemas import Page
from api.services import Services
from shared.cursors import Position, read_cursor
from shared.errors import Code


def page_limit(running: Services, page: Page, *, max_items: int | None = None) -> int:
    """
    Return the largest number of items on the requested page.

    Args:
        max_items: The maximum of the list; by default the configured one.
    """
    return min(page.limit or running.settings.api.page_size, max_items or running.settings.api.max_page_size)


def parse_cursor(cursor: str, kind: type[Position]) -> Position:
    """Return the position of a *cursor* that a client sent. Raises APIError with ``invalid_cursor``."""
    try:
        return read_cursor(cursor, kind)
    except ValueError as error:
        raise APIError(Code.INVALID_CURSOR, "invalid cursor; use the next_cursor of this list") from error
