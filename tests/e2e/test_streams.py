"""Live streams end to end: a real source, reader, detector, webhook receiver and follower."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from deepfakestream import NotFoundError, verify_webhook
from deepfakestream.verification import verify_bundle

from api.embedded.demo_videos import make_demo_videos
from tests.inside import postgres_of, service_of
from tests.live import Playlist, join_parts, serving, wait_until
from tests.publishers import publishing
from tests.receiver import running_receiver
from tests.webhooks import check_webhook

PROGRAM = str(Path(sys.executable).with_name("deepfakestream"))
PASSWORD = "hush-hush-4711"
"""The source asks for none, and gets it all the same."""
LONGEST_PAUSE_S = 4.0
"""Of the source; after ten seconds without a picture its connection is given up."""
FOLLOWING_S = 240.0
"""The longest time in which a stream of 18 seconds may end; on an idle machine it takes about 20."""


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Four seconds of a real face, six of a swapped one, and six of a real one."""
    folder = tmp_path_factory.mktemp("live")
    real, swapped = make_demo_videos(folder)
    parts = [(real, 4.0), (swapped, 5.0), (swapped, 1.0), (real, 5.0), (real, 3.0)]
    return join_parts(folder, parts)


@pytest.fixture
def api(stack):
    headers = {"Authorization": f"Bearer {stack.api_key_file.read_text().strip()}"}
    with httpx.Client(base_url=stack.url, headers=headers, trust_env=False, timeout=30) as client:
        yield client


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "source"
    path.mkdir()
    return path


def begin(api, url, **options):
    body = {"url": url, "secret": {"username": "viewer", "password": PASSWORD}, "segment_seconds": 2.0, **options}
    answer = api.post("/v1/streams", json=body)
    assert answer.status_code == 202, answer.text
    return answer.json()["id"]


def film(source, api, stream_id):
    """Publish what is left as fast as it is scored, but never pause for so long that it counts as a gap."""

    def judged():
        found = api.get(f"/v1/streams/{stream_id}", params={"after": 0}).json()["events"]
        return sum(event["kind"] == "segment" for event in found)

    try:
        while source.published < source.parts:
            deadline = time.monotonic() + LONGEST_PAUSE_S
            while 2 * judged() + 5 <= source.published and time.monotonic() < deadline:
                time.sleep(0.1)
            source.publish()
    finally:
        # Without it, whoever follows the stream would wait for its end in vain.
        source.finish()


def follow(api, stream_id):
    """The events of a stream, to its end."""
    after, found, deadline = "0", [], time.monotonic() + FOLLOWING_S

    def check_time():
        assert time.monotonic() < deadline, (api.get(f"/v1/streams/{stream_id}").json(), found)

    while not found or found[-1]["kind"] != "ended":
        check_time()
        with api.stream("GET", f"/v1/streams/{stream_id}/events", headers={"Last-Event-ID": after}) as answer:
            assert answer.status_code == 200
            # While nothing happens there is a comment every 15 s.
            for line in answer.iter_lines():
                check_time()
                if line.startswith("data: "):
                    found.append(json.loads(line[6:]))
                    after = str(found[-1]["seq"])
    return found


@pytest.mark.timeout(600)
def test_a_swap_in_a_live_stream_is_an_alert_while_it_runs_and_a_verdict_at_its_end(stack, api, clip, folder):
    source = Playlist(clip, folder)
    source.publish(3)
    secret = stack.webhook_secret_file.read_text().strip()
    with running_receiver() as receiver, serving(source, folder) as url:
        stream_id = begin(api, url, webhook_url=receiver.url, metadata={"room": 7})
        # Who connects later does not see the beginning.
        wait_until(lambda: api.get(f"/v1/streams/{stream_id}").json()["state"] == "connected")
        stored, has_ended = set(), threading.Event()

        def look():
            """Note the files of the stream's segments, whose keys are forgotten once they are scored."""
            query = "SELECT storage_key FROM segments WHERE job_id = %s AND storage_key IS NOT NULL"
            with postgres_of(stack) as postgres:
                while not has_ended.wait(0.05):
                    stored.update(key for (key,) in postgres.execute(query, [stream_id]))

        watcher = threading.Thread(target=look, daemon=True)
        watcher.start()
        with ThreadPoolExecutor(1) as threads:
            camera = threads.submit(film, source, api, stream_id)
            try:
                events = follow(api, stream_id)
            finally:
                has_ended.set()
            camera.result()
        watcher.join()
        assert "alert" in [event["kind"] for event in events], events
        wait_until(lambda: "stream.ended" in [json.loads(one.body)["type"] for one in receiver.requests])
    segments = [event["data"] for event in events if event["kind"] == "segment"]
    assert [one["index"] for one in segments] == list(range(len(segments)))
    assert segments[-1]["end_s"] == pytest.approx(18.0, abs=0.2)
    alerts = [event["data"] for event in events if event["kind"] == "alert"]
    assert alerts[0]["action"] == "raised"
    # The swap lasts from 4 s to 10 s, and segments two.
    shown = [(one["end_s"], one["fake_score"], one["people"], one["reasons"]) for one in segments]
    assert 4.0 < alerts[0]["time_s"] <= 8.3, (alerts, shown)
    [ended] = [event["data"] for event in events if event["kind"] == "ended"]
    assert (ended["status"], ended["why"]) == ("succeeded", "source")
    payloads = [verify_webhook(one.headers, one.body, secret) for one in receiver.requests]
    assert payloads[0]["type"] == "stream.alert"
    document = api.get("/openapi.json").json()
    assert {check_webhook(document, one) for one in receiver.requests} == {"stream.alert", "stream.ended"}
    assert payloads[0]["data"]["stream_id"] == stream_id
    assert payloads[0]["data"]["metadata"] == {"room": 7}
    assert payloads[-1]["data"]["id"] == stream_id
    job = api.get(f"/v1/jobs/{stream_id}").json()
    assert (job["status"], job["media"]) == ("succeeded", None)
    assert job["verdict"] in ("fake", "inconclusive")
    assert job["suspicious"]
    found = api.get(f"/v1/jobs/{stream_id}/segments", params={"limit": 100}).json()["items"]
    seen = [
        (one["start_s"], face["time_s"], one["end_s"])
        for one in found
        for person in one["people"]
        for face in person["faces"]
    ]
    # Faces have the time of the stream, not that of their piece.
    assert seen
    assert all(start_s - 0.05 <= time_s < end_s + 0.05 for start_s, time_s, end_s in seen)
    # Reports and evidence are those of any job.
    assert "suspicious" in api.get(f"/v1/jobs/{stream_id}/report.html").text
    bundle = folder / "evidence.zip"
    bundle.write_bytes(api.get(f"/v1/jobs/{stream_id}/evidence.zip").content)
    assert verify_bundle(bundle).passed
    # Not one is kept. Streams of other tests may keep theirs.
    assert stored
    wait_until(lambda: not [key for key in stored if (stack.state / "storage" / key).exists()])
    logs = "".join(path.read_text() for path in (stack.state / "logs").glob("*.log"))
    assert stream_id in logs
    assert PASSWORD not in logs


def test_the_command_line_watches_a_stream_to_its_verdict(stack, clip, folder):
    source = Playlist(clip, folder)
    source.publish(10)
    source.finish()
    with serving(source, folder) as url:
        command = [PROGRAM, "--url", stack.url]
        command += ["--api-key", stack.api_key_file.read_text().strip(), "watch", url, "--segment-seconds", "2"]
        done = subprocess.run(
            [*command, "--fail-on-alert"],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=90,
        )
    lines = done.stdout.splitlines()
    assert "source connected" in lines[0]
    assert [line.split()[0] for line in lines if "0:00:1" in line][-1] == "0:00:10"
    assert any("ALERT raised: person" in line for line in lines), done.stdout
    assert lines[-1].startswith("succeeded: "), done.stdout + done.stderr
    assert done.stderr.splitlines()[-1].startswith("report: deepfakestream report ")
    assert done.returncode == 3


def test_the_command_line_invites_a_publisher_and_watches_what_it_sends(stack, clip):
    command = [PROGRAM, "--url", stack.url, "--api-key", stack.api_key_file.read_text().strip(), "watch", "--push"]
    command += ["--segment-seconds", "2", "--limit", "7", "--json"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as watcher:
        invitation = json.loads(watcher.stdout.readline())
        push = invitation["data"]
        assert (invitation["kind"], push["address"]) == ("push", stack.push_url)
        with publishing(clip, f"{push['address']}/{push['key']}"):
            events = [json.loads(line) for line in watcher.stdout]
    assert watcher.returncode == 0
    assert events[0]["data"] == {"state": "connected", "error": None}
    assert any(event["data"]["fake_score"] is not None for event in events if event["kind"] == "segment")
    assert (events[-1]["kind"], events[-1]["data"]["why"]) == ("ended", "duration")
    logs = "".join(path.read_text() for path in (stack.state / "logs").glob("*.log"))
    assert "publishers are accepted" in logs
    assert push["key"] not in logs


def test_the_sdk_follows_stops_and_erases_a_stream(client, clip, folder):
    source = Playlist(clip, folder)
    source.publish(4)
    with serving(source, folder) as url:
        made = client.begin_stream(url, segment_seconds=2, metadata={"room": 7}, idempotency_key="e2e-stream")
        assert (
            client.begin_stream(url, segment_seconds=2, metadata={"room": 7}, idempotency_key="e2e-stream").id
            == made.id
        )
        kinds = []
        for event in client.watch(made.id):
            kinds.append(event.kind)
            if kinds == ["source", "segment"]:
                client.stop_stream(made.id)
    assert kinds[:2] == ["source", "segment"]
    assert kinds[-1] == "ended"
    found = client.stream(made.id)
    assert (found.is_final, found.raw["metadata"], found.raw["why"]) == (True, {"room": 7}, "request")
    assert made.id in [stream.id for stream in client.streams(status="succeeded", limit=5)]
    client.delete_stream(made.id)
    with pytest.raises(NotFoundError):
        client.stream(made.id)


def test_a_killed_reader_is_replaced_within_seconds_and_the_stream_ends_well(stack, api, clip, folder):
    source = Playlist(clip, folder)
    source.publish(4)
    with serving(source, folder) as url:
        stream_id = begin(api, url)

        def counters():
            return api.get(f"/v1/streams/{stream_id}").json()["counters"]

        wait_until(lambda: counters()["segments"] > 0)
        os.kill(service_of(stack, "worker-stream").process.pid, signal.SIGKILL)
        killed_at = time.monotonic()
        wait_until(lambda: service_of(stack, "worker-stream").has_died())
        stack.restart_dead()
        # The lease has to expire, and the time by then is more than what the source has stored.
        time.sleep(3.0)
        source.publish(6)
        before = counters()["segments"]
        wait_until(lambda: counters()["segments"] > before)
        # Ten seconds on an idle machine; without another reader it would be ended after thirty.
        assert time.monotonic() - killed_at < 25.0
        assert api.post(f"/v1/streams/{stream_id}/stop").status_code == 200
        wait_until(lambda: api.get(f"/v1/jobs/{stream_id}").json()["status"] == "succeeded", timeout_s=60)
    found = api.get(f"/v1/streams/{stream_id}").json()
    assert (found["state"], found["why"], found["counters"]["gaps"] >= 1) == ("ended", "request", True)
    assert "gap" in found["reasons"]
