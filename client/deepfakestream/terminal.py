"""
Safe output to a terminal.

No file name and no service can send control sequences to a person's terminal, and every text can be written whatever
the encoding of the output. Everything that the command line prints passes through this module: text by ``say``, tables
and progress by ``make_console`` with ``safe_text`` around text from files and services. JSON is printed as ASCII.
"""

import codecs
import io
import os
import sys
from typing import Final

from rich.console import Console
from rich.text import Text

ENCODING_ERRORS: Final = "deepfakestream.substitute"
"""Name under which the handler for characters that the encoding of the output lacks is registered."""
PIPE_WIDTH: Final = 10_000
"""Columns of output that is no terminal: more than any table needs, since a program reads whole lines."""
_SUBSTITUTES: Final = {"–": "-", "—": "-", "…": "...", "·": "*", "×": "x", "’": "'", "‘": "'", "“": '"', "”": '"'}
_LINE_CHARACTERS: Final = frozenset("\n\t")


def printable(text: str, *, lines: bool = False) -> str:
    r"""
    Replace every character of *text* that is not visible by a visible escape, such as ``\x1b``.

    These are control characters, which can move the cursor or set the title, characters that reverse the direction of
    writing, and bytes of a file name that are not UTF-8.

    Args:
        lines: Keep line feeds and tabs, for text of several lines.
    """
    return "".join(
        character if character.isprintable() or (lines and character in _LINE_CHARACTERS) else _escape(character)
        for character in text
    )


def safe_text(text: object, style: str = "") -> Text:
    """Make *text* printable, for a table or a console, with no part of it taken for markup."""
    return Text(printable(str(text)), style=style)


def prepare_output() -> None:
    """Set up standard output and standard error so that any text can be written, whatever their encoding."""
    codecs.register_error(ENCODING_ERRORS, _substitute)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ENCODING_ERRORS)


def make_console(*, stderr: bool = False) -> Console:
    """
    Make a console that prints square brackets and colons literally, and not as markup or emoji.

    It has the terminal's width. In a file or a pipe no line is broken, unless ``COLUMNS`` is set.
    """
    console = Console(stderr=stderr, markup=False, emoji=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = PIPE_WIDTH
    return console


def say(text: str, *, to_stderr: bool = False) -> None:
    """Print *text*, which may have several lines."""
    # A single write, so that lines from several threads do not mix.
    stream = sys.stderr if to_stderr else sys.stdout
    stream.write(printable(text, lines=True) + "\n")
    stream.flush()


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        # A byte that is not UTF-8, as Python represents it in file names (PEP 383).
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


def _substitute(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    found = error.object[error.start : error.end]
    return "".join(_SUBSTITUTES.get(character) or _escape(character) for character in found), error.end


def pluralize(count: int, one: str, several: str = "") -> str:
    """Return *count* with its noun: *one* if it is 1, else *several*, which is *one* with an s by default."""
    return f"{count} {one if count == 1 else several or f'{one}s'}"
