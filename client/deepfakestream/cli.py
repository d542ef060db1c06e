"""The command line, ``deepfakestream``."""

import io
import json
import math
import os
import signal
import sys
from collections.abc import Callable
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Any, NoReturn

import click
from click.core import ParameterSource

from deepfakestream.checkpoints import find_checkpoints
from deepfakestream.client import Client
from deepfakestream.connection import URL_VARIABLE, find_connection, find_state, operator_environment, own_state
from deepfakestream.errors import DeepfakeStreamError
from deepfakestream.scanning import Options, Scan, Scanned, select
from deepfakestream.tables import counted, jobs_table
from deepfakestream.terminal import make_console, prepare_output, say
from deepfakestream.verification import describe_verification, verify_bundle

FAILED = 1
FOUND = 3
INTERRUPTED = 130
COMMANDS_GROUP = "deepfakestream.commands"


class _Number(click.FloatRange):
    """A number of a range, which not-a-number and infinity are not in."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found: float = super().convert(value, param, ctx)
        if not math.isfinite(found):
            self.fail(f"{value} is no finite number.", param, ctx)
        return found


class _Commands(click.Group):
    """The built-in commands, and those that an installed server adds."""

    def main(self, *arguments: Any, **named: Any) -> Any:
        """Run a command and exit; what is wrong with it is printed without what a terminal would obey."""
        prepare_output()
        named["standalone_mode"] = False
        run: Callable[..., Any] = super().main
        try:
            sys.exit(run(*arguments, **named) or 0)
        except click.ClickException as error:
            _report(error)
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
        return None


def _report(error: click.ClickException) -> NoReturn:
    shown = io.StringIO()
    error.show(file=shown)
    say(shown.getvalue().rstrip("\n"), to_stderr=True)
    sys.exit(error.exit_code)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--url", help="The service; otherwise DEEPFAKESTREAM_URL, or the stack that runs on this machine.")
@click.option(
    "--api-key",
    help="Its key; otherwise DEEPFAKESTREAM_API_KEY, which other users of the machine do not see. The stack's own key"
    " is sent to the stack alone.",
)
@click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the embedded stack; otherwise DEEPFAKESTREAM_STATE, or that of the stack that runs.",
)
@click.pass_context
def main(context: click.Context, url: str | None, api_key: str | None, state: Path | None) -> None:
    """Tell whether a face in an image or a video was swapped."""
    context.obj = {"url": url, "api_key": api_key, "state": state}
    is_configured = any(
        name.startswith("DEEPFAKESTREAM_DATABASE") or name == "DEEPFAKESTREAM_CONFIG" for name in os.environ
    )
    if not is_configured and _is_added(context.invoked_subcommand):
        # A server's commands, such as "keys", then work on the stack that runs here.
        os.environ.update(operator_environment(_state(context)))


def _state(context: click.Context) -> Path:
    try:
        return find_state(context.find_root().obj["state"])
    except DeepfakeStreamError as error:
        raise _fail(error) from error


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
    help="Send every file: hidden ones of a folder too, and those that begin like no image or video.",
)
@click.option("--local", is_flag=True, help="Scan in this process: no service, no database.")
@click.option(
    "--model",
    help="A checkpoint's name, of those that 'deepfakestream models' lists.",
    show_default="the service's, or with --local this package's",
)
@click.option(
    "--sample-fps", type=_Number(0.1, 30), help="Frames looked at a second.", show_default="the checkpoint's, mostly 2"
)
@click.option(
    "--segment-seconds",
    type=_Number(1, 60),
    help="Length of a segment.",
    show_default="the checkpoint's, mostly 5",
)
@click.option("--webhook-url", help="Called by the service when a job ends; not with --local.", show_default="none")
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
    Scan images and videos: submit, wait with progress, print a table.

    FILE is an image or a video, of a FOLDER all images and videos inside are taken, and a URL (http or https) is
    fetched by the service.
    """
    if local:
        _refuse_what_needs_a_service(context)
    console = make_console(stderr=as_json)
    found = select(sources, all_files=all_files)
    if left_out := found.left_out():
        say(left_out, to_stderr=True)
    if not found.sources:
        raise click.UsageError("there are no images and no videos in what was given")
    scanner = Scan(Options(**options), console, as_json=as_json, check_first=not all_files)
    try:
        if local:
            results = scanner.locally(found.sources)
        else:
            with _client(context) as client:
                results = scanner.through(client, found.sources)
    except DeepfakeStreamError as error:
        raise _fail(error) from error
    except KeyboardInterrupt:
        console.print("interrupted; submitted jobs go on, see 'deepfakestream jobs'")
        context.exit(INTERRUPTED)
    context.exit(_status(results, fail_on))


def _refuse_what_needs_a_service(context: click.Context) -> None:
    """Refuse options that ``--local`` would have to ignore."""
    for name, option in (("webhook_url", "--webhook-url"), ("timeout_s", "--timeout"), ("wait", "--no-wait")):
        is_given = context.get_parameter_source(name) is not ParameterSource.DEFAULT
        if is_given and not (name == "wait" and context.params[name]):
            raise click.UsageError(f"{option} is for a service, and --local scans without one: leave one of them out")


def _status(results: list[Scanned], fail_on: tuple[str, ...]) -> int:
    if any(result.job is not None and result.job.verdict in fail_on for result in results):
        return FOUND
    failed = [result for result in results if result.job is None or result.job.status in ("failed", "cancelled")]
    return FAILED if failed else 0


@main.command()
@click.option(
    "--status", type=click.Choice(["queued", "running", "succeeded", "failed", "cancelled"]), help="Only these."
)
@click.option("--limit", type=click.IntRange(1), default=20, help="At most so many.")
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
            say(json.dumps(job.raw))
    else:
        console = make_console()
        console.print(jobs_table(found, console.width))


@main.command()
@click.argument("job_ids", nargs=-1, required=True, metavar="ID...")
@click.pass_context
def cancel(context: click.Context, job_ids: tuple[str, ...]) -> None:
    """
    Stop jobs.

    ID is a job's, as 'scan --no-wait' and 'jobs' print it; several can be given.
    """
    _each(context, job_ids, lambda client, job_id: f"{job_id} {client.cancel(job_id).status}")


@main.command()
@click.argument("job_ids", nargs=-1, required=True, metavar="ID...")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def delete(context: click.Context, job_ids: tuple[str, ...], yes: bool) -> None:
    """
    Erase jobs with their media and results.

    ID is a job's, as 'scan --no-wait' and 'jobs' print it; several can be given.
    """
    if not yes:
        click.confirm(f"Erase {counted(len(job_ids), 'job')} for good?", abort=True)

    def erase(client: Client, job_id: str) -> str:
        client.delete(job_id)
        return f"{job_id} erased"

    _each(context, job_ids, erase)


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
    try:
        with _client(context) as client:
            client.evidence(job_id, out)
    except OSError as error:
        raise _fail(DeepfakeStreamError(f"{out} cannot be written ({error.strerror or error})")) from error
    except DeepfakeStreamError as error:
        raise _fail(error) from error
    say(f"{out} written; check it with 'deepfakestream verify'")


@main.command("evidence-key")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, with retired keys.")
@click.pass_context
def evidence_key(context: click.Context, as_json: bool) -> None:
    """Print the id and the public key that belong to the signatures of evidence bundles."""
    try:
        with _client(context) as client:
            found = client.evidence_key()
    except DeepfakeStreamError as error:
        raise _fail(error) from error
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
    Check an evidence bundle without a service; exit status 1 if anything is wrong with it.

    BUNDLE is a zip file that 'evidence' has downloaded.
    """
    if given["scan_again"] and given["media"] is None:
        raise click.UsageError("--rescore needs the media: give it with --media")
    try:
        found = verify_bundle(bundle, **given)
    except DeepfakeStreamError as error:
        raise _fail(error) from error
    say(json.dumps(found.to_json()) if as_json else describe_verification(found))
    context.exit(0 if found.passed else FAILED)


def _each(context: click.Context, job_ids: tuple[str, ...], act: Any) -> None:
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
        raise _fail(error) from error
    context.exit(FAILED if failed else 0)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print one model a line.")
@click.option("--card", is_flag=True, help="With their model cards: what they are good for, and where they fail.")
@click.option("--model", "name", help="Only this one.")
@click.pass_context
def models(context: click.Context, as_json: bool, card: bool, name: str | None) -> None:
    """List the checkpoints that can be asked for, the default one first."""
    settings = context.find_root().obj

    def ask() -> tuple[dict[str, Any], ...]:
        with _client(context) as client:
            return client.models()

    try:
        is_named = bool(settings["url"] or os.environ.get(URL_VARIABLE))
        found, is_local = find_checkpoints(ask, may_be_local=not is_named)
    except DeepfakeStreamError as error:
        raise _fail(error) from error
    if is_local:
        say("no service answers; these are the checkpoints that are installed here", to_stderr=True)
    chosen = [model for model in found if name is None or model.get("name") == name]
    if not chosen:
        raise click.BadParameter(
            f"there is no {name!r}; there are {', '.join(str(model.get('name')) for model in found)}",
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


@main.command()
@click.option("--port", type=click.IntRange(1, 65535), help="Of the API; otherwise the first free one from 8000 on.")
@click.option("--flower-port", type=click.IntRange(1, 65535), help="Otherwise the first free one from 5555 on.")
@click.pass_context
def up(context: click.Context, port: int | None, flower_port: int | None) -> None:
    """Run the whole service on this machine until Ctrl-C."""
    from deepfakestream.running import run_stack

    _stop_on_signals()
    try:
        run_stack(own_state(context.obj["state"]), port=port, flower_port=flower_port)
    except KeyboardInterrupt:
        say("stopped")
    except DeepfakeStreamError as error:
        raise _fail(error) from error


@main.command()
@click.pass_context
def demo(context: click.Context) -> None:
    """Make a real and a swapped video, start the whole service, scan both, stop everything."""
    from deepfakestream.running import run_demo

    _stop_on_signals()
    try:
        results = run_demo(own_state(context.obj["state"]), make_console())
    except KeyboardInterrupt:
        context.exit(INTERRUPTED)
    except DeepfakeStreamError as error:
        raise _fail(error) from error
    context.exit(_status(results, ()))


def _stop_on_signals() -> None:
    """
    Make SIGTERM end a command the way Ctrl-C does, so that it stops what it started.

    SIGINT, too, is set: a shell that starts a command in the background has it ignored.
    """

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGINT, interrupt)
