"""The command line, ``deepfakestream``."""

import json
import os
import signal
import time
from collections.abc import Sequence
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from deepfakestream.client import Client
from deepfakestream.connection import default_state, find_connection, operator_environment
from deepfakestream.demo import make_demo_videos
from deepfakestream.errors import DeepfakeStreamError
from deepfakestream.results import Job
from deepfakestream.scanning import Options, Scan, Scanned, expand
from deepfakestream.tables import jobs_table

FAILED = 1
FOUND = 3
INTERRUPTED = 130
COMMANDS_GROUP = "deepfakestream.commands"


class _Commands(click.Group):
    """The built-in commands, and those that an installed server adds."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *(found.name for found in entry_points(group=COMMANDS_GROUP))})

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if (own := super().get_command(ctx, name)) is not None:
            return own
        for found in entry_points(group=COMMANDS_GROUP, name=name):
            command: click.Command = found.load()
            return command
        return None


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--url", help="The service; otherwise DEEPFAKESTREAM_URL, or the stack that runs on this machine.")
@click.option("--api-key", help="Otherwise DEEPFAKESTREAM_API_KEY, which other users of the machine do not see.")
@click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the embedded stack; otherwise DEEPFAKESTREAM_STATE.",
)
@click.pass_context
def main(context: click.Context, url: str | None, api_key: str | None, state: Path | None) -> None:
    """Tell whether a face in an image or a video was swapped."""
    folder = (state or default_state()).absolute()
    context.obj = {"url": url, "api_key": api_key, "state": folder}
    if not any(name.startswith("DEEPFAKESTREAM_DATABASE") or name == "DEEPFAKESTREAM_CONFIG" for name in os.environ):
        # A server's commands, such as "keys", then work on the stack that runs here.
        os.environ.update(operator_environment(folder) if _is_added(context.invoked_subcommand) else {})


def _is_added(name: str | None) -> bool:
    return bool(name and entry_points(group=COMMANDS_GROUP, name=name))


def _client(context: click.Context) -> Client:
    settings = context.find_root().obj
    found = find_connection(settings["url"], settings["api_key"], settings["state"])
    return Client(found.url, found.api_key)


def _fail(error: Exception) -> click.ClickException:
    # click exits with 1 for it.
    return click.ClickException(str(error))


@main.command()
@click.argument("sources", nargs=-1, required=True, metavar="FILE|FOLDER|URL…")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line, with 'file' and 'job'.")
@click.option(
    "--fail-on",
    type=click.Choice(["fake", "real", "inconclusive", "not_applicable"]),
    multiple=True,
    help="Exit with status 3 if a verdict is this; repeatable.",
)
@click.option("--local", is_flag=True, help="Scan in this process: no service, no database.")
@click.option("--model", help="A checkpoint's name.")
@click.option("--sample-fps", type=click.FloatRange(0.1, 30), help="Frames looked at a second.")
@click.option("--segment-seconds", type=click.FloatRange(1, 60), help="Length of a segment.")
@click.option("--webhook-url", help="Called by the service when a job ends.")
@click.option("--timeout", "timeout_s", type=float, help="Seconds to wait for each file.")
@click.option("--wait/--no-wait", default=True, help="Wait for results, or only submit.")
@click.pass_context
def scan(
    context: click.Context,
    /,
    sources: tuple[str, ...],
    as_json: bool,
    fail_on: tuple[str, ...],
    local: bool,
    **options: Any,
) -> None:
    """Scan images and videos: submit, wait with progress, print a table."""
    console = Console(stderr=as_json)
    found = list(dict.fromkeys(expand(sources)))
    if not found:
        raise click.UsageError("there are no files in what was given")
    scanner = Scan(Options(**options), console, as_json=as_json)
    try:
        if local:
            results = scanner.locally(found)
        else:
            with _client(context) as client:
                results = scanner.through(client, found)
    except DeepfakeStreamError as error:
        raise _fail(error) from error
    except KeyboardInterrupt:
        console.print("interrupted; submitted jobs go on, see 'deepfakestream jobs'")
        context.exit(INTERRUPTED)
    context.exit(_status(results, fail_on))


def _status(results: list[Scanned], fail_on: tuple[str, ...]) -> int:
    if any(result.job is not None and result.job.verdict in fail_on for result in results):
        return FOUND
    failed = [result for result in results if result.job is None or result.job.status in ("failed", "cancelled")]
    return FAILED if failed else 0


@main.command()
@click.option("--status", type=click.Choice(["queued", "running", "succeeded", "failed", "cancelled"]))
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one job a line.")
@click.pass_context
def jobs(context: click.Context, status: str | None, limit: int, as_json: bool) -> None:
    """List your jobs, newest first."""
    try:
        with _client(context) as client:
            found = list(client.list(status=status, limit=limit))
    except DeepfakeStreamError as error:
        raise _fail(error) from error
    if as_json:
        for job in found:
            click.echo(json.dumps(job.raw))
    else:
        console = Console()
        console.print(jobs_table(found, console.width))


@main.command()
@click.argument("job_ids", nargs=-1, required=True, metavar="ID…")
@click.pass_context
def cancel(context: click.Context, job_ids: tuple[str, ...]) -> None:
    """Stop jobs."""
    _each(context, job_ids, lambda client, job_id: f"{job_id} {client.cancel(job_id).status}")


@main.command()
@click.argument("job_ids", nargs=-1, required=True, metavar="ID…")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def delete(context: click.Context, job_ids: tuple[str, ...], yes: bool) -> None:
    """Erase jobs with their media and results."""
    if not yes:
        click.confirm(f"Erase {len(job_ids)} job(s) for good?", abort=True)

    def erase(client: Client, job_id: str) -> str:
        client.delete(job_id)
        return f"{job_id} erased"

    _each(context, job_ids, erase)


def _each(context: click.Context, job_ids: tuple[str, ...], act: Any) -> None:
    failed = False
    try:
        with _client(context) as client:
            for job_id in job_ids:
                try:
                    click.echo(act(client, job_id))
                except DeepfakeStreamError as error:
                    failed = True
                    click.echo(f"{job_id}: {error}", err=True)
    except DeepfakeStreamError as error:
        raise _fail(error) from error
    context.exit(FAILED if failed else 0)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print one model a line.")
@click.option("--card", is_flag=True, help="With their model cards: what they are good for, and where they fail.")
@click.pass_context
def models(context: click.Context, as_json: bool, card: bool) -> None:
    """List the checkpoints that can be asked for."""
    try:
        with _client(context) as client:
            found = client.models()
    except DeepfakeStreamError as error:
        raise _fail(error) from error
    for model in found:
        if as_json:
            click.echo(json.dumps(model))
        else:
            marks = "trained" if model["trained"] else "untrained"
            default = ", default" if model["is_default"] else ""
            click.echo(f"{model['name']} {model['version']} ({marks}{default})")
            if card:
                click.echo(f"\n{model['model_card']}")


@main.command("version")
def show_version() -> None:
    """Print the version."""
    click.echo(version("deepfakestream"))


@main.command()
@click.option("--port", type=click.IntRange(1, 65535), help="Of the API; otherwise the first free one from 8000 on.")
@click.option("--flower-port", type=click.IntRange(1, 65535), help="Otherwise the first free one from 5555 on.")
@click.pass_context
def up(context: click.Context, port: int | None, flower_port: int | None) -> None:
    """Run the whole service on this machine until Ctrl-C."""
    from deepfakestream.stack.embedded import EmbeddedStack

    _stop_on_signals()
    stack = EmbeddedStack(context.obj["state"], port=port, flower_port=flower_port, say=_say)
    try:
        with stack:
            click.echo(
                f"\nAPI            {stack.url}   documentation {stack.url}/docs\n"
                f"Flower         {stack.flower_url}   user operator, password in {stack.flower_password_file}\n"
                f"metrics        {stack.url}/metrics, {', '.join(stack.metrics_urls)}\n"
                f"API key        in {stack.api_key_file}\n"
                f"webhook secret in {stack.webhook_secret_file}\n"
                f"logs           {stack.state / 'logs'}\n\n"
                "Ready. Try 'deepfakestream scan FILE' in another terminal; Ctrl-C stops everything."
            )
            stack.watch()
    except KeyboardInterrupt:
        click.echo("stopped")
    except DeepfakeStreamError as error:
        raise _fail(error) from error


@main.command()
@click.pass_context
def demo(context: click.Context) -> None:
    """Make a real and a swapped video, start the whole service, scan both, stop everything."""
    from deepfakestream.stack.embedded import EmbeddedStack

    _stop_on_signals()
    console = Console()
    began = time.monotonic()
    try:
        folder = context.obj["state"] / "demo"
        folder.mkdir(parents=True, exist_ok=True)
        _say("making two videos from two portraits in the public domain: as they are, and with their faces swapped")
        videos = make_demo_videos(folder)
        with EmbeddedStack(context.obj["state"], say=_say) as stack:
            _say(f"ready after {time.monotonic() - began:.1f} s, API at {stack.url}")
            key = stack.api_key_file.read_text().strip()
            with Client(stack.url, key) as client:
                scanner = Scan(Options(timeout_s=600.0, segment_seconds=3.0), console, as_json=False)
                results = scanner.through(client, [str(video) for video in videos])
                _explain(console, [result.job for result in results])
            _say("stopping")
    except KeyboardInterrupt:
        context.exit(INTERRUPTED)
    except DeepfakeStreamError as error:
        raise _fail(error) from error
    _say(f"done after {time.monotonic() - began:.1f} s; the two videos are in {folder}")
    context.exit(_status(results, ()))


def _threshold(job: Job) -> float:
    """From where on the job's score is called fake, given how much was seen."""
    if job.evidence is not None and job.evidence.fake_from is not None:
        return job.evidence.fake_from
    return job.model.threshold if job.model is not None else 1.0


def _explain(console: Console, jobs: Sequence[Job | None]) -> None:
    """Say what the scores of the real and the swapped video are worth, as they were measured."""
    real, swapped = jobs
    if real is None or swapped is None or real.model is None:
        return
    if not real.model.trained:
        text = (
            "This checkpoint is untrained: its numbers carry no information about any face, which is why the"
            " verdicts are inconclusive."
        )
    elif real.fake_score is None or swapped.fake_score is None:
        text = "One of the videos got no score, so there is nothing to compare."
    else:
        thresholds = [_threshold(job) for job in (real, swapped)]
        sides = real.fake_score < thresholds[0], swapped.fake_score >= thresholds[1]
        measured = (
            f"the real video {real.fake_score:.3f} with the threshold {thresholds[0]:.3f}, the swapped one"
            f" {swapped.fake_score:.3f} with {thresholds[1]:.3f}"
        )
        text = (
            f"Measured: {measured}. "
            + {
                (True, True): "Both are on the right side of the threshold.",
                (True, False): "The swapped one stays below the threshold: this swap was missed.",
                (False, True): "The real one is above the threshold: a false alarm.",
                (False, False): "Both are on the wrong side of the threshold.",
            }[sides]
        )
        if not all(sides):
            order = "above" if swapped.fake_score > real.fake_score else "not above"
            text += f" The swapped video is {order} the real one."
        text += " The checkpoint is a research baseline: its model card says how weak it is."
    console.print(f"\n{text}", highlight=False)


def _say(message: str) -> None:
    click.echo(f"· {message}", err=True)


def _stop_on_signals() -> None:
    """
    Make SIGTERM end a command the way Ctrl-C does, so that it stops what it started.

    SIGINT, too, is set: a shell that starts a command in the background has it ignored.
    """

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGINT, interrupt)
