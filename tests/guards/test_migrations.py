"""Migrations leave the previous release what it needs, since it runs on the newer schema during an upgrade."""

import ast
from pathlib import Path

import pytest

VERSIONS = sorted((Path(__file__).resolve().parents[2] / "migrations" / "versions").glob("0*.py"))
ADDS = {
    "add_column",
    "create_table",
    "create_index",
    "create_foreign_key",
    "create_check_constraint",
    "execute",
    "f",
    "get_context",
}
BINDS = {"create_index": 1, "create_foreign_key": 1, "create_check_constraint": 1, "create_unique_constraint": 1}
"""Operation that locks a table → position of the table in its arguments."""


def calls(path, function):
    """(name, call) of every call of Alembic's operations in a function of a migration."""
    tree = ast.parse(path.read_text())
    [body] = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == function]
    return [
        (node.func.attr, node)
        for node in ast.walk(body)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) == "op"
    ]


@pytest.mark.parametrize("path", VERSIONS, ids=lambda path: path.stem)
def test_the_previous_release_runs_on_the_schema_after_an_upgrade(path):
    found = calls(path, "upgrade")
    assert found
    new_tables = {ast.literal_eval(call.args[0]) for name, call in found if name == "create_table"}
    new_indexes = {ast.literal_eval(call.args[0]) for name, call in found if name == "create_index"}
    for name, call in found:
        if name == "drop_index":
            # What an earlier attempt left half-built.
            assert ast.literal_eval(call.args[0]) in new_indexes
            continue
        assert name in ADDS, name
        if name == "add_column":
            # The release before writes rows without it.
            column = ast.unparse(call.args[1])
            assert "nullable=True" in column or "server_default" in column, column
        if name in BINDS and ast.literal_eval(call.args[BINDS[name]]) not in new_tables:
            # Rows of the release before may break a rule that it does not know; and building an index holds up all
            # who write, unless it is built beside them (in op.get_context().autocommit_block(), where
            # lock_timeout is off and what an earlier attempt left half-built is dropped first).
            assert name == "create_index", name
            assert "unique" not in ast.unparse(call), ast.unparse(call)
            assert "postgresql_concurrently=True" in ast.unparse(call), ast.unparse(call)
        if name == "execute":
            assert "drop" not in ast.unparse(call).lower()


@pytest.mark.parametrize("path", VERSIONS, ids=lambda path: path.stem)
def test_every_migration_can_be_downgraded(path):
    assert calls(path, "downgrade")
