import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from worker.training.__main__ import main
from worker.training.arguments import make_parser

ROOT = Path(__file__).resolve().parents[4]
WITHOUT = """
import sys
sys.modules[{package!r}] = None  # As if it were not installed.
from worker.training.__main__ import main
sys.exit(main({arguments!r}))
"""


def commands():
    (action,) = (one for one in make_parser()._actions if isinstance(one, argparse._SubParsersAction))
    return action.choices


@pytest.mark.parametrize("name", sorted(commands()))
def test_help_says_what_every_option_does_and_what_its_default_is(name):
    parser = commands()[name]
    told = " ".join(parser.format_help().split())
    for action in parser._actions:
        assert action.help, action.dest
        if action.default not in (None, False, argparse.SUPPRESS):
            assert f"(default: {action.default})" in told
    assert "default: None" not in told


@pytest.mark.parametrize(
    ("package", "arguments"),
    [
        ("PIL", ["--help"]),
        ("sklearn", ["probe-outside", "."]),
    ],
)
def test_a_missing_package_is_one_sentence_that_says_what_to_install(package, arguments):
    code = WITHOUT.format(package=package, arguments=arguments)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == (
        f"python -m worker.training: the package {package!r} is missing; install what training needs, from the "
        "checkout: pip install -c configs/constraints.txt -e '.[worker,train]'\n"
    )


def test_a_missing_module_of_our_own_is_a_fault_and_no_missing_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "worker.training.data.reencode", None)
    with pytest.raises(ModuleNotFoundError):
        main(["reencode", ".", "--out", "out", "--crf", "28"])
