"""The command that records what a person found."""

import click

from deepfakestream.commands.context import open_client
from deepfakestream.terminal import say


@click.command()
@click.argument("job_id", metavar="ID")
@click.argument("finding", type=click.Choice(["confirmed_fake", "confirmed_real", "disputed", "none"]))
@click.option("--note", help="Anything that explains the finding.")
@click.pass_context
def review(context: click.Context, job_id: str, finding: str, note: str | None) -> None:
    """
    Record what a person found who looked at media and result.

    ID is the job's. The verdict stays as it is; 'none' withdraws the finding.
    """
    with open_client(context) as client:
        if finding == "none":
            client.withdraw_review(job_id)
        else:
            client.review(job_id, finding, note)
    say(f"{job_id} {'has no review' if finding == 'none' else finding}")
