"""What metadata and notes may hold: all of JSON that the database keeps and gives back."""

import json
import math
from typing import Any, Final

from api.errors import APIError
from shared.errors import Code

MAX_DEPTH: Final = 100
"""Lists and objects within each other; deeper ones exhaust the stack of programs that read them."""


def check_metadata(metadata: dict[str, Any], max_bytes: int) -> None:
    """
    Refuse metadata that cannot be kept as it is.

    Args:
        max_bytes: The most that it may have as JSON in UTF-8.

    Raises:
        APIError: ``invalid_request``, see ``measure_json``; ``metadata_too_large``.
    """
    size = measure_json("metadata", metadata)
    if size > max_bytes:
        raise APIError(
            Code.METADATA_TOO_LARGE, f"metadata has {size} bytes; the limit max_metadata_bytes is {max_bytes}"
        )


def measure_json(name: str, content: Any) -> int:
    """
    Refuse content of the field *name* that cannot be kept as it is.

    Returns:
        How many bytes it has as JSON in UTF-8.

    Raises:
        APIError: ``invalid_request`` for a number that is not finite or has thousands of digits, for the character NUL,
            for half of a surrogate pair and for more than ``MAX_DEPTH`` levels, since Postgres or JSON itself has none
            of them.
    """
    # Not by recursion, which the depth that is looked for would exhaust.
    waiting: list[tuple[Any, int]] = [(content, 1)]
    while waiting:
        value, depth = waiting.pop()
        if isinstance(value, str) and "\0" in value:
            raise _invalid(name, "contains the character NUL")
        if isinstance(value, float) and not math.isfinite(value):
            raise _invalid(name, "contains a number that is not finite, or too large for one")
        if isinstance(value, dict | list):
            if depth > MAX_DEPTH:
                raise _invalid(name, f"has more than {MAX_DEPTH} levels")
            inner = [*value, *value.values()] if isinstance(value, dict) else value
            waiting += [(each, depth + 1) for each in inner]
    try:
        return len(json.dumps(content, ensure_ascii=False, allow_nan=False).encode())
    except UnicodeEncodeError as error:
        raise _invalid(name, "contains half of a surrogate pair") from error
    except ValueError as error:
        raise _invalid(name, "contains a number with too many digits") from error


def _invalid(name: str, why: str) -> APIError:
    return APIError(Code.INVALID_REQUEST, f"{name}: {why}")
