"""JSON that anybody may have written."""

import json
import math
from typing import Any, Final, NoReturn

from deepfakestream.errors import BundleError

MAX_VALUES: Final = 5_000_000
"""In one document. A segment of 60 s with a hundred faces in each of 30 frames a second has 4.5 million; values
take up to thirty times the memory of their text."""


def read_json(data: bytes, where: str) -> Any:
    """
    Return the JSON value that *data* hold.

    Args:
        where: Names their place, for the sentence.

    Raises:
        BundleError: They are no JSON in UTF-8, name a field twice, hold a number that is not finite, or have more than
            ``MAX_VALUES`` values.
    """
    if data.count(b",") >= MAX_VALUES:
        raise BundleError(f"{where} has more than {MAX_VALUES} values")
    try:
        return json.loads(
            data.decode(), object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=_finite
        )
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{where} holds no JSON that can be read ({error})") from error


def read_object(data: bytes, where: str) -> dict[str, Any]:
    """Return the JSON object that *data* hold. Raises BundleError as ``read_json`` does, and for other values."""
    found = read_json(data, where)
    if not isinstance(found, dict):
        raise BundleError(f"{where} holds no JSON object")
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a field is there twice")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no finite number")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse_constant(text)
