"""The text of examples, in the file of the api and in the blocks of documents."""

import json
import re
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
FILE: Final = ROOT / "api" / "examples.json"
PAGES: Final = (ROOT / "docs" / "api.md", ROOT / "docs" / "streams.md")
"""Documents with blocks of examples."""
WIDTH: Final = 118
_BLOCK: Final = re.compile(r"(<!-- example: (.+?) -->\n```\w*\n)(.*?)(```)", re.DOTALL)


def read_examples() -> dict[str, Any]:
    """Return the examples as they are stored."""
    examples: dict[str, Any] = json.loads(FILE.read_text())
    return examples


def write_json(value: Any, indent: int = 0, before: int = 0) -> str:
    """
    Return *value* as JSON whose lines are as full as they can be.

    Args:
        indent: Columns before the lines of what it is in.
        before: Columns before it in its first line beyond *indent*, and after it in its last.
    """
    line = json.dumps(value, ensure_ascii=False)
    if indent + before + len(line) <= WIDTH or not isinstance(value, dict | list):
        return line
    inner = indent + 2
    if isinstance(value, dict):
        names = [(f"{json.dumps(name)}: ", item) for name, item in value.items()]
        items = [name + write_json(item, inner, len(name) + 1) for name, item in names]
    else:
        items = [write_json(item, inner, 1) for item in value]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    lines = ",\n".join(" " * inner + line for line in _fill(items, WIDTH - inner - 1))
    return f"{opening}\n{lines}\n{' ' * indent}{closing}"


def _fill(items: list[str], width: int) -> list[str]:
    """Join items of one line into lines of at most *width* columns; others stand alone."""
    lines: list[str] = []
    for item in items:
        joined = f"{lines[-1]}, {item}" if lines else item
        if lines and len(joined) <= width and "\n" not in joined:
            lines[-1] = joined
        else:
            lines.append(item)
    return lines


def find_example(examples: dict[str, Any], path: str) -> str:
    """Return the text of the example at *path* in the file: names with blanks between them."""
    value: Any = examples
    for name in path.split():
        value = value[name]
    # Lines of CSV end as those of HTTP do.
    return value.replace("\r\n", "\n") if isinstance(value, str) else f"{write_json(value)}\n"


def blocks(text: str) -> list[tuple[str, str]]:
    """Return the paths of the examples in a document, and what stands there."""
    return [(found[2], found[3]) for found in _BLOCK.finditer(text)]


def fill_blocks(text: str, examples: dict[str, Any]) -> str:
    """Return a document with its examples written anew."""
    return _BLOCK.sub(lambda found: f"{found[1]}{find_example(examples, found[2])}{found[4]}", text)
