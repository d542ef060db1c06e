"""``python -m worker.training``: the training command line; ``commands.py`` defines its commands."""

import sys
from collections.abc import Sequence
from typing import Final

from shared.commands import CommandError, needed_packages, run

PROGRAM: Final = "python -m worker.training"


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run the command line.

    Returns:
        The exit status: 2 if a command cannot continue, with one sentence on standard error that says why.
    """
    try:
        with needed_packages(PROGRAM, "training", "worker,train"):
            # Imported here, since defining the options needs the packages of training.
            from worker.training.commands import commands

            return run(commands, arguments, PROGRAM)
    except CommandError as error:
        error.show()
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
