"""Commands about jobs: list, cancel and delete them."""

import click

from deepfakestream.client import Client
from deepfakestream.commands.context import form_of, form_options, open_client, print_list, run_for_each_job
from deepfakestream.printing import print_jobs_as_csv
from deepfakestream.tables import make_jobs_table
from deepfakestream.terminal import pluralize


@click.command()
@click.option(
    "--status",
    type=click.Choice(["queued", "running", "succeeded", "failed", "cancelled"]),
    help="List only jobs with this status.",
)
@click.option("--limit", type=click.IntRange(1), default=20, help="List at most this many jobs.")
@form_options("Print one JSON object a line.")
@click.pass_context
def jobs(context: click.Context, status: str | None, limit: int, as_json: bool, as_csv: bool) -> None:
    """
    List your jobs, newest first.

    Times are those of this machine's time zone.
    """
    form = form_of(as_json=as_json, as_csv=as_csv)
    with open_client(context) as client:
        found = list(client.list(status=status, limit=limit))
    nothing = "there are no such jobs" if status else "there are no jobs"
    print_list(found, form, as_csv=print_jobs_as_csv, as_table=make_jobs_table, nothing=nothing)


@click.command()
@click.argument("job_ids", nargs=-1, required=True, metavar="ID...")
@click.pass_context
def cancel(context: click.Context, job_ids: tuple[str, ...]) -> None:
    """
    Cancel jobs.

    ID is a job's, as 'scan --no-wait' and 'jobs' print it; several can be given.
    """
    run_for_each_job(context, job_ids, lambda client, job_id: f"{job_id} {client.cancel(job_id).status}")


@click.command()
@click.argument("job_ids", nargs=-1, required=True, metavar="ID...")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.pass_context
def delete(context: click.Context, job_ids: tuple[str, ...], yes: bool) -> None:
    """
    Erase jobs with their media and results.

    ID is a job's, as 'scan --no-wait' and 'jobs' print it; several can be given.
    """
    if not yes:
        click.confirm(f"Erase {pluralize(len(job_ids), 'job')} permanently?", abort=True)

    def erase(client: Client, job_id: str) -> str:
        client.delete(job_id)
        return f"{job_id} erased"

    run_for_each_job(context, job_ids, erase)
