"""What all commands share: the connection to the service, its errors, and types of options."""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from deepfakestream.batches import Batch
from deepfakestream.client import Client
from deepfakestream.connection import find_connection
from deepfakestream.errors import DeepfakeStreamError
from deepfakestream.exit_statuses import FAILED
from deepfakestream.printing import Form
from deepfakestream.results import Job
from deepfakestream.terminal import make_console, say

if TYPE_CHECKING:
    from rich.table import Table

_Item = TypeVar("_Item", Job, Batch)


class Number(click.FloatRange):
    """A finite number within a range: not-a-number and infinity are refused."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read the number that was typed."""
        found: float = super().convert(value, param, ctx)
        if not math.isfinite(found):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return found


def form_options(json_help: str) -> Callable[[click.decorators.FC], click.decorators.FC]:
    """Return a decorator that adds ``--json`` and ``--csv``, which ``form_of`` reads."""

    def add(function: click.decorators.FC) -> click.decorators.FC:
        as_csv = click.option("--csv", "as_csv", is_flag=True, help="Print a table with a heading, as CSV.")
        return click.option("--json", "as_json", is_flag=True, help=json_help)(as_csv(function))

    return add


def form_of(*, as_json: bool, as_csv: bool) -> Form:
    """Return the form that the options choose; both together are a mistake of use."""
    if as_json and as_csv:
        raise click.UsageError("--json and --csv are two forms of the same results: choose one")
    return "json" if as_json else "csv" if as_csv else "tables"


def print_list(
    found: Sequence[_Item],
    form: Form,
    *,
    as_csv: Callable[[Sequence[_Item]], None],
    as_table: "Callable[[Sequence[_Item], int], Table]",
    nothing: str,
) -> None:
    """
    Print a list of what the service has.

    Args:
        as_csv: Prints it as CSV.
        as_table: Makes a table of it for so many columns.
        nothing: What to say to a person where the list is empty.
    """
    if form == "json":
        for each in found:
            say(json.dumps(each.raw))
    elif form == "csv":
        as_csv(found)
    elif not found:
        say(nothing, to_stderr=True)
    else:
        console = make_console()
        console.print(as_table(found, console.width))


@contextmanager
def shown_errors() -> Iterator[None]:
    """Turn errors of the SDK into click's, which are printed without a traceback and end with exit status 1."""
    try:
        yield
    except DeepfakeStreamError as error:
        raise click.ClickException(str(error)) from error


def connect(context: click.Context) -> Client:
    """
    Return a client of the service that the command line or the environment names.

    Raises:
        DeepfakeStreamError: None is named and none runs here, or its address or key is not acceptable.
    """
    settings = context.find_root().obj
    found = find_connection(settings["url"], settings["api_key"], settings["state"])
    return Client(found.url, found.api_key)


@contextmanager
def open_client(context: click.Context) -> Iterator[Client]:
    """Open the connection of a command to the service; all errors of the SDK inside become click's."""
    with shown_errors(), connect(context) as client:
        yield client


@contextmanager
def shown_write_errors(out: Path) -> Iterator[None]:
    """Turn errors of the operating system into click's, for commands that write the file *out*."""
    try:
        yield
    except OSError as error:
        raise click.ClickException(f"{out} cannot be written ({error.strerror or error})") from error


def run_for_each_job(context: click.Context, job_ids: tuple[str, ...], act: Callable[[Client, str], str]) -> None:
    """Print what *act* returns for each job, or its error, and exit."""
    failed = False
    with open_client(context) as client:
        for job_id in job_ids:
            try:
                say(act(client, job_id))
            except DeepfakeStreamError as error:
                failed = True
                say(f"{job_id}: {error}", to_stderr=True)
    context.exit(FAILED if failed else 0)
