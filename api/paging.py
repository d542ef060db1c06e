"""Pages of lists, and the cursors that lead from one to the next."""

import base64
import binascii
import uuid
from typing import Any

from api.errors import APIError
from api.schemas import Page
from api.services import Services
from shared.errors import Code


def page_limit(mine: Services, page: Page) -> int:
    """How many items the page asked for may have."""
    return min(page.limit or mine.settings.api.page_size, mine.settings.api.max_page_size)


def write_cursor(position: uuid.UUID | int) -> str:
    """The cursor that leads on from the item at *position*."""
    return base64.urlsafe_b64encode(str(position).encode()).decode().rstrip("=")


def read_cursor(cursor: str, kind: type[Any]) -> Any:
    """The position that ``write_cursor`` was given. Raises APIError with ``invalid_cursor``."""
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii")
        value = kind(text)
    except (ValueError, binascii.Error) as error:
        raise APIError(Code.INVALID_CURSOR, "the cursor is not one that this list gave") from error
    if isinstance(value, int) and not -1 <= value < 2**31:
        raise APIError(Code.INVALID_CURSOR, "the cursor is not one that this list gave")
    return value
