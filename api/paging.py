"""Pagination: the size of a page, its query, and the cursor of the next one."""

import uuid
from datetime import datetime
from typing import TypeVarTuple

from sqlalchemy import Select

from api.errors import APIError
from api.schemas import Page
from api.services import Services
from shared.cursors import Position, read_cursor
from shared.errors import Code
from shared.models import Batch, Job

Columns = TypeVarTuple("Columns")


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


def created_between(
    wanted: Select[*Columns], rows: type[Job | Batch], after: datetime | None, before: datetime | None
) -> Select[*Columns]:
    """Return the query *wanted* for those of *rows* that were created after and before these times, if given."""
    if after is not None:
        wanted = wanted.where(rows.created_at > after)
    if before is not None:
        wanted = wanted.where(rows.created_at < before)
    return wanted


def newest_first(wanted: Select[*Columns], rows: type[Job | Batch], page: Page, limit: int) -> Select[*Columns]:
    """
    Return the query *wanted* for a page of *rows* in the order of their ids, and one row more if there are more pages.

    Raises:
        APIError: ``invalid_cursor``.
    """
    if page.cursor is not None:
        wanted = wanted.where(rows.id < parse_cursor(page.cursor, uuid.UUID))
    return wanted.order_by(rows.id.desc()).limit(limit + 1)
