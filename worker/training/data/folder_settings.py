"""Settings that a folder was made with, recorded in it, so that data of other settings is never mixed into it."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from worker.training.errors import DataError

Settings = Mapping[str, Any]


def claim(file: Path, settings: Settings, what: str, *, read: Callable[[Any], Settings] = dict) -> None:
    """
    Record in *file* the settings that its folder is made with, or compare them with those recorded there already.

    Args:
        settings: Plain values, as JSON gives them back.
        what: Words for a difference in the error, such as "other settings".
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
        raise DataError(f"{file.parent} was made with {what}; take another folder or delete it")
