"""``python -m worker.training``: crops, train, evaluate and what belongs to them; see ``commands.py``."""

import sys
from collections.abc import Sequence
from typing import Final

import click

from shared.commands import run

PROGRAM: Final = "python -m worker.training"
INSTALLATION: Final = "pip install -c configs/constraints.txt -e '.[worker,train]'"
OURS: Final = ("worker", "shared")
"""Packages that are part of this one: one of their modules that is missing is a fault, and no missing installation."""


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run the command line.

    Returns:
        The exit status: 2 where a command cannot go on, with one sentence on standard error that says why.
    """
    try:
        # Here, since options are defined by what training's packages offer.
        from worker.training.commands import commands

        return run(commands, arguments, PROGRAM)
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if not package or package in OURS:
            raise
        message = f"the package {package!r} is missing; install what training needs, from the checkout: {INSTALLATION}"
        click.echo(f"{PROGRAM}: {message}", err=True)
        return 2


if __name__ == "__main__":
    sys.exit(main())
