"""The settings of a folder's contents, recorded in it, so that data of other settings is never mixed in."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from worker.training.errors import DataError

Settings = Mapping[str, Any]


def record_settings(file: Path, settings: Settings, what: str, *, read: Callable[[Any], Settings] = dict) -> None:
    """
    Record the settings of a folder in *file*, or compare them with those that it already has.

    Args:
        settings: Values that survive a round trip through JSON.
        what: What differs, for the error, such as "other settings".
        read: Converts settings that an older version recorded to the form of *settings*; raises ``ValueError`` where
            it cannot.

    Raises:
        DataError: The folder was made with other settings, or the file cannot be read.
    """
    if not file.exists():
        file.write_text(json.dumps(settings, indent=2) + "\n")
        return
    try:
        is_same = read(json.loads(file.read_bytes())) == settings
    except (ValueError, TypeError):
        is_same = False
    if not is_same:
        raise DataError(f"{file.parent} was made with {what}; choose another folder or delete this one")
