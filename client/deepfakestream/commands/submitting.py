"""What the commands that submit files share: their arguments and options, and the checks of these."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import click

from deepfakestream.commands.context import Number, form_options
from deepfakestream.selection import STANDARD_INPUT, select_sources
from deepfakestream.terminal import say


def fail_on_option(function: click.decorators.FC) -> click.decorators.FC:
    """Add ``--fail-on``, whose verdicts ``exit_status_of`` takes."""
    return click.option(
        "--fail-on",
        type=click.Choice(["fake", "real", "inconclusive", "not_applicable"]),
        multiple=True,
        help="Exit with status 3 if a verdict is this; repeatable.",
        show_default=False,
    )(function)


def submission_options(
    *, json_help: str, called_when: str, events: str, waited_for: str
) -> Callable[[click.decorators.FC], click.decorators.FC]:
    """
    Return a decorator that adds the sources and the options of a command that submits files.

    The command has the arguments ``sources``, ``as_json``, ``as_csv``, ``fail_on`` and ``all_files``, and those of
    ``Options``.

    Args:
        json_help: What ``--json`` prints.
        called_when: When the service calls the address of ``--webhook-url``.
        events: The events that ``--webhook-event`` can name.
        waited_for: What the seconds of ``--timeout`` are for.
    """
    decorators: list[Callable[[Any], Any]] = [
        click.argument(
            "sources", nargs=-1, required=True, metavar="FILE|FOLDER|URL|-...", type=click.Path(allow_dash=True)
        ),
        form_options(json_help),
        fail_on_option,
        click.option(
            "--all",
            "all_files",
            is_flag=True,
            help="Send every file, including hidden files of a folder and files that are not recognised as images or"
            " videos.",
        ),
        click.option(
            "--model",
            help="Name of a checkpoint; 'deepfakestream models' lists them.",
            show_default="the service's",
        ),
        click.option(
            "--sample-fps",
            type=Number(0.1, 30),
            help="Frames sampled per second of video.",
            show_default="the checkpoint's, mostly 2",
        ),
        click.option(
            "--segment-seconds",
            type=Number(1, 60),
            help="Length of a segment in seconds.",
            show_default="the checkpoint's, mostly 5",
        ),
        click.option("--webhook-url", help=f"Address that the service calls {called_when}.", show_default="none"),
        click.option(
            "--webhook-event",
            "webhook_events",
            multiple=True,
            metavar="EVENT",
            callback=_check_events,
            help=f"Call that address only for this: {events}; repeatable.",
            show_default="all of them",
        ),
        click.option(
            "--explain",
            is_flag=True,
            help="Explain the faces once a job has succeeded, for 'explain' and the report.",
        ),
        click.option(
            "--timeout",
            "timeout_s",
            type=Number(min=0, min_open=True),
            help=f"Seconds to wait for {waited_for}, more than 0.",
            show_default="no limit",
        ),
        click.option("--wait/--no-wait", default=True, help="Wait for results, or only submit."),
    ]

    def add(function: click.decorators.FC) -> click.decorators.FC:
        for decorate in reversed(decorators):
            function = decorate(function)
        return function

    return add


def find_sources(sources: Sequence[str], *, all_files: bool) -> list[str]:
    """
    Return the files and addresses that *sources* stand for, and say what was left out of folders.

    Raises:
        click.UsageError: Standard input is one of them, and a terminal.
    """
    if STANDARD_INPUT in sources and sys.stdin.isatty():
        raise click.UsageError("standard input is a terminal: pipe a file into this command, or name the file")
    found = select_sources(sources, all_files=all_files)
    if skipped := found.describe_skipped():
        say(skipped, to_stderr=True)
    return list(found.sources)


def check_receiver(webhook_url: str | None, webhook_events: Sequence[str]) -> None:
    """Refuse events without an address that is called for them, as a mistake of use."""
    if webhook_events and webhook_url is None:
        raise click.UsageError("--webhook-event needs --webhook-url, the address that is called")


def _check_events(_context: click.Context, _option: click.Parameter, events: tuple[str, ...]) -> tuple[str, ...]:
    for event in events:
        if "," in event:
            raise click.BadParameter(f"{event!r} has a comma: give the option once for each event.")
    return events
