"""Pages of lists: how long they are, and where they go on."""

from api.errors import APIError
from api.schemas import Page
from api.services import Services
from shared.cursors import Position, read_cursor
from shared.errors import Code


def page_limit(running: Services, page: Page, *, max_items: int | None = None) -> int:
    """
    Return how many items the page asked for may have.

    Args:
        max_items: The bound of lists whose items are small; the configured one by default.
    """
    return min(page.limit or running.settings.api.page_size, max_items or running.settings.api.max_page_size)


def parse_cursor(cursor: str, kind: type[Position]) -> Position:
    """Return the position of a *cursor* that a client sent. Raises APIError with ``invalid_cursor``."""
    try:
        return read_cursor(cursor, kind)
    except ValueError as error:
        raise APIError(Code.INVALID_CURSOR, "the cursor is not one that this list gave") from error
