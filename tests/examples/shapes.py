"""Compares the shapes of JSON values: their keys, and the types of what is in them."""

from collections.abc import Iterator
from typing import Any, Final

RACED: Final = frozenset({"face_s", "source_error", "started_at"})
"""Fields that may be null or not, as fast as the machine is: of streams, their people, and jobs that are cancelled."""


def differences(recorded: Any, found: Any, path: str = "", *, is_lenient: bool = False) -> Iterator[str]:
    """
    Yield a sentence for each difference between the shapes of two values.

    Numbers are one type. Each item of a recorded list has to be like one that was found. Further items may be there,
    such as the events of a stream on a busy machine; they have to be like a recorded one but for null and empty lists.

    Args:
        is_lenient: Whether null and empty lists are like everything.
    """
    if is_lenient and (recorded in (None, []) or found in (None, [])):
        return
    if isinstance(recorded, dict) and isinstance(found, dict):
        for key in sorted(recorded.keys() ^ found.keys()):
            yield f"{path}/{key} is only {'recorded' if key in recorded else 'answered'}"
        for key in recorded.keys() & found.keys():
            if key not in RACED or None not in (recorded[key], found[key]):
                yield from differences(recorded[key], found[key], f"{path}/{key}", is_lenient=is_lenient)
    elif isinstance(recorded, list) and isinstance(found, list):
        if bool(recorded) != bool(found):
            yield f"{path} is empty in {'what is answered' if recorded else 'the record'} only"
            return
        for place, item in enumerate(recorded):
            if all(_are_unlike(item, other, is_lenient=is_lenient) for other in found):
                yield f"{path}/{place} is recorded and not answered: {str(item)[:300]}"
        for place, item in enumerate(found):
            if all(_are_unlike(other, item, is_lenient=True) for other in recorded):
                yield f"{path}/{place} is answered and not recorded: {str(item)[:300]}"
    elif _type(recorded) != _type(found):
        yield f"{path} is recorded as {_type(recorded)} and answered as {_type(found)}"


def _are_unlike(recorded: Any, found: Any, *, is_lenient: bool) -> bool:
    return next(differences(recorded, found, is_lenient=is_lenient), None) is not None


def _type(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return "null" if value is None else "boolean"
    return {int: "number", float: "number"}.get(type(value), type(value).__name__)
