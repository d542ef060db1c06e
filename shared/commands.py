"""Common parts of the server's command lines, which are built with click."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any, Final

import click

SETTINGS: Final = {"help_option_names": ["-h", "--help"], "show_default": True}
"""The ``context_settings`` of every command: ``-h`` as well as ``--help``, and defaults in the help."""

POSITIVE: Final = click.FloatRange(min=0, min_open=True)
"""The type of options that hold a duration: values of zero or less are refused with status 2."""
PROJECT_PACKAGES: Final = ("api", "migrations", "shared", "worker")
"""Top-level packages of this project. A missing module of theirs is a defect, not a missing dependency."""


class CommandError(click.ClickException):
    """An error that ends a command before it begins: one sentence on standard error, exit status 2."""

    exit_code = 2

    def show(self, file: IO[Any] | None = None) -> None:
        """Write the message to *file*, by default standard error."""
        click.echo(self.message, file=file, err=True)


class FailedCommandError(CommandError):
    """An error that ends a command that has begun: one sentence on standard error, exit status 1."""

    exit_code = 1


@contextmanager
def needed_packages(program: str, user: str, extras: str) -> Iterator[None]:
    """
    Translate the error of a package that is not installed into instructions to install it.

    Args:
        program: The command that the user ran.
        user: The feature that needs the package, for the message.
        extras: The distribution's extras that include the package, separated by commas.

    Raises:
        CommandError: A third-party package is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if not package or package in PROJECT_PACKAGES:
            raise
        raise CommandError(
            f"{program}: the package {package!r} is missing; install what {user} needs, from the checkout:"
            f" pip install -c configs/constraints.txt -e '.[{extras}]'"
        ) from error


def run(command: click.Command, arguments: Sequence[str] | None, program: str) -> int:
    """
    Run *command* without ending the process.

    Args:
        arguments: The command line; by default that of the process.
        program: The name of the command in its help and its errors.

    Returns:
        The exit status.
    """
    try:
        command.main(arguments, prog_name=program)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return 0
