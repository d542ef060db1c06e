"""Cursors: the position where the next page of a list begins, as opaque text for clients."""

import base64
import uuid
from typing import TypeVar

Position = TypeVar("Position", uuid.UUID, int)


def write_cursor(position: uuid.UUID | int) -> str:
    """Return the cursor of the page after the item at *position*."""
    return base64.urlsafe_b64encode(str(position).encode()).decode().rstrip("=")


def read_cursor(cursor: str, kind: type[Position]) -> Position:
    """
    Return the position that *cursor* encodes.

    Raises:
        ValueError: The cursor is malformed or belongs to another kind of list.
    """
    value = kind(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii"))
    if isinstance(value, int) and not -1 <= value < 2**31:
        raise ValueError("out of range")
    return value
