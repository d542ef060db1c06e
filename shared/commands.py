"""What the server's command lines have in common; click does the rest."""

from collections.abc import Sequence
from typing import IO, Any, Final

import click

SETTINGS: Final = {"help_option_names": ["-h", "--help"], "show_default": True}
"""For ``context_settings``: ``-h`` as well, and every default in the help."""


class CommandError(click.ClickException):
    """Ends a command that cannot begin, with status 2, a sentence on standard error and nothing beside it."""

    exit_code = 2

    def show(self, file: IO[Any] | None = None) -> None:
        """Write the sentence to *file*, by default standard error."""
        click.echo(self.message, file=file, err=True)


class FailedCommandError(CommandError):
    """Ends a command that has begun, with status 1, in the same way."""

    exit_code = 1


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
