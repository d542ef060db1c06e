"""Every test that holds a promise of docs/promises.md exists."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROMISES = (ROOT / "docs" / "promises.md").read_text()
NAMED = set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PROMISES))


def test_every_test_that_the_promises_name_exists():
    existing = {
        (path, node.name)
        for path in {path for path, _ in NAMED}
        for node in ast.parse((ROOT / path).read_text()).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert sorted(NAMED - existing) == []


def test_every_promise_names_a_test():
    promises = re.split(r"^## \d+\. ", PROMISES, flags=re.MULTILINE)[1:]
    assert len(promises) >= 9
    for promise in promises:
        assert re.search(r"`tests/[\w/]+\.py::\w+`", promise), promise.splitlines()[0]
