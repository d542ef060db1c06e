"""Every command line is click's; its help describes each option and shows the defaults."""

import ast
from importlib import import_module
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = {
    "deepfakestream": "deepfakestream.cli:main",
    "api.audit": "api.audit:commands",
    "api.digest": "api.digest:commands",
    "api.keys": "api.keys:commands",
    "api.signing": "api.signing:commands",
    "api.storage": "api.storage:commands",
    "migrations": "migrations.__main__:main",
    "shared.effective_settings": "shared.effective_settings:commands",
    "worker": "worker.__main__:main",
    "worker.benchmark": "worker.benchmark.__main__:measure",
    "worker.benchmark.service": "worker.benchmark.service:measure",
    "worker.explain": "worker.explain.__main__:main_command",
    "worker.training": "worker.training.commands:commands",
    "tests.browser": "tests.browser.__main__:main",
    "tests.faults": "tests.faults.__main__:main",
    "tests.load": "tests.load.__main__:main",
    "tests.load.polling": "tests.load.polling:main",
    "tests.load.rows": "tests.load.rows:main",
    "tests.mutants": "tests.mutants.__main__:main",
    "tests.nodes": "tests.nodes.__main__:main",
}
OURS = {"migrations", "worker", "worker.benchmark", "worker.benchmark.service", "worker.explain", "worker.training"}
OURS |= {name for name in COMMANDS if name.startswith("tests.")}
"""Commands with ``shared.commands.SETTINGS``."""


def command(name):
    module, attribute = COMMANDS[name].split(":")
    return getattr(import_module(module), attribute)


def every(one, context):
    yield one, context
    if isinstance(one, click.Group):
        for name in one.list_commands(context):
            inner = one.get_command(context, name)
            yield from every(inner, click.Context(inner, info_name=name, parent=context))


@pytest.mark.parametrize("name", COMMANDS)
def test_help_describes_every_command_and_option_with_its_default(name):
    top = command(name)
    settings = top.context_settings
    for one, context in every(top, click.Context(top, info_name=name, **settings)):
        # Without white space, since lines break at blanks and hyphens.
        help_text = "".join(one.get_help(context).split())
        assert one.help, context.command_path
        for parameter in one.params:
            if name in OURS:
                assert parameter.help, f"{context.command_path}: {parameter.name}"
            if name in OURS and isinstance(parameter, click.Option) and not parameter.is_flag:
                shown = parameter.get_help_record(context)[1]
                assert "".join(parameter.help.split()) in help_text
                if isinstance(default := parameter.get_default(context), (str, int, float, Path)):
                    assert f"[default: {default}" in shown


@pytest.mark.parametrize("given", ["-1", "0"])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("worker.benchmark", ["--rounds"]),
        ("worker.benchmark", ["--threads"]),
        ("worker.training", ["train", "x", "--minutes"]),
        ("tests.faults", ["--minutes"]),
        ("tests.load", ["--seconds"]),
        ("tests.load.polling", ["--seconds"]),
        ("tests.nodes", ["--seconds"]),
    ],
    ids=lambda value: value if isinstance(value, str) else value[-1],
)
def test_durations_and_rounds_must_be_positive(name, options, given):
    done = CliRunner().invoke(command(name), [*options, given])
    assert done.exit_code == 2
    assert "is not in the range" in done.output


def test_no_command_line_is_parsed_without_click():
    for folder in ("api", "client", "migrations", "shared", "tests", "worker"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            names = {
                name
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, (ast.Import, ast.ImportFrom))
                for name in [getattr(node, "module", None), *(alias.name for alias in node.names)]
            }
            assert not names & {"argparse", "optparse", "getopt"}, path
