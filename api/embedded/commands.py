"""
The commands ``up`` and ``demo``, which the server adds to the command line ``deepfakestream``.

The command line finds them by the entry points of the group ``deepfakestream.commands`` (setup.cfg).
"""

import contextlib
import shlex
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import click
from deepfakestream.embedded_state import announce_stack, choose_state_folder
from deepfakestream.errors import DeepfakeStreamError
from deepfakestream.exit_statuses import INTERRUPTED, exit_status_of
from deepfakestream.terminal import make_console, say

from api.embedded.demo import print_step, run_demo
from api.embedded.stack import EmbeddedStack


@click.command()
@click.option(
    "--port", type=click.IntRange(1, 65535), help="Port of the API; otherwise the first free one from 8000 on."
)
@click.option(
    "--flower-port", type=click.IntRange(1, 65535), help="Port of Flower; otherwise the first free one from 5555 on."
)
@click.option(
    "--push-port",
    type=click.IntRange(1, 65535),
    help="Port for publishers of live streams; otherwise the first free one from 1935 on.",
)
@click.pass_context
def up(context: click.Context, port: int | None, flower_port: int | None, push_port: int | None) -> None:
    """Run the whole service on this machine until Ctrl-C."""
    _stop_on_signals()
    try:
        run_stack(_state_folder(context), port=port, flower_port=flower_port, push_port=push_port)
    except KeyboardInterrupt:
        # The terminal may have closed.
        with contextlib.suppress(OSError):
            say("stopped")
    except DeepfakeStreamError as error:
        raise click.ClickException(str(error)) from error


@click.command()
@click.pass_context
def demo(context: click.Context) -> None:
    """Make a real and a swapped video, start the whole service, scan both, stop everything."""
    _stop_on_signals()
    try:
        results = run_demo(_state_folder(context), make_console())
    except KeyboardInterrupt:
        context.exit(INTERRUPTED)
    except DeepfakeStreamError as error:
        raise click.ClickException(str(error)) from error
    context.exit(exit_status_of(results))


def run_stack(state: Path, *, port: int | None, flower_port: int | None, push_port: int | None) -> None:
    """
    Run the service with its state in *state* until KeyboardInterrupt.

    Raises:
        StackError: It cannot be started, or a part of it keeps crashing.
    """
    with (
        EmbeddedStack(state, port=port, flower_port=flower_port, push_port=push_port, say=print_step) as stack,
        announce_stack(stack.state) as is_announced,
    ):
        program = program_for_another_terminal(stack.state, is_announced=is_announced)
        say(
            f"\nAPI            {stack.url}   documentation {stack.url}/docs\n"
            f"page           {stack.url}/   for people: upload files, list jobs\n"
            f"Flower         {stack.flower_url}   user operator, password in {stack.flower_password_file}\n"
            f"publishers     {stack.push_url}   stream keys by '{program} watch --push'\n"
            f"metrics        {stack.url}/metrics, {', '.join(stack.metrics_urls)}\n"
            f"API key        in {stack.api_key_file}\n"
            f"webhook secret in {stack.webhook_secret_file}\n"
            f"logs           {stack.state / 'logs'}\n\n"
            f"Ready. Try '{program} scan FILE' in another terminal; Ctrl-C stops everything."
        )
        stack.watch()


def program_for_another_terminal(state: Path, *, is_announced: bool) -> str:
    """
    Return what to type in another terminal to run this program on the stack whose state is in *state*.

    Args:
        is_announced: Whether commands find the stack without being given its folder.
    """
    program = Path(sys.argv[0]).absolute()
    on_path = shutil.which("deepfakestream")
    name = "deepfakestream" if on_path and Path(on_path).absolute() == program else shlex.quote(str(program))
    return name if is_announced else f"{name} --state {shlex.quote(str(state))}"


def _state_folder(context: click.Context) -> Path:
    """Return the folder that the option ``--state`` of the command line chooses, or its default."""
    return choose_state_folder((context.find_root().obj or {}).get("state"))


def _stop_on_signals() -> None:
    """
    Make SIGTERM and SIGHUP end a command as Ctrl-C does, so that it stops what it started.

    SIGINT is set as well, because a shell that starts a command in the background lets it ignore SIGINT. SIGHUP stays
    ignored where it is, as under nohup: such a command goes on when its terminal closes. A closing terminal may send it
    twice, by the shell and by the kernel; the second one must not interrupt the stopping.
    """

    def interrupt(number: int, _: Any) -> None:
        if number == signal.SIGHUP:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGINT, interrupt)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, interrupt)
