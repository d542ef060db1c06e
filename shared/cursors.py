"""Cursors: where a list goes on, as text that clients hand back as it is."""

import base64
import uuid
from typing import TypeVar

Position = TypeVar("Position", uuid.UUID, int)


def write_cursor(position: uuid.UUID | int) -> str:
    """Return the cursor that leads on from the item at *position*."""
    return base64.urlsafe_b64encode(str(position).encode()).decode().rstrip("=")


def read_cursor(cursor: str, kind: type[Position]) -> Position:
    """
    Return the position that ``write_cursor`` was given.

    Raises:
        ValueError: The cursor is not one of a list of this kind.
    """
    value = kind(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii"))
    if isinstance(value, int) and not -1 <= value < 2**31:
        raise ValueError("out of range")
    return value
