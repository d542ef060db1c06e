"""
Output for people: no file name and no service can send commands to their terminal, and none of it fails to be written.

Everything that the command line prints goes through here: text by ``say``, tables and progress by ``make_console``
with ``safe_text`` around what comes from files and services. JSON needs no such care, since it is printed as ASCII.
"""

import codecs
import io
import sys
from typing import Final

from rich.console import Console
from rich.text import Text

ENCODING_ERRORS: Final = "deepfakestream.substitute"
"""Name of the handler of characters that an output's encoding lacks."""
_SUBSTITUTES: Final = {"–": "-", "—": "-", "…": "...", "·": "*", "×": "x", "’": "'", "‘": "'", "“": '"', "”": '"'}
_LINES: Final = frozenset("\n\t")


def printable(text: str, *, lines: bool = False) -> str:
    r"""
    *text* with a visible escape, such as ``\x1b``, for everything that is no visible character.

    These are control characters, which can move a cursor or set a title, characters that turn the direction of
    writing, and bytes of a file name that are no UTF-8.

    Args:
        lines: Keep line feeds and tabs, for text that has several lines.
    """
    return "".join(
        character if character.isprintable() or (lines and character in _LINES) else _escape(character)
        for character in text
    )


def safe_text(text: object, style: str = "") -> Text:
    """*text* for a table, without markup and printable."""
    return Text(printable(str(text)), style=style)


def prepare_output() -> None:
    """Let standard output and standard error write any text, whatever their encoding."""
    codecs.register_error(ENCODING_ERRORS, _substitute)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ENCODING_ERRORS)


def make_console(*, stderr: bool = False) -> Console:
    """A console that takes square brackets and colons for what they are."""
    return Console(stderr=stderr, markup=False, emoji=False)


def say(text: str, *, to_stderr: bool = False) -> None:
    """Print *text*, which may have several lines."""
    # One write, so that lines of threads never mix.
    stream = sys.stderr if to_stderr else sys.stdout
    stream.write(printable(text, lines=True) + "\n")
    stream.flush()


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        # A byte that is no UTF-8, as Python keeps it in file names (PEP 383).
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


def _substitute(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    found = error.object[error.start : error.end]
    return "".join(_SUBSTITUTES.get(character) or _escape(character) for character in found), error.end
