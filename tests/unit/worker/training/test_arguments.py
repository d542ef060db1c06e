import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from worker.training.__main__ import main
from worker.training.arguments import SeveralValues

ROOT = Path(__file__).resolve().parents[4]
WITHOUT = """
import sys
sys.modules[{package!r}] = None  # As if it were not installed.
from worker.training.__main__ import main
sys.exit(main({arguments!r}))
"""


@click.command(cls=SeveralValues)
@click.argument("folder")
@click.option("--real", multiple=True, default=["videos", "clips"])
@click.option("--rounds", type=int, default=3)
def several(folder, real, rounds):
    click.echo(json.dumps([folder, real, rounds]))


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ("a", ["a", ["videos", "clips"], 3]),
        ("a --real b", ["a", ["b"], 3]),
        ("a --real b c --rounds 5", ["a", ["b", "c"], 5]),
        ("--rounds 5 a --real b --real c d", ["a", ["b", "c", "d"], 5]),
        ("--real=b a", ["a", ["b"], 3]),
        ("--real b c -- a", ["a", ["b", "c"], 3]),
    ],
)
def test_an_option_takes_several_values_at_once_or_one_by_one(arguments, found):
    assert json.loads(CliRunner().invoke(several, arguments.split()).stdout) == found


@pytest.mark.parametrize("arguments", ["a --real", "a --real --rounds 5", "a b", "--real a b"])
def test_missing_and_surplus_values_are_usage_errors(arguments):
    assert CliRunner().invoke(several, arguments.split()).exit_code == 2


def test_commands_are_listed_in_order_with_full_help(capsys):
    assert main(["--help"]) == 0
    help_text = capsys.readouterr().out
    assert (
        help_text.index("  crops ")
        < help_text.index("  train ")
        < help_text.index("  ship ")
        < help_text.index("  probe-outside ")
    )
    assert "..." not in help_text.partition("Commands:")[2]


@pytest.mark.parametrize(
    ("package", "arguments"),
    [
        ("PIL", ["--help"]),
        ("sklearn", ["probe-outside", "."]),
    ],
)
def test_a_missing_package_error_says_what_to_install(package, arguments):
    code = WITHOUT.format(package=package, arguments=arguments)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == (
        f"python -m worker.training: the package {package!r} is missing; install what training needs, from the "
        "checkout: pip install -c configs/constraints.txt -e '.[worker,train]'\n"
    )


def test_a_missing_project_module_is_not_reported_as_a_missing_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "worker.training.data.reencoding", None)
    with pytest.raises(ModuleNotFoundError):
        main(["reencode", ".", "--out", "out", "--crf", "28"])
