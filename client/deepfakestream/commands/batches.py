"""The commands about batches: submit many files at once, list them, show their results, cancel and erase them."""

import json
import time
from typing import Any

import click

from deepfakestream.batch_tables import make_batches_table, print_batches_as_csv
from deepfakestream.batches import Batch
from deepfakestream.batching import BatchScan, NameOf, follow_batch, result_of, stored_name
from deepfakestream.client import Client
from deepfakestream.commands.context import Number, form_of, form_options, open_client, print_list, run_for_each_job
from deepfakestream.commands.submitting import check_receiver, fail_on_option, find_sources, submission_options
from deepfakestream.exit_statuses import FAILED, INTERRUPTED, exit_status_of
from deepfakestream.printing import ErrorPrinter, Printer, make_printer
from deepfakestream.requests.batches import MAX_ITEMS
from deepfakestream.scanning import Options
from deepfakestream.terminal import pluralize, say


@click.group()
def batch() -> None:
    """Submit up to 100 images and videos as one batch, and show what became of it."""


@batch.command()
@submission_options(
    json_help="Print one JSON object a line, with 'file' and 'job'; with --no-wait only one object, the batch.",
    called_when="once, when all jobs have ended",
    events="batch.ended",
    waited_for="the whole batch",
)
@click.pass_context
def submit(
    context: click.Context,
    /,
    sources: tuple[str, ...],
    as_json: bool,
    as_csv: bool,
    fail_on: tuple[str, ...],
    all_files: bool,
    **options: Any,
) -> None:
    """
    Submit images and videos as one batch, wait with progress, and print the results as 'scan' does.

    URLs (http or https) are fetched by the service. Files and the images and videos of a FOLDER are sent first, several
    at the same time, and then submitted together. The batch has one id, by which 'batch show' finds it.
    """
    form = form_of(as_json=as_json, as_csv=as_csv)
    if form == "csv" and not options["wait"]:
        raise click.UsageError("--csv is a table of results: leave --no-wait out, or use 'batch show --csv' later")
    check_receiver(options["webhook_url"], options["webhook_events"])
    found = find_sources(sources, all_files=all_files)
    if not 1 <= len(found) <= MAX_ITEMS:
        raise click.UsageError(
            f"a batch has 1 to {MAX_ITEMS} images and videos, and not {len(found)}: 'scan' takes any number"
        )
    began = time.monotonic()
    printer: Printer = ErrorPrinter()
    if options["wait"] or not as_json:
        printer = make_printer(form, is_waiting=options["wait"], is_stored=True)
    scanner = BatchScan(Options(**options), printer, check_first=not all_files)
    try:
        with open_client(context) as client:
            scanner.submit(client, found)
            if scanner.batch is not None and options["wait"]:
                say(f"batch {scanner.batch.id}", to_stderr=True)
                scanner.wait(client)
    except KeyboardInterrupt:
        if scanner.batch is not None:
            left = f"its jobs go on, see 'deepfakestream batch show {scanner.batch.id}'"
        elif scanner.has_submitted:
            left = "it may have been submitted, see 'deepfakestream batches'"
        else:
            left = "nothing was submitted"
        say(f"interrupted; {left}", to_stderr=True)
        context.exit(INTERRUPTED)
    if scanner.batch is not None and not options["wait"]:
        has_refused = _show_submitted(scanner.batch, scanner.name_of, as_json=as_json)
        context.exit(FAILED if has_refused or scanner.results else 0)
    printer.print_end(scanner.results, time.monotonic() - began)
    context.exit(exit_status_of(scanner.results, fail_on))


@batch.command()
@click.argument("batch_id", metavar="ID")
@form_options("Print one JSON object a line, with 'file' and 'job'.")
@fail_on_option
@click.option("--wait", "is_waiting", is_flag=True, help="Wait until all of its jobs have ended.")
@click.option(
    "--timeout",
    "timeout_s",
    type=Number(min=0, min_open=True),
    help="Seconds to wait with --wait, more than 0.",
    show_default="no limit",
)
@click.pass_context
def show(
    context: click.Context,
    batch_id: str,
    as_json: bool,
    as_csv: bool,
    fail_on: tuple[str, ...],
    is_waiting: bool,
    timeout_s: float | None,
) -> None:
    """
    Print the results of a batch as 'scan' prints them, those of jobs that have not ended as far as they are known.

    ID is a batch's, as 'batch submit' and 'batches' print it.
    """
    form = form_of(as_json=as_json, as_csv=as_csv)
    if timeout_s is not None and not is_waiting:
        raise click.UsageError("--timeout is for --wait: give both, or leave it out")
    printer = make_printer(form, is_waiting=True, is_stored=True)
    with open_client(context) as client:
        found = client.batch(batch_id)
        if is_waiting:
            try:
                results, found = follow_batch(client, found, printer, stored_name, timeout_s=timeout_s)
            except KeyboardInterrupt:
                say("interrupted; its jobs go on", to_stderr=True)
                context.exit(INTERRUPTED)
        else:
            results = [result_of(client, item, stored_name) for item in found.items]
            for result in results:
                printer.print_result(result)
    printer.print_end(results, found.duration.total_seconds())
    context.exit(exit_status_of(results, fail_on))


@click.command()
@click.option("--ended/--open", "ended", default=None, help="List only batches that have ended, or that have not.")
@click.option("--limit", type=click.IntRange(1), default=20, help="List at most this many batches.")
@form_options("Print one JSON object a line.")
@click.pass_context
def batches(context: click.Context, ended: bool | None, limit: int, as_json: bool, as_csv: bool) -> None:
    """
    List your batches, newest first; 'batch show' prints the results of one.

    Times are those of this machine's time zone.
    """
    form = form_of(as_json=as_json, as_csv=as_csv)
    with open_client(context) as client:
        found = list(client.list_batches(ended=ended, limit=limit))
    nothing = "there are no batches" if ended is None else "there are no such batches"
    print_list(found, form, as_csv=print_batches_as_csv, as_table=make_batches_table, nothing=nothing)


@batch.command()
@click.argument("batch_ids", nargs=-1, required=True, metavar="ID...")
@click.pass_context
def cancel(context: click.Context, batch_ids: tuple[str, ...]) -> None:
    """
    Cancel the jobs of batches that have not ended.

    ID is a batch's, as 'batch submit' and 'batches' print it; several can be given.
    """

    def cancel_one(client: Client, batch_id: str) -> str:
        counts = client.cancel_batch(batch_id).counts
        return f"{batch_id} {counts.cancelled} of {pluralize(counts.total, 'file')} cancelled"

    run_for_each_job(context, batch_ids, cancel_one)


@batch.command()
@click.argument("batch_ids", nargs=-1, required=True, metavar="ID...")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.pass_context
def delete(context: click.Context, batch_ids: tuple[str, ...], yes: bool) -> None:
    """
    Erase batches with all of their jobs, media and results.

    ID is a batch's, as 'batch submit' and 'batches' print it; several can be given.
    """
    if not yes:
        erased = pluralize(len(batch_ids), "batch", "batches")
        click.confirm(f"Erase {erased} with all jobs permanently?", abort=True)

    def erase(client: Client, batch_id: str) -> str:
        client.delete_batch(batch_id)
        return f"{batch_id} erased"

    run_for_each_job(context, batch_ids, erase)


def _show_submitted(made: Batch, name_of: NameOf, *, as_json: bool) -> bool:
    """Print what was submitted without waiting; return whether an item was refused."""
    refused = [item for item in made.items if item.job_id is None]
    for item in refused:
        say(f"{name_of(item)}: {item.error.detail if item.error else 'refused'}", to_stderr=True)
    if as_json:
        say(json.dumps(made.raw))
        return bool(refused)
    for item in made.items:
        if item.job_id is not None:
            say(f"{name_of(item)}: job {item.job_id} {item.status}")
    say(f"batch {made.id}: {made.counts.total - len(refused)} submitted, {len(refused)} refused")
    return bool(refused)
