"""The command that scans files."""

from typing import Any

import click
from click.core import ParameterSource

from deepfakestream.commands.context import form_of, open_client, shown_errors
from deepfakestream.commands.submitting import check_receiver, find_sources, submission_options
from deepfakestream.exit_statuses import INTERRUPTED, exit_status_of
from deepfakestream.printing import make_printer
from deepfakestream.scanning import Options, Scan
from deepfakestream.terminal import say


@click.command()
@submission_options(
    json_help="Print one JSON object a line, with 'file' and 'job'.",
    called_when="when a job ends",
    events="job.succeeded, job.failed or job.cancelled",
    waited_for="each file",
)
@click.option(
    "--local",
    is_flag=True,
    help="Scan in this process, with the checkpoints of this package: no service, no database. --webhook-url,"
    " --webhook-event, --explain, --timeout and --no-wait are for a service.",
)
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
    check_receiver(options["webhook_url"], options["webhook_events"])
    form = form_of(as_json=as_json, as_csv=as_csv)
    found = find_sources(sources, all_files=all_files)
    if not found:
        raise click.UsageError("there are no images and no videos in the given folders: --all sends every file")
    printer = make_printer(form, is_waiting=options["wait"], is_stored=not local)
    scanner = Scan(Options(**options), printer, check_first=not all_files)
    try:
        if local:
            with shown_errors():
                results = scanner.scan_locally(found)
        else:
            with open_client(context) as client:
                results = scanner.scan_with_service(client, found)
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
