"""Streams that a publisher sends: the SDK and the command line against a server that answers as the service does."""

import json

import pytest
from deepfakestream import Client

from tests.unit.client.services import answer

PUSH = {"protocol": "rtmp", "address": "rtmp://live.example:1935/live", "key": "dfs_live_abc"}
ENDED = {"seq": 1, "kind": "ended", "created_at": "2026-01-02T03:04:05Z", "data": {"why": "source"}}


def stream(status="queued", *, key=None, events=(), **changes):
    document = {
        "id": "01a20d78-a9e9-755a-a1ee-3373ca532026",
        "status": status,
        "state": "waiting",
        "source": PUSH["address"],
        "push": {**PUSH, "key": key},
        "last_seq": 1,
        "events": list(events),
    }
    return document | changes


def watching(server, command, *arguments):
    ended = stream("succeeded", events=[ENDED], verdict="real")
    server.answers = [answer(stream(key=PUSH["key"]), 202), answer(ended), answer(ended)]
    return command("--url", server.url, "--api-key", "dfs_x", "watch", *arguments)


def test_the_sdk_begins_a_stream_for_a_publisher(server):
    server.answers = [answer(stream(key=PUSH["key"]), 202), answer(stream())]
    with Client(server.url, "dfs_x") as client:
        made = client.begin_stream(push="rtmp", duration_limit_s=60)
        again = client.stream(made.id)
    assert json.loads(server.requests[0].body) == {"push": "rtmp", "duration_limit_s": 60}
    assert (made.push.address, made.push.key) == (PUSH["address"], PUSH["key"])
    assert made.push.url == f"{PUSH['address']}/{PUSH['key']}"
    assert (again.push.key, again.push.url) == (None, None)
    assert PUSH["key"] not in repr(made)


def test_a_service_that_knows_no_publishers_is_understood(server):
    document = stream()
    del document["push"]
    server.answers = [answer(document, 202)]
    with Client(server.url, "dfs_x") as client:
        assert client.begin_stream("rtsp://camera.example/hall").push is None


@pytest.mark.parametrize(("asked_s", "least_s", "most_s"), [(None, 0.0, 0.5), (20.0, 10.0, 20.0)])
def test_a_busy_service_says_when_to_ask_for_events_again(server, pauses, asked_s, least_s, most_s):
    """The pause is counted from the request."""
    server.answers = [answer(stream("running", poll_after_s=asked_s)), answer(stream("succeeded", events=[ENDED]))]
    with Client(server.url, "dfs_x") as client:
        assert [event.kind for event in client.watch("x")] == ["ended"]
    [pause_s] = pauses
    assert least_s <= pause_s <= most_s


def test_address_and_key_are_shown_before_the_events(server, command):
    done = watching(server, command, "--push")
    assert done.exit_code == 0, done.output
    assert f"server      {PUSH['address']}" in done.stderr
    assert f"stream key  {PUSH['key']}" in done.stderr
    assert PUSH["key"] not in done.stdout
    assert done.stderr.splitlines()[-1] == f"report: deepfakestream report {stream()['id']}"


def test_programs_get_address_and_key_as_the_first_line(server, command):
    done = watching(server, command, "--push", "--json")
    first, *rest = map(json.loads, done.stdout.splitlines())
    assert first == {"kind": "push", "data": {"address": PUSH["address"], "key": PUSH["key"]}}
    assert [event["kind"] for event in rest] == ["ended"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "either the URL of a source or --push"),
        (("rtsp://camera.example/hall", "--push"), "either the URL of a source or --push"),
        (("--push", "--username", "viewer"), "--username"),
    ],
    ids=["neither", "both", "with a login"],
)
def test_contradicting_arguments_are_refused(server, command, arguments, said):
    done = command("--url", server.url, "--api-key", "dfs_x", "watch", *arguments)
    assert done.exit_code == 2
    assert said in done.output
    assert server.requests == []
