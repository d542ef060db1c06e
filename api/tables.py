"""Tables as CSV that spreadsheets can open without running anything in them."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any, Final

from flask import Response

FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r", "\n")
"""First characters of cells that some spreadsheet takes for a formula (OWASP, "CSV injection")."""


def table_response(columns: Sequence[str], rows: Iterable[Sequence[Any]], name: str) -> Response:
    """
    Return a table as a CSV file (RFC 4180).

    Args:
        rows: One value for each column: numbers, text, or None for an empty cell.
        name: The file's name; ASCII without quotes.
    """
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows([safe_cell(value) for value in row] for row in rows)
    response = Response(text.getvalue(), mimetype="text/csv")
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


def safe_cell(value: Any) -> Any:
    """Return *value* as a cell: text that looks like a formula begins with an apostrophe; numbers stay as they are."""
    if value is None or isinstance(value, int | float):
        return value
    text = str(value)
    return f"'{text}" if text.lstrip(" \u00a0\ufeff").startswith(FORMULA_STARTS) else text
