"""Leases and retries use the clock of the database alone, so that a wrong clock of a machine moves none of them."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CLOCKS = {"now", "utcnow", "today", "time", "time_ns", "monotonic"}


MODULES = ["shared/models.py", "worker/tasks/sweep.py", "api/reuse.py"]
MODULES += [
    str(path.relative_to(ROOT)) for folder in ("jobs", "media") for path in (ROOT / "shared" / folder).glob("*.py")
]


@pytest.mark.parametrize("module", sorted(MODULES))
def test_only_the_clock_of_the_database_is_read(module):
    tree = ast.parse((ROOT / module).read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in CLOCKS:
            # func.now() is the database's.
            assert isinstance(node.value, ast.Name)
            assert node.value.id == "func", f"line {node.lineno}"
        if isinstance(node, ast.ImportFrom) and node.module == "time":
            raise AssertionError(f"line {node.lineno}")
