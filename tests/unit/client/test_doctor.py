"""The doctor without a server: which states a service can be in, and the exit status."""

import json
import os
import subprocess
import sys

import pytest
from deepfakestream.diagnosis import make_picture

from shared.config import Limits
from tests.sdk_alone import WITH_SDK_ALONE
from tests.unit.client.services import answer, job, problem, running_state
from worker.media.probe import probe

DOCUMENT = {"info": {"version": "0.1.0"}}


@pytest.fixture
def doctor(server, tmp_path):
    """Return a function that runs the doctor as if the server were not installed, and returns status and outcomes."""

    def run(*arguments, answers=(), before=(), **environment):
        server.answers = list(answers)
        with running_state(tmp_path / "state", server.url) as state:
            state_options = [] if before or environment else ["--state", state]
            done = subprocess.run(
                [sys.executable, "-c", WITH_SDK_ALONE, *before, *state_options, "doctor", "--json", *arguments],
                env={**os.environ, **environment},
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
        found = json.loads(done.stdout)
        assert (done.returncode == 0) is found["is_well"]
        return done.returncode, {check["name"]: check for check in found["checks"]}

    return run


def test_a_service_that_scans_is_well_and_keeps_no_job(doctor, server):
    ended = job("succeeded", verdict="not_applicable")
    answers = [answer(DOCUMENT), answer({"items": [{"name": "m", "version": "1"}]}), answer(job("queued"), 202)]
    status, found = doctor(answers=[*answers, answer(ended), (204, {}, b"")])
    assert status == 0
    assert {found[name]["state"] for name in ("client", "system", "service", "API key", "service scan")} == {"ok"}
    assert found["server"]["state"] == "absent"
    assert [request.method for request in server.requests] == ["GET", "GET", "POST", "GET", "DELETE"]
    assert "Authorization" not in server.requests[0].headers, "the release needs no key"
    assert server.requests[2].body == make_picture()


def test_without_a_scan_no_job_is_made(doctor, server):
    status, found = doctor("--no-scan", answers=[answer(DOCUMENT), answer({"items": []})])
    assert status == 0
    assert "service scan" not in found
    assert [request.method for request in server.requests] == ["GET", "GET"]


def test_another_release_is_a_warning(doctor):
    status, found = doctor("--no-scan", answers=[answer({"info": {"version": "9.0"}}), answer({"items": []})])
    assert (status, found["service"]["state"]) == (0, "warning")
    assert "release 9.0" in found["service"]["detail"]


@pytest.mark.parametrize(
    ("answers", "name"),
    [
        pytest.param([answer([])], "service", id="another document"),
        pytest.param([(200, {}, b"<html>")], "service", id="no document"),
        pytest.param([answer({}, 404)], "service", id="no service"),
        pytest.param([answer(DOCUMENT), problem(401, "unauthorized")], "API key", id="key"),
        pytest.param(
            [answer(DOCUMENT), answer({"items": []}), problem(422, "unsupported_media")], "service scan", id="refused"
        ),
        pytest.param(
            [
                *(answer(DOCUMENT), answer({"items": []}), answer(job("queued"), 202)),
                *(answer(job("failed", error={"code": "x", "detail": "It is so."})), (204, {}, b"")),
            ],
            "service scan",
            id="failed",
        ),
    ],
)
def test_a_service_that_does_not_work_is_a_problem(doctor, answers, name):
    status, found = doctor(answers=answers)
    assert (status, found[name]["state"]) == (1, "problem")


def test_a_named_service_that_does_not_answer_is_a_problem(doctor):
    status, found = doctor(before=["--url", "http://127.0.0.1:1", "--api-key", "dfs_x"])
    assert (status, found["service"]["state"]) == (1, "problem")


def test_with_neither_server_nor_service_nothing_can_scan(doctor, tmp_path):
    status, found = doctor(XDG_STATE_HOME=str(tmp_path / "nobody"))
    assert (status, found["service"]["state"], found["use"]["state"]) == (1, "absent", "problem")
    assert "DEEPFAKESTREAM_URL" in found["use"]["detail"]


def test_the_picture_is_an_image_that_the_service_accepts(tmp_path):
    picture = tmp_path / "doctor.png"
    picture.write_bytes(make_picture())
    facts = probe(picture, Limits().for_media(), timeout_s=30.0)
    assert (facts.container, facts.width_px, facts.height_px) == ("png", 64, 64)
