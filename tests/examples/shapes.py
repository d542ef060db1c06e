"""Compares the shapes of JSON values: their keys, and the types of what is in them."""

from collections.abc import Iterator
from typing import Any, Final

RACED: Final = frozenset({"face_s", "started_at"})
"""Fields that may be null or not, as fast as workers are: of a job that is cancelled, and of a picture that follows."""


def differences(recorded: Any, found: Any, path: str = "") -> Iterator[str]:
    """
    Yield a sentence for each difference between the shapes of two values.

    Numbers are one type. Lists are alike if each item of one has the shape of an item of the other.
    """
    if isinstance(recorded, dict) and isinstance(found, dict):
        for key in sorted(recorded.keys() ^ found.keys()):
            yield f"{path}/{key} is only {'recorded' if key in recorded else 'answered'}"
        for key in recorded.keys() & found.keys():
            if key not in RACED or None not in (recorded[key], found[key]):
                yield from differences(recorded[key], found[key], f"{path}/{key}")
    elif isinstance(recorded, list) and isinstance(found, list):
        if bool(recorded) != bool(found):
            yield f"{path} is empty in {'what is answered' if recorded else 'the record'} only"
            return
        yield from _unlike(found, recorded, path, "is answered and not recorded")
        yield from _unlike(recorded, found, path, "is recorded and not answered")
    elif _type(recorded) != _type(found):
        yield f"{path} is recorded as {_type(recorded)} and answered as {_type(found)}"


def _unlike(items: list[Any], others: list[Any], path: str, outcome: str) -> Iterator[str]:
    for place, item in enumerate(items):
        if not any(next(differences(other, item), None) is None for other in others):
            yield f"{path}/{place} {outcome}: {str(item)[:300]}"


def _type(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return "null" if value is None else "boolean"
    return {int: "number", float: "number"}.get(type(value), type(value).__name__)
