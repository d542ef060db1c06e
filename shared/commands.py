"""What the server's command lines have in common; click does the rest."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any, Final

import click

SETTINGS: Final = {"help_option_names": ["-h", "--help"], "show_default": True}
"""For ``context_settings``: ``-h`` as well, and every default in the help."""

POSITIVE: Final = click.FloatRange(min=0, min_open=True)
"""The type of options that are times: zero and less are refused with status 2."""
OURS: Final = ("api", "migrations", "shared", "worker")
"""Packages that are part of this one: one of their modules that is missing is a fault, and no missing installation."""


class CommandError(click.ClickException):
    """Ends a command that cannot begin, with status 2, a sentence on standard error and nothing beside it."""

    exit_code = 2

    def show(self, file: IO[Any] | None = None) -> None:
        """Write the sentence to *file*, by default standard error."""
        click.echo(self.message, file=file, err=True)


class FailedCommandError(CommandError):
    """Ends a command that has begun, with status 1, in the same way."""

    exit_code = 1


@contextmanager
def needed_packages(program: str, user: str, extras: str) -> Iterator[None]:
    """
    Turn the error of a package that is not installed into a sentence that says how to install it.

    Args:
        program: What a person called.
        user: What needs the package, as a person calls it.
        extras: Of the distribution, with commas between them.

    Raises:
        CommandError: A package of others is missing within the context.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if not package or package in OURS:
            raise
        raise CommandError(
            f"{program}: the package {package!r} is missing; install what {user} needs, from the checkout:"
            f" pip install -c configs/constraints.txt -e '.[{extras}]'"
        ) from error


def run(command: click.Command, arguments: Sequence[str] | None, program: str) -> int:
    """
    Run *command*, called *program* in its help and its errors, without ending the process.

    Args:
        arguments: Those of the process by default.

    Returns:
        The exit status.
    """
    try:
        command.main(arguments, prog_name=program)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return 0
