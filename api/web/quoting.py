"""Quotation of texts that people outside the service wrote, so that none reads as a sentence of the report."""

from typing import Any, Final

from api.web.wording import make_printable

MARKS: Final = str.maketrans(dict.fromkeys('"“”„‟″‶ʺ˝❝❞〝〞〟＂', "'"))
"""Double quotation marks, and characters that look like one, to single ones."""
ISOLATE, END_ISOLATE = "\u2068", "\u2069"


def quote(text: Any) -> str:
    """
    Return *text* on one line between quotation marks, of which it has none itself.

    It is isolated, so that one that is written from right to left does not move the words and numbers around it.
    """
    return f"“{ISOLATE}{make_printable(str(text)).translate(MARKS)}{END_ISOLATE}”"
