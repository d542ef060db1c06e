"""Checks of metadata and notes: any JSON object that the database can store without loss."""

import json
import math
from typing import Any, Final

from api.errors import APIError
from shared.errors import Code

MAX_DEPTH: Final = 100
"""The deepest nesting of lists and objects; deeper ones may exhaust the stack of readers."""


def check_metadata(metadata: dict[str, Any], max_bytes: int) -> None:
    """
    Refuse metadata that cannot be stored without loss.

    Args:
        max_bytes: The largest size as JSON in UTF-8.

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
    Refuse content of the field *name* that cannot be stored unchanged.

    Returns:
        Its size as JSON in UTF-8, in bytes.

    Raises:
        APIError: ``invalid_request`` for numbers that are not finite or have thousands of digits, the character NUL,
            lone surrogates and more than ``MAX_DEPTH`` levels, which Postgres or JSON do not support.
    """
    # The check is not recursive, since deep nesting would exhaust the stack.
    pending: list[tuple[Any, int]] = [(content, 1)]
    while pending:
        value, depth = pending.pop()
        if isinstance(value, str) and "\0" in value:
            raise _invalid(name, "contains the character NUL")
        if isinstance(value, float) and not math.isfinite(value):
            raise _invalid(name, "contains a number that is not finite or too large")
        if isinstance(value, dict | list):
            if depth > MAX_DEPTH:
                raise _invalid(name, f"has more than {MAX_DEPTH} levels")
            inner = [*value, *value.values()] if isinstance(value, dict) else value
            pending += [(each, depth + 1) for each in inner]
    try:
        return len(json.dumps(content, ensure_ascii=False, allow_nan=False).encode())
    except UnicodeEncodeError as error:
        raise _invalid(name, "contains a lone surrogate") from error
    except ValueError as error:
        raise _invalid(name, "contains a number with too many digits") from error


def _invalid(name: str, why: str) -> APIError:
    return APIError(Code.INVALID_REQUEST, f"{name}: {why}")
