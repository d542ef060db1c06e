"""Mistakes in the rows of a data set, collected so that one error reports all of them before anything is trained."""

from pathlib import Path
from typing import Final

from worker.training.errors import DataError

MAX_ROWS: Final = 10
"""Rows of each kind of mistake that an error names; it gives only the number of the others."""
EDGE_BYTES: Final = 16
"""Bytes that are read at each end of a picture's file: they show its format, and whether it is truncated."""
_JPEG_BEGIN, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
_PNG_BEGIN, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
_OTHERS: Final = (b"RIFF", b"BM", b"II*\x00", b"MM\x00*")
"""First bytes of WebP, BMP and TIFF, which have no end marker."""


class RowMistakes:
    """Rows with mistakes, by kind of mistake."""

    def __init__(self) -> None:
        self._rows: dict[str, list[str]] = {}
        self._counts: dict[str, int] = {}

    def add(self, mistake: str, row: str) -> None:
        """Record that *row* has a *mistake*, a verb phrase for "rows that …": ``name a file that is not there``."""
        rows = self._rows.setdefault(mistake, [])
        if len(rows) < MAX_ROWS:
            rows.append(row)
        self._counts[mistake] = self._counts.get(mistake, 0) + 1

    def raise_if_any(self, where: Path, advice: str = "") -> None:
        """
        Raise all mistakes as one error about *where*, with *advice* at its end.

        Raises:
            DataError: There are mistakes.
        """
        if self._rows:
            raise DataError(f"{where}: " + "; ".join(self._sentence(mistake) for mistake in self._rows) + advice)

    def _sentence(self, mistake: str) -> str:
        rows, count = self._rows[mistake], self._counts[mistake]
        more = f" and {count - len(rows)} more" if count > len(rows) else ""
        return f"rows that {mistake} ({count}): {', '.join(rows)}{more}"


def picture_problem(begin: bytes, end: bytes) -> str | None:
    """
    Check a picture by the two ends of its file, without decoding it.

    Args:
        begin: Its first ``EDGE_BYTES``, or all of it.
        end: Its last ``EDGE_BYTES``, or all of it.

    Returns:
        The mistake, as ``RowMistakes.add`` takes it; None if the file begins like a picture and, as JPEG or PNG, is not
        truncated.
    """
    ends = {_JPEG_BEGIN: _JPEG_END, _PNG_BEGIN: _PNG_END}
    for start, last in ends.items():
        if begin.startswith(start):
            # Some programs pad JPEG files with zeros.
            return None if end.rstrip(b"\0").endswith(last) or last in end else "name a truncated picture"
    if begin.startswith(_OTHERS) or begin[4:8] == b"ftyp":
        return None
    return "name a file that is not a picture"
