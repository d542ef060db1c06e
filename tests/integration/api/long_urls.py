"""Hooks for schemathesis that leave out URLs to which gunicorn itself answers 414."""

from typing import Any
from urllib.parse import urlencode

import schemathesis

MAX_CHARACTERS = 7000
"""The longest query or path parameters; gunicorn accepts 8,190 for the whole line (``api/gunicorn.py``)."""


@schemathesis.hook
def filter_query(_context: Any, query: dict[str, Any] | None) -> bool:
    """Keep queries that fit into a request line."""
    return _fits(query)


@schemathesis.hook
def filter_path_parameters(_context: Any, path_parameters: dict[str, Any] | None) -> bool:
    """Keep paths that fit into a request line."""
    return _fits(path_parameters)


def _fits(values: dict[str, Any] | None) -> bool:
    return len(urlencode(values or {}, doseq=True, errors="replace")) <= MAX_CHARACTERS
