"""The command line ``deepfakestream``."""

import io
import os
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Any, NoReturn

import click

from deepfakestream.commands.context import shown_errors
from deepfakestream.embedded_state import find_state_folder, operator_environment
from deepfakestream.exit_statuses import FAILED
from deepfakestream.terminal import prepare_output, say

OWN_COMMANDS = {
    "batch": "batches:batch",
    "batches": "batches:batches",
    "cancel": "jobs:cancel",
    "completion": "completion:completion",
    "delete": "jobs:delete",
    "doctor": "doctor:doctor",
    "evidence": "evidence:evidence",
    "evidence-key": "evidence:evidence_key",
    "explain": "explanations:explain",
    "jobs": "jobs:jobs",
    "mcp": "mcp:mcp",
    "models": "models:models",
    "report": "reports:report",
    "rescore": "rescoring:rescore",
    "review": "reviews:review",
    "scan": "scanning:scan",
    "share": "reports:share",
    "usage": "usage:usage",
    "verify": "evidence:verify",
    "watch": "streams:watch",
}
"""Command of this package → module in ``deepfakestream.commands`` and its name there; a module is imported only for its
commands and for the help, since importing all takes longer than the request of most commands."""
COMMANDS_GROUP = "deepfakestream.commands"
"""Entry points by which an installed server adds commands."""
SERVER_COMMANDS = {
    "audit": "deepfakestream-server[api]",
    "config": "deepfakestream-server",
    "demo": "deepfakestream-server[api,worker,embedded,demo]",
    "digest": "deepfakestream-server",
    "keys": "deepfakestream-server",
    "reviews": "deepfakestream-server[api]",
    "storage": "deepfakestream-server",
    "up": "deepfakestream-server[api,worker,embedded]",
}
"""Command that the server adds → what has to be installed for it."""
OPTIONS_BEFORE_COMMAND = frozenset({"--url", "--api-key", "--state"})
STARTING_COMMANDS = frozenset({"demo", "up"})
"""Commands of the server that start a stack; the others work on one that runs."""


class _Commands(click.Group):
    """The commands of this package, and those that an installed server adds."""

    def main(self, *arguments: Any, **named: Any) -> Any:
        """Run a command and exit; errors are printed without control characters, which a terminal would obey."""
        prepare_output()
        named["standalone_mode"] = False
        run: Callable[..., Any] = super().main
        try:
            sys.exit(run(*arguments, **named) or 0)
        except click.ClickException as error:
            shown: click.ClickException = error
            if isinstance(error, click.NoSuchOption) and error.option_name in OPTIONS_BEFORE_COMMAND:
                shown = _option_before_command(error)
            _print_error_and_exit(shown)
        except click.Abort:
            say("aborted", to_stderr=True)
            sys.exit(FAILED)

    def list_commands(self, ctx: click.Context) -> list[str]:
        added = (found.name for found in entry_points(group=COMMANDS_GROUP))
        return sorted({*super().list_commands(ctx), *OWN_COMMANDS, *added})

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if (own := super().get_command(ctx, name)) is not None:
            return own
        if name in OWN_COMMANDS:
            module, _, attribute = OWN_COMMANDS[name].partition(":")
            loaded: click.Command = getattr(import_module(f"deepfakestream.commands.{module}"), attribute)
            self.add_command(loaded)
            return loaded
        for found in entry_points(group=COMMANDS_GROUP, name=name):
            command: click.Command = found.load()
            return command
        if name in SERVER_COMMANDS:
            raise click.ClickException(
                f"'{name}' is a command of the server: install {SERVER_COMMANDS[name]} beside this package"
            )
        return None


def _option_before_command(error: click.NoSuchOption) -> click.NoSuchOption:
    """Return an error without click's suggestion of a similar option: the option exists, but before the command."""
    name, command = error.option_name, error.ctx.info_name if error.ctx is not None else "COMMAND"
    message = f"{name} stands before the command: deepfakestream {name} … {command} …"
    return click.NoSuchOption(name, message, ctx=error.ctx)


def _print_error_and_exit(error: click.ClickException) -> NoReturn:
    shown = io.StringIO()
    error.show(file=shown)
    say(shown.getvalue().rstrip("\n"), to_stderr=True)
    sys.exit(error.exit_code)


def _print_version(context: click.Context, _: click.Parameter, is_given: bool) -> None:
    if is_given and not context.resilient_parsing:
        say(version("deepfakestream"))
        context.exit()


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option(
    "--url", help="Address of the service; otherwise DEEPFAKESTREAM_URL, or the stack that runs on this machine."
)
@click.option(
    "--api-key",
    help="API key; otherwise DEEPFAKESTREAM_API_KEY, which other users of the machine do not see. The key of the stack"
    " on this machine is sent to that stack alone.",
)
@click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    help="State folder of the embedded stack; otherwise DEEPFAKESTREAM_STATE, or that of the running stack.",
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Print the version."
)
@click.pass_context
def main(context: click.Context, url: str | None, api_key: str | None, state: Path | None) -> None:
    """Tell whether a face in an image or a video was swapped."""
    context.obj = {"url": url, "api_key": api_key, "state": state}
    is_configured = any(
        name.startswith("DEEPFAKESTREAM_DATABASE") or name == "DEEPFAKESTREAM_CONFIG" for name in os.environ
    )
    if not is_configured and _works_on_running_stack(context.invoked_subcommand):
        with shown_errors():
            os.environ.update(operator_environment(find_state_folder(state)))


def _works_on_running_stack(name: str | None) -> bool:
    """Whether *name* is a command of the server, such as ``keys``, that works on the stack that runs here."""
    if not name or name in OWN_COMMANDS or name in STARTING_COMMANDS:
        return False
    return bool(entry_points(group=COMMANDS_GROUP, name=name))


@main.command("version")
def show_version() -> None:
    """Print the version."""
    say(version("deepfakestream"))
