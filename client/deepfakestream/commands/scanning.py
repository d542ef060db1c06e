"""The command that scans files."""

import sys
from typing import Any

import click
from click.core import ParameterSource

from deepfakestream.commands.context import Number, form_of, form_options, open_client, shown_errors
from deepfakestream.exit_statuses import INTERRUPTED, exit_status_of
from deepfakestream.printing import make_printer
from deepfakestream.scanning import Options, Scan
from deepfakestream.selection import STANDARD_INPUT, select_sources
from deepfakestream.terminal import say


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="FILE|FOLDER|URL|-...", type=click.Path(allow_dash=True))
@form_options("Print one JSON object a line, with 'file' and 'job'.")
@click.option(
    "--fail-on",
    type=click.Choice(["fake", "real", "inconclusive", "not_applicable"]),
    multiple=True,
    help="Exit with status 3 if a verdict is this; repeatable.",
    show_default=False,
)
@click.option(
    "--all",
    "all_files",
    is_flag=True,
    help="Send every file, including hidden files of a folder and files that are not recognised as images or videos.",
)
@click.option("--local", is_flag=True, help="Scan in this process: no service, no database.")
@click.option(
    "--model",
    help="Name of a checkpoint; 'deepfakestream models' lists them.",
    show_default="the service's, or with --local this package's",
)
@click.option(
    "--sample-fps",
    type=Number(0.1, 30),
    help="Frames sampled per second of video.",
    show_default="the checkpoint's, mostly 2",
)
@click.option(
    "--segment-seconds",
    type=Number(1, 60),
    help="Length of a segment in seconds.",
    show_default="the checkpoint's, mostly 5",
)
@click.option(
    "--webhook-url", help="Address that the service calls when a job ends; not with --local.", show_default="none"
)
@click.option(
    "--webhook-event",
    "webhook_events",
    multiple=True,
    metavar="EVENT",
    help="Call that address only for this: job.succeeded, job.failed or job.cancelled; repeatable.",
    show_default="all of them",
)
@click.option(
    "--explain",
    is_flag=True,
    help="Explain the faces once a job has succeeded, for 'explain' and the report; not with --local.",
)
@click.option(
    "--timeout",
    "timeout_s",
    type=Number(min=0, min_open=True),
    help="Seconds to wait for each file, more than 0; not with --local.",
    show_default="no limit",
)
@click.option("--wait/--no-wait", default=True, help="Wait for results, or only submit; --local waits always.")
@click.pass_context
def scan(
    context: click.Context,
    /,
    sources: tuple[str, ...],
    as_json: bool,
    as_csv: bool,
    fail_on: tuple[str, ...],
    all_files: bool,
    local: bool,
    **options: Any,
) -> None:
    """
    Scan images and videos: submit them, show the progress, and print a table for each.

    FILE is an image or a video; a FOLDER stands for all images and videos inside; a URL (http or https) is fetched by
    the service; - is standard input.
    """
    if local:
        _refuse_service_options(context)
    if options["webhook_events"] and options["webhook_url"] is None:
        raise click.UsageError("--webhook-event needs --webhook-url, the address that is called")
    form = form_of(as_json=as_json, as_csv=as_csv)
    if STANDARD_INPUT in sources and sys.stdin.isatty():
        raise click.UsageError("standard input is a terminal: pipe a file into this command, or name the file")
    found = select_sources(sources, all_files=all_files)
    if skipped := found.describe_skipped():
        say(skipped, to_stderr=True)
    if not found.sources:
        raise click.UsageError("there are no images and no videos in the given folders: --all sends every file")
    printer = make_printer(form, is_waiting=options["wait"], is_stored=not local)
    scanner = Scan(Options(**options), printer, check_first=not all_files)
    try:
        if local:
            with shown_errors():
                results = scanner.scan_locally(found.sources)
        else:
            with open_client(context) as client:
                results = scanner.scan_with_service(client, found.sources)
    except KeyboardInterrupt:
        if local:
            left = "the scan was stopped, and nothing goes on"
        elif scanner.has_submitted:
            left = "submitted jobs go on, see 'deepfakestream jobs'"
        else:
            left = "nothing was submitted"
        say(f"interrupted; {left}", to_stderr=True)
        context.exit(INTERRUPTED)
    context.exit(exit_status_of(results, fail_on))


def _refuse_service_options(context: click.Context) -> None:
    """Refuse options that have no effect with ``--local``."""
    service_options = {
        "webhook_url": "--webhook-url",
        "webhook_events": "--webhook-event",
        "explain": "--explain",
        "timeout_s": "--timeout",
        "wait": "--no-wait",
    }
    for name, option in service_options.items():
        is_given = context.get_parameter_source(name) is not ParameterSource.DEFAULT
        if is_given and not (name == "wait" and context.params[name]):
            raise click.UsageError(f"{option} is for a service, and --local scans without one: leave one of them out")
