"""What a job's metadata may hold: all of JSON that the database keeps and gives back."""

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
        APIError: ``invalid_request`` for a number that is not finite or has thousands of digits, for the character NUL,
            for half of a surrogate pair and for more than ``MAX_DEPTH`` levels, since Postgres or JSON itself has none
            of them; ``metadata_too_large``.
    """
    # Not by recursion, which the depth that is looked for would exhaust.
    waiting: list[tuple[Any, int]] = [(metadata, 1)]
    while waiting:
        value, depth = waiting.pop()
        if isinstance(value, str) and "\0" in value:
            raise _invalid("contains the character NUL")
        if isinstance(value, float) and not math.isfinite(value):
            raise _invalid("contains a number that is not finite, or too large for one")
        if isinstance(value, dict | list):
            if depth > MAX_DEPTH:
                raise _invalid(f"has more than {MAX_DEPTH} levels")
            inner = [*value, *value.values()] if isinstance(value, dict) else value
            waiting += [(each, depth + 1) for each in inner]
    try:
        size = len(json.dumps(metadata, ensure_ascii=False, allow_nan=False).encode())
    except UnicodeEncodeError as error:
        raise _invalid("contains half of a surrogate pair") from error
    except ValueError as error:
        raise _invalid("contains a number with too many digits") from error
    if size > max_bytes:
        raise APIError(
            Code.METADATA_TOO_LARGE, f"metadata has {size} bytes; the limit max_metadata_bytes is {max_bytes}"
        )


def _invalid(why: str) -> APIError:
    return APIError(Code.INVALID_REQUEST, f"metadata: {why}")
