"""Reports, reviews and scoring again, by the command line and the SDK against a running service."""

import json
import os

import httpx
import numpy as np
import pytest
from deepfakestream.errors import InvalidRequestError, NotFoundError
from deepfakestream.rescoring import rescore_jobs, select_outdated_jobs
from PIL import Image

from tests.clips import hopper
from tests.e2e.test_command_line import deepfakestream


def scan(client, path, **options):
    return client.wait(client.submit(path, **options).id, timeout_s=120)


@pytest.fixture
def picture(tmp_path):
    """A picture of a face that no other test has submitted."""
    pixels = hopper().copy()
    pixels[:8, :8] = np.frombuffer(os.urandom(192), np.uint8).reshape(8, 8, 3)
    path = tmp_path / "picture.png"
    Image.fromarray(pixels).save(path)
    return path


def test_a_job_is_scored_again_by_another_checkpoint_and_compared(stack, client, picture):
    before = scan(client, picture, model="swap-lite0")
    done = deepfakestream("rescore", before.id, "--model", "swap-lite2", state=stack.state)
    assert done.returncode == 0, done.stderr
    child = client.get(done.stdout.split()[2])
    assert (child.parent_id, child.model.name, child.status) == (before.id, "swap-lite2", "succeeded")
    assert "swap-lite0" in done.stdout
    diff = client.diff(before.id, child.id)
    assert diff["changed_options"] == ["model", "weights"]
    assert [diff["before"]["fake_score"], diff["after"]["fake_score"]] == [before.fake_score, child.fake_score]
    with pytest.raises(NotFoundError):
        client.diff(before.id, "00000000-0000-0000-0000-000000000000")


def test_all_media_is_scored_again_once_after_a_change_of_checkpoint(client, picture):
    job = scan(client, picture, model="swap-lite0")
    outdated = {job.id for job in select_outdated_jobs(client, "swap-lite2")}
    assert job.id in outdated
    made = []
    chosen = [each for each in select_outdated_jobs(client, "swap-lite2") if each.id == job.id]
    rescore_jobs(client, chosen, "swap-lite2", lambda _, after: made.append(after), pytest.fail)
    assert [each.parent_id for each in made] == [job.id]
    assert job.id not in {each.id for each in select_outdated_jobs(client, "swap-lite2")}


def test_a_link_shows_the_report_until_it_is_revoked(stack, client, picture):
    job = scan(client, picture)
    done = deepfakestream("share", job.id, "--hours", "1", state=stack.state)
    assert done.returncode == 0, done.stderr
    url = done.stdout.strip()
    page = httpx.get(url)
    assert (page.status_code, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert job.id in page.text
    media = httpx.get(url.replace("/report?", "/report/media?"), headers={"Range": "bytes=0-9"})
    assert (media.status_code, media.content) == (206, picture.read_bytes()[:10])
    assert media.headers["Content-Type"] == "image/png"
    assert [share.url for share in client.shares(job.id)] == [None]
    done = deepfakestream("share", job.id, "--revoke", state=stack.state)
    assert done.stdout == f"{job.id}: 1 link revoked\n"
    assert httpx.get(url).status_code == 404


def test_a_finding_is_recorded_shown_and_exported(stack, client, picture):
    job = scan(client, picture)
    done = deepfakestream("review", job.id, "disputed", "--note", "blurred", state=stack.state)
    assert done.stdout == f"{job.id} disputed\n", done.stderr
    reviewed = client.get(job.id)
    assert (reviewed.review.finding, reviewed.review.note) == ("disputed", "blurred")
    assert "A person disputes this result." in httpx.get(client.share(job.id).url).text
    exported = deepfakestream("reviews", "export", state=stack.state).stdout.splitlines()
    labels = {label["job_id"]: label for label in map(json.loads, exported)}
    assert labels[job.id]["finding"] == "disputed"
    assert labels[job.id]["sha256"] == job.raw["media"]["sha256"]
    client.withdraw_review(job.id)
    assert client.get(job.id).review is None


def test_an_unknown_checkpoint_is_refused(client, picture):
    job = scan(client, picture)
    with pytest.raises(InvalidRequestError) as refused:
        client.rescore(job.id, model="no-such")
    assert refused.value.code == "unknown_model"


def test_the_report_is_downloaded_as_one_file(stack, client, picture, tmp_path):
    job = scan(client, picture)
    done = deepfakestream("report", job.id, "--out", tmp_path / "report.html", state=stack.state)
    assert done.returncode == 0, done.stderr
    assert job.id in (tmp_path / "report.html").read_text()
    done = deepfakestream("report", job.id, "--out", tmp_path / "no" / "report.html", state=stack.state)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
