"""Leases and retries go by one clock, the database's: a step of a machine's own clock moves none of them."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CLOCKS = {"now", "utcnow", "today", "time", "time_ns", "monotonic"}


@pytest.mark.parametrize("name", ["jobs", "sweep", "deliveries", "media", "models"])
def test_no_other_clock_is_asked(name):
    tree = ast.parse((ROOT / "shared" / f"{name}.py").read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in CLOCKS:
            # func.now() is the database's.
            assert isinstance(node.value, ast.Name)
            assert node.value.id == "func", f"line {node.lineno}"
        if isinstance(node, ast.ImportFrom) and node.module == "time":
            raise AssertionError(f"line {node.lineno}")
