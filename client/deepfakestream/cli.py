"""The command line ``deepfakestream``."""

import io
import json
import math
import os
import sys
from collections.abc import Callable
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Any, NoReturn

import click
from click.core import ParameterSource

from deepfakestream.checkpoints import find_checkpoints
from deepfakestream.client import Client
from deepfakestream.connection import URL_VARIABLE, find_connection
from deepfakestream.embedded_state import find_state_folder, operator_environment
from deepfakestream.errors import DeepfakeStreamError
from deepfakestream.exit_statuses import FAILED, INTERRUPTED, exit_status_of
from deepfakestream.rescoring import rescore_jobs, select_outdated_jobs
from deepfakestream.results import Job
from deepfakestream.scanning import Options, Scan, select_sources
from deepfakestream.tables import format_change, make_jobs_table, pluralize
from deepfakestream.terminal import make_console, prepare_output, say
from deepfakestream.verification import describe_verification, verify_bundle

COMMANDS_GROUP = "deepfakestream.commands"
"""Entry points by which an installed server adds commands."""
SERVER_COMMANDS = {
    "audit": "deepfakestream-server[api]",
    "demo": "deepfakestream-server[api,worker,embedded,demo]",
    "keys": "deepfakestream-server",
    "reviews": "deepfakestream-server[api]",
    "storage": "deepfakestream-server",
    "up": "deepfakestream-server[api,worker,embedded]",
}
"""Command that the server adds → what has to be installed for it."""
OPTIONS_BEFORE_COMMAND = frozenset({"--url", "--api-key", "--state"})
STARTING_COMMANDS = frozenset({"demo", "up"})
"""Commands of the server that start a stack; the others work on one that runs."""


class _Number(click.FloatRange):
    """A finite number within a range: not-a-number and infinity are refused."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found: float = super().convert(value, param, ctx)
        if not math.isfinite(found):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return found


class _ShareHours(_Number):
    """The hours for which a link works."""

    def _describe_range(self) -> str:
        # Used by help and errors, which would say 0.016666666666666666<=x<=8760.
        return "1 minute to 365 days"


class _Commands(click.Group):
    """The commands of this package, and those that an installed server adds."""

    def main(self, *arguments: Any, **named: Any) -> Any:
        """Run a command and exit; errors are printed without control characters, which a terminal would obey."""
        prepare_output()
        named["standalone_mode"] = False
        run: Callable[..., Any] = super().main
        try:
            sys.exit(run(*arguments, **named) or 0)
        except click.ClickException as error:
            shown: click.ClickException = error
            if isinstance(error, click.NoSuchOption) and error.option_name in OPTIONS_BEFORE_COMMAND:
                shown = _option_before_command(error)
            _print_error_and_exit(shown)
        except click.Abort:
            say("aborted", to_stderr=True)
            sys.exit(FAILED)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *(found.name for found in entry_points(group=COMMANDS_GROUP))})

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if (own := super().get_command(ctx, name)) is not None:
            return own
        for found in entry_points(group=COMMANDS_GROUP, name=name):
            command: click.Command = found.load()
            return command
        if name in SERVER_COMMANDS:
            raise click.ClickException(
                f"'{name}' is a command of the server: install {SERVER_COMMANDS[name]} beside this package"
            )
        return None


def _option_before_command(error: click.NoSuchOption) -> click.NoSuchOption:
    """Return an error without click's suggestion of a similar option: the option exists, but before the command."""
    name, command = error.option_name, error.ctx.info_name if error.ctx is not None else "COMMAND"
    message = f"{name} stands before the command: deepfakestream {name} … {command} …"
    return click.NoSuchOption(name, message, ctx=error.ctx)


def _print_error_and_exit(error: click.ClickException) -> NoReturn:
    shown = io.StringIO()
    error.show(file=shown)
    say(shown.getvalue().rstrip("\n"), to_stderr=True)
    sys.exit(error.exit_code)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option(
    "--url", help="Address of the service; otherwise DEEPFAKESTREAM_URL, or the stack that runs on this machine."
)
@click.option(
    "--api-key",
    help="API key; otherwise DEEPFAKESTREAM_API_KEY, which other users of the machine do not see. The key of the stack"
    " on this machine is sent to that stack alone.",
)
@click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    help="State folder of the embedded stack; otherwise DEEPFAKESTREAM_STATE, or that of the running stack.",
)
@click.pass_context
def main(context: click.Context, url: str | None, api_key: str | None, state: Path | None) -> None:
    """Tell whether a face in an image or a video was swapped."""
    context.obj = {"url": url, "api_key": api_key, "state": state}
    is_configured = any(
        name.startswith("DEEPFAKESTREAM_DATABASE") or name == "DEEPFAKESTREAM_CONFIG" for name in os.environ
    )
    if not is_configured and _works_on_running_stack(context.invoked_subcommand):
        try:
            os.environ.update(operator_environment(find_state_folder(state)))
        except DeepfakeStreamError as error:
            raise _click_error(error) from error


def _works_on_running_stack(name: str | None) -> bool:
    """Whether *name* is a command of the server, such as ``keys``, that works on the stack that runs here."""
    return bool(name and name not in STARTING_COMMANDS and entry_points(group=COMMANDS_GROUP, name=name))


def _client(context: click.Context) -> Client:
    settings = context.find_root().obj
    found = find_connection(settings["url"], settings["api_key"], settings["state"])
    return Client(found.url, found.api_key)


def _click_error(error: Exception) -> click.ClickException:
    # click exits with status 1 for this error.
    return click.ClickException(str(error))


@main.command()
@click.argument("sources", nargs=-1, required=True, metavar="FILE|FOLDER|URL...")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line, with 'file' and 'job'.")
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
    type=_Number(0.1, 30),
    help="Frames sampled per second of video.",
    show_default="the checkpoint's, mostly 2",
)
@click.option(
    "--segment-seconds",
    type=_Number(1, 60),
    help="Length of a segment in seconds.",
    show_default="the checkpoint's, mostly 5",
)
@click.option(
    "--webhook-url", help="Address that the service calls when a job ends; not with --local.", show_default="none"
)
@click.option(
    "--timeout",
    "timeout_s",
    type=_Number(min=0, min_open=True),
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
    fail_on: tuple[str, ...],
    all_files: bool,
    local: bool,
    **options: Any,
) -> None:
    """
    Scan images and videos: submit them, show the progress, and print a table for each.

    FILE is an image or a video; a FOLDER stands for all images and videos inside; a URL (http or https) is fetched by
    the service.
    """
    if local:
        _refuse_service_options(context)
    console = make_console(stderr=as_json)
    found = select_sources(sources, all_files=all_files)
    if skipped := found.describe_skipped():
        say(skipped, to_stderr=True)
    if not found.sources:
        raise click.UsageError("there are no images and no videos in the given folders: --all sends every file")
    scanner = Scan(Options(**options), console, as_json=as_json, check_first=not all_files)
    try:
        if local:
            results = scanner.scan_locally(found.sources)
        else:
            with _client(context) as client:
                results = scanner.scan_with_service(client, found.sources)
    except DeepfakeStreamError as error:
        raise _click_error(error) from error
    except KeyboardInterrupt:
        console.print("interrupted; submitted jobs go on, see 'deepfakestream jobs'")
        context.exit(INTERRUPTED)
    context.exit(exit_status_of(results, fail_on))


def _refuse_service_options(context: click.Context) -> None:
    """Refuse options that have no effect with ``--local``."""
    for name, option in (("webhook_url", "--webhook-url"), ("timeout_s", "--timeout"), ("wait", "--no-wait")):
        is_given = context.get_parameter_source(name) is not ParameterSource.DEFAULT
        if is_given and not (name == "wait" and context.params[name]):
            raise click.UsageError(f"{option} is for a service, and --local scans without one: leave one of them out")


@main.command()
@click.option(
    "--status",
    type=click.Choice(["queued", "running", "succeeded", "failed", "cancelled"]),
    help="List only jobs with this status.",
)
@click.option("--limit", type=click.IntRange(1), default=20, help="List at most this many jobs.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@click.pass_context
def jobs(context: click.Context, status: str | None, limit: int, as_json: bool) -> None:
    """List your jobs, newest first."""
    try:
        with _client(context) as client:
            found = list(client.list(status=status, limit=limit))
    except DeepfakeStreamError as error:
        raise _click_error(error) from error
    if as_json:
        for job in found:
            say(json.dumps(job.raw))
    else:
        console = make_console()
        console.print(make_jobs_table(found, console.width))


@main.command()
@click.argument("job_ids", nargs=-1, required=True, metavar="ID...")
@click.pass_context
def cancel(context: click.Context, job_ids: tuple[str, ...]) -> None:
    """
    Cancel jobs.

    ID is a job's, as 'scan --no-wait' and 'jobs' print it; several can be given.
    """
    _run_for_each_job(context, job_ids, lambda client, job_id: f"{job_id} {client.cancel(job_id).status}")


@main.command()
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

    _run_for_each_job(context, job_ids, erase)


@main.command()
@click.argument("job_id", metavar="ID")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The zip file to write; replaced."
)
@click.pass_context
def evidence(context: click.Context, job_id: str, out: Path) -> None:
    """
    Download the signed evidence bundle of a job that has ended.

    ID is a job's, as 'scan --no-wait' and 'jobs' print it.
    """
    _download(context, out, lambda client: client.evidence(job_id, out))
    say(f"{out} written; check it with 'deepfakestream verify'")


def _download(context: click.Context, out: Path, download: Callable[[Client], Path]) -> None:
    """Let the SDK write the file *out*."""
    try:
        with _client(context) as client:
            download(client)
    except OSError as error:
        raise click.ClickException(f"{out} cannot be written ({error.strerror or error})") from error
    except DeepfakeStreamError as error:
        raise _click_error(error) from error


@main.command("evidence-key")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, with retired keys.")
@click.pass_context
def evidence_key(context: click.Context, as_json: bool) -> None:
    """Print the id and the public key that belong to the signatures of evidence bundles."""
    try:
        with _client(context) as client:
            found = client.evidence_key()
    except DeepfakeStreamError as error:
        raise _click_error(error) from error
    say(json.dumps(found) if as_json else f"{found.get('id')}\n{found['public_key']}".rstrip())


@main.command()
@click.argument("bundle", type=click.Path(path_type=Path), metavar="BUNDLE")
@click.option("--media", type=click.Path(path_type=Path), help="The image or video that it should be about.")
@click.option("--key", help="The key that should have signed it: its id, or the file of its public key (PEM).")
@click.option(
    "--timestamp-root", type=click.Path(path_type=Path), help="Certificate (PEM) of the authority that stamped it."
)
@click.option(
    "--rescore",
    "scan_again",
    is_flag=True,
    help="Scan the media again in this process and compare the scores; needs --media and an installed server.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def verify(context: click.Context, /, bundle: Path, as_json: bool, **given: Any) -> None:
    """
    Check an evidence bundle without a service; exit status 1 if anything is wrong with it, 2 if a file cannot be read.

    BUNDLE is a zip file that 'evidence' has downloaded.
    """
    if given["scan_again"] and given["media"] is None:
        raise click.UsageError("--rescore needs the media: give it with --media")
    for path in (bundle, given["media"]):
        if path is not None:
            _check_readable(path)
    try:
        found = verify_bundle(bundle, **given)
    except DeepfakeStreamError as error:
        raise _click_error(error) from error
    say(json.dumps(found.to_json()) if as_json else describe_verification(found))
    context.exit(0 if found.passed else FAILED)


def _check_readable(path: Path) -> None:
    """Refuse a file that cannot be opened, which says nothing about a bundle."""
    try:
        path.open("rb").close()
    except OSError as error:
        raise click.UsageError(f"{path} cannot be read ({error.strerror or error})") from error


def _run_for_each_job(context: click.Context, job_ids: tuple[str, ...], act: Any) -> None:
    failed = False
    try:
        with _client(context) as client:
            for job_id in job_ids:
                try:
                    say(act(client, job_id))
                except DeepfakeStreamError as error:
                    failed = True
                    say(f"{job_id}: {error}", to_stderr=True)
    except DeepfakeStreamError as error:
        raise _click_error(error) from error
    context.exit(FAILED if failed else 0)


@main.command()
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
        with _client(context) as client:
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
    except DeepfakeStreamError as error:
        raise _click_error(error) from error
    except KeyboardInterrupt:
        say("interrupted; the job that was made last goes on, see 'deepfakestream jobs'", to_stderr=True)
        context.exit(INTERRUPTED)
    context.exit(FAILED if has_failed else 0)


@main.command()
@click.argument("job_id", metavar="ID")
@click.argument("finding", type=click.Choice(["confirmed_fake", "confirmed_real", "disputed", "none"]))
@click.option("--note", help="Anything that explains the finding.")
@click.pass_context
def review(context: click.Context, job_id: str, finding: str, note: str | None) -> None:
    """
    Record what a person found who looked at media and result.

    ID is the job's. The verdict stays as it is; 'none' withdraws the finding.
    """
    try:
        with _client(context) as client:
            if finding == "none":
                client.withdraw_review(job_id)
            else:
                client.review(job_id, finding, note)
    except DeepfakeStreamError as error:
        raise _click_error(error) from error
    say(f"{job_id} {'has no review' if finding == 'none' else finding}")


@main.command()
@click.argument("job_id", metavar="ID")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The HTML file to write.")
@click.pass_context
def report(context: click.Context, job_id: str, out: Path) -> None:
    """
    Download the report of a job as one HTML file.

    ID is the job's. The file holds all numbers and words, and neither the media nor pictures of people.
    """
    _download(context, out, lambda client: client.report(job_id, out))
    say(f"{out} written")


@main.command()
@click.argument("job_id", metavar="ID")
@click.option("--hours", type=_ShareHours(1 / 60, 365 * 24), default=168, help="How long the link works, in hours.")
@click.option("--revoke", is_flag=True, help="Revoke all links to the report instead.")
@click.pass_context
def share(context: click.Context, job_id: str, hours: float, revoke: bool) -> None:
    """
    Print a link by which people without an API key see the report of a job.

    ID is the job's. Whoever has the link sees this job's report and media, and nothing else.
    """
    try:
        with _client(context) as client:
            if revoke:
                links = client.shares(job_id)
                for link in links:
                    client.revoke_share(job_id, link.id)
                say(f"{job_id}: {pluralize(len(links), 'link')} revoked")
            else:
                say(client.share(job_id, valid_s=round(3600 * hours)).url or "")
    except DeepfakeStreamError as error:
        raise _click_error(error) from error


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@click.option(
    "--card",
    is_flag=True,
    help="Print the model cards as well: what the checkpoints are good for, and where they fail.",
)
@click.option("--model", "name", help="List only the checkpoint with this name.")
@click.pass_context
def models(context: click.Context, as_json: bool, card: bool, name: str | None) -> None:
    """List the checkpoints that a job can name, the default one first."""
    settings = context.find_root().obj

    def request_models() -> tuple[dict[str, Any], ...]:
        with _client(context) as client:
            return client.models()

    try:
        is_named = bool(settings["url"] or os.environ.get(URL_VARIABLE))
        found, is_local = find_checkpoints(request_models, may_be_local=not is_named)
    except DeepfakeStreamError as error:
        raise _click_error(error) from error
    if is_local:
        say("no service answers; these are the checkpoints that are installed here", to_stderr=True)
    chosen = [model for model in found if name is None or model.get("name") == name]
    if not chosen:
        raise click.BadParameter(
            f"unknown model {name!r}; available: {', '.join(str(model.get('name')) for model in found)}",
            param_hint="--model",
        )
    for model in chosen:
        if as_json:
            say(json.dumps(model))
            continue
        marks = "trained" if model.get("trained") else "untrained"
        default = ", default" if model.get("is_default") else ""
        say(f"{model.get('name')} {model.get('version')} ({marks}{default})")
        if card:
            say(f"\n{model.get('model_card')}")


@main.command("version")
def show_version() -> None:
    """Print the version."""
    say(version("deepfakestream"))
