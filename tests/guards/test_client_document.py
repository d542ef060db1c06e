"""The client's document names every command and every argument of the SDK."""

import inspect
import re
from pathlib import Path

import click
import pytest
from deepfakestream import Client, errors
from deepfakestream.cli import main

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "client.md").read_text()
ROWS = {row.split()[0].strip("`"): row for row in re.findall(r"(?m)^\| (`[a-z].*) \|$", TEXT.split("## SDK")[0])}
"""Name of a command → its row in the table of commands."""
CONTEXT = click.Context(main)


def test_every_command_has_its_own_row_in_the_document():
    assert set(ROWS) == set(main.list_commands(CONTEXT))


@pytest.mark.parametrize("name", main.list_commands(CONTEXT))
def test_every_documented_option_exists(name):
    command = main.get_command(CONTEXT, name)
    inside = [command, *getattr(command, "commands", {}).values()]
    known = {
        option for one in inside for parameter in one.params for option in (*parameter.opts, *parameter.secondary_opts)
    }
    assert set(re.findall(r"--[a-z-]+", ROWS[name])) <= known


def test_the_document_has_the_tree_of_errors():
    names = re.findall(r"(?m)^[ │├└─]*(\w+Error)\b", TEXT)
    assert len(names) == len(set(names))
    kinds = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    assert set(names) == kinds


def test_the_document_names_every_option_of_submit():
    for name, parameter in inspect.signature(Client.submit).parameters.items():
        if parameter.kind is parameter.KEYWORD_ONLY:
            assert f"`{name}=`" in TEXT, name
