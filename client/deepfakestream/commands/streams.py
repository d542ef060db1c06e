"""The command that watches a live stream."""

import getpass
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import click

from deepfakestream.client import Client
from deepfakestream.commands.context import Number, open_client
from deepfakestream.exit_statuses import FAILED, FOUND, INTERRUPTED
from deepfakestream.streams import Push, Stream, StreamEvent
from deepfakestream.terminal import say

BAR_WIDTH: Final = 20


@click.command()
@click.argument("url", required=False)
@click.option("--push", is_flag=True, help="Watch what a publisher, such as OBS or ffmpeg, sends to the service.")
@click.option("--username", help="Login of the source; its password is asked for, or read from standard input.")
@click.option("--model", help="Checkpoint; the service's default if not given.")
@click.option("--sample-fps", type=Number(0.1, 30.0), help="Frames sampled a second; the checkpoint's by default.")
@click.option("--segment-seconds", type=Number(1.0, 30.0), help="Length of a segment; the checkpoint's by default.")
@click.option("--limit", "duration_limit_s", type=Number(1.0), help="Seconds after which the stream ends.")
@click.option("--threshold", type=Number(0.0, 1.0), help="Mean score of a person to alert from.")
@click.option("--record", type=click.Choice(["none", "suspicious"]), help="What the service keeps of the media.")
@click.option("--json", "as_json", is_flag=True, help="Print events as JSON, one a line.")
@click.option("--fail-on-alert", is_flag=True, help=f"End with exit status {FOUND} if an alert was raised.")
@click.pass_context
def watch(
    context: click.Context,
    url: str | None,
    push: bool,
    username: str | None,
    model: str | None,
    sample_fps: float | None,
    segment_seconds: float | None,
    duration_limit_s: float | None,
    threshold: float | None,
    record: str | None,
    as_json: bool,
    fail_on_alert: bool,
) -> None:
    """
    Watch a live stream: print its scores and alerts as they come, and the verdict at its end.

    URL is the source's address (RTSP, RTMP, SRT, HLS), without credentials. With --push instead, the address and the
    stream key for a publisher are printed first. Ctrl-C stops the stream and waits for the verdict; a second one leaves
    it.
    """
    if push == (url is not None):
        raise click.UsageError("give either the URL of a source or --push")
    if push and username is not None:
        raise click.UsageError("--username belongs to the URL of a source; a publisher needs only its stream key")
    password = None if username is None else getpass.getpass("Password of the source: ")
    has_alert = False
    with open_client(context) as client:
        stream = client.begin_stream(
            url,
            push="rtmp" if push else None,
            username=username,
            password=password,
            model=model,
            sample_fps=sample_fps,
            segment_seconds=segment_seconds,
            duration_limit_s=duration_limit_s,
            alert_threshold=threshold,
            record=record,
        )
        say(f"stream {stream.id}", to_stderr=True)
        if stream.push is not None:
            _show_push(stream.push, as_json=as_json)
        try:
            for event in _follow(client, stream):
                has_alert |= event.kind == "alert"
                say(json.dumps(_plain(event)) if as_json else _describe(event))
        except KeyboardInterrupt:
            say("left; the stream goes on until the service has judged it", to_stderr=True)
            context.exit(INTERRUPTED)
        ended = client.stream(stream.id)
    if not as_json:
        say(_describe_end(ended))
        say(f"report: deepfakestream report {stream.id}", to_stderr=True)
    if has_alert and fail_on_alert:
        context.exit(FOUND)
    context.exit(0 if ended.status == "succeeded" else FAILED)


def _follow(client: Client, stream: Stream) -> Iterator[StreamEvent]:
    """Iterate over all events; the first Ctrl-C stops the stream, whose last events still come."""
    last = 0
    try:
        for event in client.watch(stream.id):
            last = event.seq
            yield event
    except KeyboardInterrupt:
        say("stopping; press Ctrl-C again to leave", to_stderr=True)
        client.stop_stream(stream.id)
        yield from client.watch(stream.id, after=last)


def _show_push(push: Push, *, as_json: bool) -> None:
    """Print where to publish. In JSON it is the first line, since a program needs the key."""
    if as_json:
        say(json.dumps({"kind": "push", "data": {"address": push.address, "key": push.key}}))
        return
    say(f"server      {push.address}\nstream key  {push.key}", to_stderr=True)
    say("the key is shown only this once; whoever has it can publish", to_stderr=True)


def _plain(event: StreamEvent) -> dict[str, Any]:
    at = event.created_at.isoformat()
    return {"seq": event.seq, "kind": event.kind, "created_at": at, "data": event.data}


def _describe(event: StreamEvent) -> str:
    """Return a line for people. What a later release sends is shown, too, as its kind."""
    data: Mapping[str, Any] = event.data
    if event.kind == "segment":
        score = data.get("fake_score")
        said = ", ".join(map(str, data.get("reasons") or ())) or str(data.get("status"))
        shown = f"{_bar(score)} {score:.3f}" if isinstance(score, float) else f"{' ' * BAR_WIDTH} {said}"
        return f"{_time(data.get('end_s'))}  {shown}"
    if event.kind == "alert":
        score = data.get("fake_score")
        mean = f", mean {score:.3f} of {data.get('faces')} faces" if isinstance(score, float) else ""
        return f"{_time(data.get('time_s'))}  ALERT {data.get('action')}: person {data.get('person')}{mean}"
    if event.kind == "source":
        error = data.get("error")
        why = f": {error.get('detail')}" if isinstance(error, dict) else ""
        return f"          source {data.get('state')}{why}"
    return f"          {event.kind}"


def _describe_end(stream: Stream) -> str:
    if stream.error is not None:
        return f"{stream.status}: {stream.error.detail} ({stream.error.code})"
    reasons = f" ({', '.join(stream.reasons)})" if stream.reasons else ""
    score = "" if stream.fake_score is None else f", mean score {stream.fake_score:.3f}"
    return f"{stream.status}: {stream.verdict or 'no verdict'}{reasons}{score}"


def _bar(score: float) -> str:
    filled = round(min(1.0, max(0.0, score)) * BAR_WIDTH)
    return "#" * filled + "." * (BAR_WIDTH - filled)


def _time(seconds: Any) -> str:
    if not isinstance(seconds, int | float):
        return "  ?:??:??"
    whole = int(seconds)
    return f"{whole // 3600:3d}:{whole // 60 % 60:02d}:{whole % 60:02d}"
