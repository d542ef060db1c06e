"""Leases and retries go by one clock, the database's: a step of a machine's own clock moves none of them."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CLOCKS = {"now", "utcnow", "today", "time", "time_ns", "monotonic"}


MODULES = ["shared/models.py", "worker/tasks/sweep.py", "api/reuse.py"]
MODULES += [str(path.relative_to(ROOT)) for room in ("jobs", "media") for path in (ROOT / "shared" / room).glob("*.py")]


@pytest.mark.parametrize("module", sorted(MODULES))
def test_no_other_clock_is_asked(module):
    tree = ast.parse((ROOT / module).read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in CLOCKS:
            # func.now() is the database's.
            assert isinstance(node.value, ast.Name)
            assert node.value.id == "func", f"line {node.lineno}"
        if isinstance(node, ast.ImportFrom) and node.module == "time":
            raise AssertionError(f"line {node.lineno}")
