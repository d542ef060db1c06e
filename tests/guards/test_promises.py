"""A promise without its test is none: every test that the documents name exists."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROMISES = (ROOT / "docs" / "promises.md").read_text()
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PROMISES)


def functions(path):
    tree = ast.parse((ROOT / path).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize(("path", "name"), sorted(set(NAMED)))
def test_a_test_that_holds_a_promise_exists(path, name):
    assert name in functions(path)


def test_every_promise_names_a_test():
    promises = re.split(r"^## \d+\. ", PROMISES, flags=re.MULTILINE)[1:]
    assert len(promises) >= 9
    for promise in promises:
        assert re.search(r"`tests/[\w/]+\.py::\w+`", promise), promise.splitlines()[0]
