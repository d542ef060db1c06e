"""The command line with real processes and a real service."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.clips import make_clip
from tests.servers import state_folder
from tests.verdicts import SHIPPED, verdict_of

PROGRAM = str(Path(sys.executable).with_name("deepfakestream"))


def deepfakestream(*arguments, state=None, home=None, **options):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DEEPFAKESTREAM_")}
    if home is not None:
        environment["XDG_STATE_HOME"] = str(home)
    if state is not None:
        environment["DEEPFAKESTREAM_STATE"] = str(state)
    return subprocess.run(
        [PROGRAM, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        **options,
    )


def job_of(stack, clip, *options):
    """Submit *clip* and return the finished job."""
    done = deepfakestream("scan", "--json", clip, *options, state=stack.state)
    return json.loads(done.stdout)["job"]


def test_scan_prints_a_table_average_peak_verdict_and_model(stack, clip):
    job = job_of(stack, clip, "--segment-seconds", "3")
    verdict, reasons = verdict_of(job)
    done = deepfakestream("scan", clip, "--segment-seconds", "3", state=stack.state)
    assert done.returncode == 0, done.stderr
    said = [line.rstrip() for line in done.stdout.splitlines()]
    assert (f"verdict {verdict} ({', '.join(reasons)})" if reasons else f"verdict {verdict}") in said
    for word in (
        "segment",
        "0:03.00",
        "average",
        "peak",
        f"{SHIPPED.name} {SHIPPED.version}, weights sha256 {SHIPPED.weights.sha256[:12]}",
    ):
        assert word in done.stdout


def test_scan_json_prints_one_object_per_line(stack, clip, tmp_path):
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "clip.mp4").write_bytes(clip.read_bytes())
    (tmp_path / "notes.txt").write_text("no media")
    done = deepfakestream("scan", "--json", "--all", tmp_path / "inside", tmp_path / "notes.txt", state=stack.state)
    found = {Path(line["file"]).name: line for line in map(json.loads, done.stdout.splitlines())}
    assert set(found) == {"clip.mp4", "notes.txt"}
    assert found["clip.mp4"]["job"]["status"] == "succeeded"
    assert set(found["clip.mp4"]) == {"file", "job"}
    assert found["notes.txt"]["error"]["code"] == "not_media", "what the service says of it"
    assert done.returncode == 1


def test_a_folder_is_scanned_and_other_files_are_named(stack, clip, tmp_path):
    (tmp_path / "clip.mp4").write_bytes(clip.read_bytes())
    (tmp_path / "notes.txt").write_text("no media")
    done = deepfakestream("scan", "--json", tmp_path, state=stack.state)
    assert done.returncode == 0, done.stderr
    assert [Path(json.loads(line)["file"]).name for line in done.stdout.splitlines()] == ["clip.mp4"]
    assert "left out 1 unrecognised file (notes.txt)" in done.stderr
    refused = deepfakestream("scan", "--json", tmp_path / "notes.txt", state=stack.state)
    assert (refused.returncode, json.loads(refused.stdout)["error"]["code"]) == (1, "not_media")


def test_a_local_scan_needs_no_service_and_agrees_with_it(stack, clip, tmp_path):
    local = deepfakestream("scan", "--local", "--json", clip, state=tmp_path)
    assert local.returncode == 0, local.stderr
    remote = deepfakestream("scan", "--json", clip, state=stack.state)
    scores = [json.loads(done.stdout)["job"]["fake_score"] for done in (local, remote)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"")
    failed = deepfakestream("scan", "--local", "--json", bad, state=tmp_path)
    assert (failed.returncode, json.loads(failed.stdout)["error"]["code"]) == (1, "empty_file")


def test_fail_on_exits_with_3(stack, clip):
    verdict = job_of(stack, clip)["verdict"]
    others = [f"--fail-on={other}" for other in ("fake", "real", "inconclusive", "not_applicable") if other != verdict]
    assert deepfakestream("scan", clip, "--fail-on", verdict, state=stack.state).returncode == 3
    assert deepfakestream("scan", clip, *others, state=stack.state).returncode == 0


def test_jobs_are_listed_cancelled_and_deleted(stack, clip):
    submitted = deepfakestream("scan", "--no-wait", "--json", clip, state=stack.state)
    job_id = json.loads(submitted.stdout)["job"]["id"]
    assert job_id in deepfakestream("jobs", "--json", state=stack.state).stdout
    cancelled = deepfakestream("cancel", job_id, state=stack.state)
    assert cancelled.returncode in (0, 1)
    assert deepfakestream("delete", "--yes", job_id, state=stack.state).stdout == f"{job_id} erased\n"
    gone = deepfakestream("delete", "--yes", job_id, state=stack.state)
    assert gone.returncode == 1
    assert "there is no job" in gone.stderr


def test_ids_are_not_shortened_and_model_cards_are_printed(stack, clip, client):
    job = client.wait(client.submit(clip).id, timeout_s=60)
    assert job.id in deepfakestream("jobs", state=stack.state).stdout
    card = deepfakestream("models", "--card", state=stack.state).stdout
    assert "swap-lite2" in card
    assert "research baseline" in card


def test_keys_are_made_listed_and_revoked(stack):
    def keys(*arguments):
        done = deepfakestream("keys", *arguments, state=stack.state)
        assert done.returncode == 0, done.stderr
        return done.stdout

    made = json.loads(keys("create", "--owner", "newsroom", "--name", "desk", "--scope", "jobs:read", "--json"))
    assert made["key"].startswith("dfs_")
    assert made["webhook_secret"].startswith("whsec_")
    listed = keys("list")
    assert made["id"] in listed
    assert made["key"] not in listed
    assert keys("revoke", made["id"]) == f"revoked {made['id']}\n"
    assert any(line["revoked_at"] for line in map(json.loads, keys("list", "--json").splitlines()))


def test_ctrl_c_exits_at_once_and_the_job_continues(stack, tmp_path):
    clip = make_clip(tmp_path / "long.mp4", seconds=20.0, size=(640, 360))
    environment = os.environ | {"DEEPFAKESTREAM_STATE": str(stack.state)}
    command = [PROGRAM, "scan", str(clip), "--sample-fps", "10"]
    # A shell that starts a command in the background has Ctrl-C ignored; a terminal has not.
    process = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509 - no threads
    )
    time.sleep(3.0)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=10)
    assert process.returncode == 130, said
    assert "submitted jobs go on" in said
    newest = json.loads(deepfakestream("jobs", "--json", "--limit", "1", state=stack.state).stdout)
    assert newest["status"] in ("queued", "running", "succeeded")


def test_without_a_service_a_command_says_what_to_do(tmp_path):
    done = deepfakestream("jobs", state=tmp_path)
    assert done.returncode == 1
    assert "deepfakestream up" in done.stderr


def test_usage_errors_exit_with_2(tmp_path):
    assert deepfakestream("scan").returncode == 2
    (tmp_path / "empty").mkdir()
    assert deepfakestream("scan", tmp_path / "empty").returncode == 2
    assert deepfakestream("nonsense").returncode == 2


def test_the_doctor_finds_a_whole_installation_and_its_service_well(stack):
    def newest():
        # Not the whole line: a job that another test left behind goes on meanwhile.
        return json.loads(deepfakestream("jobs", "--json", "--limit", "1", state=stack.state).stdout)["id"]

    before = newest()
    done = deepfakestream("doctor", "--json", state=stack.state)
    found = json.loads(done.stdout)
    assert done.returncode == 0, found
    assert found["is_well"] is True
    details = {check["name"]: check["detail"] for check in found["checks"]}
    assert {"packages", "engine", "ffmpeg", "sandbox", "local scan", "service", "service scan"} <= set(details)
    assert SHIPPED.weights.sha256 in details["checkpoints"]
    assert details["service"] == f"release 0.1.0 at {stack.url}"
    assert newest() == before, "the job is erased"


def test_version_is_printed():
    assert deepfakestream("version").stdout == "0.1.0\n"


def family(pid):
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


@pytest.fixture
def state():
    """Make an empty folder for the test's own stack."""
    with state_folder() as folder:
        yield folder


@pytest.fixture
def started(state):
    """Collect processes that a test starts; they are ended with the test, even if it fails."""
    assert state.exists()
    processes = []
    yield processes
    for process in processes:
        if process.poll() is None:
            process.terminate()
            process.wait(60)


@pytest.fixture
def home(tmp_path):
    """Make an empty home folder."""
    return tmp_path / "home"


@pytest.fixture
def up(tmp_path, started, state, home):
    """Return a function that runs ``up``, waits until the service is ready, and returns the process and its output."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DEEPFAKESTREAM_")}
    environment["XDG_STATE_HOME"] = str(home)

    def start():
        log = tmp_path / "up.log"
        with log.open("w") as output:
            process = subprocess.Popen(
                [PROGRAM, "--state", str(state), "up"], env=environment, stdout=output, stderr=output
            )
        started.append(process)
        deadline = time.monotonic() + 120
        while "Ready." not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        return process, log.read_text()

    return start


def job_of_a_clip(state, folder):
    """Let the service run a job; return its id."""
    scanned = deepfakestream("scan", "--json", make_clip(folder / "a.mp4", frames=5), state=state)
    assert scanned.returncode == 0, scanned.stdout + scanned.stderr
    return json.loads(scanned.stdout)["job"]["id"]


def test_up_serves_and_leaves_nothing_running(up, state, home, tmp_path):
    process, said = up()
    members = family(process.pid)
    postgres = psutil.Process(int((state / "postgres" / "postmaster.pid").read_text().split()[0]))
    try:
        assert str(state / "secrets" / "api-key") in said
        assert (state / "secrets" / "api-key").read_text().strip() not in said
        assert (state / "secrets" / "api-key").stat().st_mode & 0o777 == 0o600
        second = deepfakestream("--state", state, "up")
        assert second.returncode == 1
        assert "running already" in second.stderr
        assert deepfakestream("jobs", home=home).returncode == 0, "it is found without its folder"
        job_of_a_clip(state, tmp_path)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)
    assert process.returncode == 0
    assert [member for member in [*members, postgres] if member.is_running()] == []


@pytest.mark.merge
def test_a_killed_stack_ends_its_processes_and_can_be_restarted(up, state, home, tmp_path):
    process, _ = up()
    try:
        job_id = job_of_a_clip(state, tmp_path)
        members = family(process.pid)
    finally:
        # Without a chance to clean up.
        process.kill()
        process.wait()
    deadline = time.monotonic() + 40
    while any(member.is_running() for member in members) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert [member for member in members if member.is_running()] == []
    assert "no service to talk to" in deepfakestream("jobs", home=home).stderr, "what was killed is not found"
    process, _ = up()
    try:
        assert job_id in deepfakestream("jobs", "--json", state=state).stdout
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    assert process.returncode == 0
