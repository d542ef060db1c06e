"""The command ``rescore`` against a real HTTP server that answers as the service does."""

from unittest.mock import ANY

import pytest

from tests.unit.client.services import answer, job, problem

MEDIA = [{"sha256": digit * 64, "stored": True, "size_bytes": 1, "kind": "image"} for digit in "ab"]


def jobs(*media):
    items = [
        job(id=f"job-{number}", media=each, options={"model": "old"}, verdict="real", fake_score=0.1)
        for number, each in enumerate(media)
    ]
    return answer({"items": items, "next_cursor": None})


def rescore(command, server, *arguments):
    return command("--url", server.url, "--api-key", "dfs_x", "rescore", *arguments)


def test_what_has_failed_is_tried_again_by_the_same_command(server, command):
    """A key of idempotency that stays the same would get the failed job for ever."""
    keys = []
    for status in ("failed", "succeeded"):
        server.answers = [jobs(MEDIA[0]), answer(job("queued"), 202), answer(job(status))]
        done = rescore(command, server, "--all", "--model", "new")
        assert done.exit_code == (1 if status == "failed" else 0), done.output
        keys.append(server.requests[-2].headers["Idempotency-Key"])
    assert keys == [ANY, ANY]
    assert keys[0] != keys[1]


@pytest.mark.parametrize("status", ["failed", "cancelled", "succeeded"])
def test_the_exit_status_says_whether_the_new_job_succeeded(server, command, status):
    server.answers = [answer(job("queued"), 202), answer(job("succeeded")), answer(job(status))]
    done = rescore(command, server, "job-0")
    assert done.exit_code == (0 if status == "succeeded" else 1)
    assert done.stdout.count("\n") == 1
    assert status == "succeeded" or status in done.stdout


@pytest.mark.parametrize("status", ["queued", "running", "failed"])
def test_nothing_is_said_to_have_changed_where_there_was_no_result(server, command, status):
    server.answers = [answer(job("queued"), 202), answer(job(status, id="job-0")), answer(job("succeeded"))]
    done = rescore(command, server, "job-0")
    assert done.stdout.startswith("job-0 -> ")
    assert "not compared" in done.stdout
    assert "changed" not in done.stdout


def test_media_that_is_gone_does_not_stop_the_others(server, command):
    server.answers = [
        *(jobs(*MEDIA), problem(410, "media_missing")),
        *(answer(job("queued"), 202), answer(job("succeeded", verdict="real"))),
    ]
    done = rescore(command, server, "--all", "--model", "new")
    assert done.exit_code == 1
    assert "job-1: It is so. (media_missing)" in done.stderr
    assert "same: real" in done.stdout
    assert [request.path for request in server.requests[1:3]] == ["/v1/jobs/job-1/rescore", "/v1/jobs/job-0/rescore"]


def test_what_would_fail_for_all_ends_the_command(server, command):
    server.answers = [jobs(*MEDIA), problem(422, "unknown_model")]
    done = rescore(command, server, "--all", "--model", "new")
    assert done.exit_code == 1
    assert len(server.requests) == 2
