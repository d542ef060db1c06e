"""The command that scores stored media again."""

import click

from deepfakestream.commands.context import open_client
from deepfakestream.errors import DeepfakeStreamError
from deepfakestream.exit_statuses import FAILED, INTERRUPTED
from deepfakestream.rescoring import rescore_jobs, select_outdated_jobs
from deepfakestream.results import Job
from deepfakestream.tables import format_change
from deepfakestream.terminal import pluralize, say


@click.command()
@click.argument("job_ids", nargs=-1, metavar="[ID...]")
@click.option("--all", "every", is_flag=True, help="Score all media whose newest result is of another checkpoint.")
@click.option("--model", help="Checkpoint to score with; otherwise that of each job. Needed for --all.")
@click.option("--sample-fps", type=float, help="Frames sampled a second; otherwise as in each job.")
@click.option("--segment-seconds", type=float, help="Length of a segment; otherwise as in each job.")
@click.pass_context
def rescore(
    context: click.Context,
    job_ids: tuple[str, ...],
    every: bool,
    model: str | None,
    sample_fps: float | None,
    segment_seconds: float | None,
) -> None:
    """
    Score the stored media of jobs again, and print what changed.

    ID is a job's, as 'scan --no-wait' and 'jobs' print it; several can be given. Each makes a new job. The exit status
    is 1 if one of them could not be made or did not succeed.
    """
    if every == bool(job_ids):
        raise click.UsageError("give the ids of jobs, or --all")
    if every and (model is None or sample_fps is not None or segment_seconds is not None):
        raise click.UsageError("--all needs --model, and takes the other options from each job")
    has_failed = False

    def say_change(before: Job, after: Job) -> None:
        nonlocal has_failed
        has_failed |= after.status != "succeeded"
        say(format_change(before, after))

    def say_gone(job: Job, error: DeepfakeStreamError) -> None:
        nonlocal has_failed
        has_failed = True
        say(f"{job.id}: {error}", to_stderr=True)

    try:
        with open_client(context) as client:
            if every:
                jobs = select_outdated_jobs(client, model or "")
                say(f"{pluralize(len(jobs), 'job')} to score again with {model}", to_stderr=True)
                rescore_jobs(client, jobs, model or "", say_change, say_gone)
            for job_id in job_ids:
                try:
                    made = client.rescore(job_id, model=model, sample_fps=sample_fps, segment_seconds=segment_seconds)
                    say_change(client.get(job_id), client.wait(made.id))
                except DeepfakeStreamError as error:
                    has_failed = True
                    say(f"{job_id}: {error}", to_stderr=True)
    except KeyboardInterrupt:
        say("interrupted; the job that was made last goes on, see 'deepfakestream jobs'", to_stderr=True)
        context.exit(INTERRUPTED)
    context.exit(FAILED if has_failed else 0)
