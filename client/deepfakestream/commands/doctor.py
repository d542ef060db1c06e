"""The command that finds out whether this installation and its service work."""

import json
import os

import click

from deepfakestream.connection import URL_VARIABLE, find_connection
from deepfakestream.diagnosis import describe, diagnose, is_well, summarize
from deepfakestream.exit_statuses import FAILED
from deepfakestream.terminal import say


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, with 'is_well' and 'checks'.")
@click.option(
    "--no-scan",
    is_flag=True,
    help="Do not let the service scan a tiny picture, whose job is erased afterwards.",
)
@click.pass_context
def doctor(context: click.Context, as_json: bool, no_scan: bool) -> None:
    """
    Check what is installed here, the service, and whether a tiny scan works.

    The exit status is 0 if all is well, and 1 if there is a problem. Warnings, and parts that are absent, are no
    problems.
    """
    settings = context.find_root().obj
    checks = []
    for check in diagnose(
        lambda: find_connection(settings["url"], settings["api_key"], settings["state"]),
        is_named=bool(settings["url"] or settings["state"] or os.environ.get(URL_VARIABLE)),
        with_scan=not no_scan,
    ):
        checks.append(check)
        if not as_json:
            say(describe(check))
    if as_json:
        say(json.dumps(summarize(checks)))
    context.exit(0 if is_well(checks) else FAILED)
