"""The command that shows usage."""

import json
from datetime import datetime
from typing import Final

import click
from rich.table import Table

from deepfakestream.commands.context import form_of, form_options, open_client
from deepfakestream.printing import format_csv_row
from deepfakestream.tables import ID_WIDTH, MIN_FULL_WIDTH
from deepfakestream.terminal import make_console, safe_text, say
from deepfakestream.usage import Usage, UsageTotals

CSV_COLUMNS: Final = ("day", "api_key_id", "key_name", "jobs", "media", "seconds", "faces", "bytes")
_DAY: Final = click.DateTime(["%Y-%m-%d"])


@click.command()
@click.option(
    "--from",
    "first",
    type=_DAY,
    metavar="YYYY-MM-DD",
    help="The first day (UTC).",
    show_default="29 days before the last one",
)
@click.option("--to", "last", type=_DAY, metavar="YYYY-MM-DD", help="The last day, included.", show_default="today")
@form_options("Print the document of the service as one JSON object.")
@click.pass_context
def usage(context: click.Context, first: datetime | None, last: datetime | None, as_json: bool, as_csv: bool) -> None:
    """
    Show what was analysed for you, by day and API key, and in all.

    Days are those of UTC on which jobs ended. Media are jobs of which something was analysed, seconds those of videos,
    faces those that were scored, bytes the sizes of the files.
    """
    form = form_of(as_json=as_json, as_csv=as_csv)
    with open_client(context) as client:
        found = client.usage(None if first is None else first.date(), None if last is None else last.date())
    if form == "json":
        say(json.dumps(found.raw))
    elif form == "csv":
        _print_csv(found)
    elif not found.items:
        say(f"nothing was analysed from {found.first_day} to {found.last_day}", to_stderr=True)
    else:
        _print_table(found)


def _print_csv(found: Usage) -> None:
    say(format_csv_row(CSV_COLUMNS))
    for item in found.items:
        values = (item.jobs, item.media, round(item.seconds, 3), item.faces, item.bytes)
        say(format_csv_row((item.day.isoformat(), item.api_key_id, item.key_name, *values)))


def _print_table(found: Usage) -> None:
    """Print a line for each day and key, and the sums; a narrow terminal gets no ids of keys."""
    console = make_console()
    has_ids = console.width >= MIN_FULL_WIDTH
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_footer=True)
    total = _cells(found.total)
    table.add_column("day", no_wrap=True, footer="total")
    if has_ids:
        table.add_column("key id", no_wrap=True, min_width=ID_WIDTH)
    table.add_column("key", overflow="fold")
    for heading, sum_ in zip(("jobs", "media", "seconds", "faces", "MB"), total, strict=True):
        table.add_column(heading, justify="right", no_wrap=True, footer=sum_)
    for item in found.items:
        ids = (safe_text(item.api_key_id),) if has_ids else ()
        table.add_row(item.day.isoformat(), *ids, safe_text(item.key_name), *_cells(item))
    console.print(table)


def _cells(found: UsageTotals) -> tuple[str, ...]:
    return (str(found.jobs), str(found.media), f"{found.seconds:.1f}", str(found.faces), f"{found.bytes / 1e6:.1f}")
