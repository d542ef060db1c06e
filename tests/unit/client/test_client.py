"""The SDK against a real HTTP server that answers as the service does."""

import io
import json
import time
from datetime import UTC, datetime
from functools import partial
from operator import methodcaller
from urllib.parse import parse_qs, urlsplit

import pytest
from deepfakestream import Client, verify_webhook
from deepfakestream.errors import (
    APIError,
    AuthenticationError,
    ConflictError,
    ConnectionFailedError,
    InvalidRequestError,
    NotFoundError,
    RateLimitedError,
    ServerError,
    TooLargeError,
    WaitTimeoutError,
    WebhookVerificationError,
)
from deepfakestream.tables import print_job
from rich.console import Console
from standardwebhooks import Webhook

from tests.unit.client.services import answer, job, problem

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.fixture
def client(server, no_pauses, connect):  # noqa: ARG001 - it changes how the client pauses
    with connect(server.url, "dfs_key") as connected:
        yield connected


def test_a_file_is_streamed_with_its_options_and_an_idempotency_key(server, client, tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"x" * 600_000)
    server.answers = [answer(job("queued"), 202)]
    progress = []
    made = client.submit(
        tmp_path / "a.mp4", sample_fps=3.0, metadata={"a": 1}, on_upload=lambda *sent: progress.append(sent)
    )
    (request,) = server.requests
    assert made.status == "queued"
    assert made.created_at == datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
    assert made.raw["added_by_a_newer_service"]
    assert request.body == b"x" * 600_000
    assert request.path == "/v1/jobs?sample_fps=3.0&metadata=%7B%22a%22%3A+1%7D"
    assert request.headers["Authorization"] == "Bearer dfs_key"
    assert len(request.headers["Idempotency-Key"]) == 32
    assert progress[-1] == (600_000, 600_000)


def test_a_submission_that_got_no_answer_is_repeated_under_the_same_key(server, client):
    server.answers = [problem(503, "service_unavailable", **{"Retry-After": "1"}), answer(job("queued"), 202)]
    client.submit(io.BytesIO(b"whole body"))
    first, second = server.requests
    assert first.body == second.body == b"whole body"
    assert first.headers["Idempotency-Key"] == second.headers["Idempotency-Key"]


def test_a_url_is_submitted_as_json(server, client):
    server.answers = [answer(job("queued"), 202)]
    client.submit(url="https://a.example/x", webhook_url="https://b.example/", metadata={"a": 1})
    assert json.loads(server.requests[0].body) == {
        "url": "https://a.example/x",
        "webhook_url": "https://b.example/",
        "metadata": {"a": 1},
    }


def test_every_way_to_make_a_job_or_a_stream_names_the_events_to_send(server, client):
    events = ("job.failed", "job.cancelled")
    upload = {"id": "u", "method": "PUT", "url": f"{server.url}/put", "headers": {}}
    made, stream = answer(job("queued"), 202), {"id": "s", "status": "queued", "state": "waiting", "source": "rtsp://a"}
    server.answers = [
        made,
        made,
        answer(upload, 201),
        (200, {}, b""),
        made,
        made,
        answer(stream | {"last_seq": 0}, 202),
    ]
    given = {"webhook_url": "https://b.example/", "webhook_events": events}
    client.submit(io.BytesIO(b"x"), **given)
    client.submit(url="https://a.example/x", **given)
    client.submit(io.BytesIO(b"x"), direct=True, **given)
    client.rescore("x", **given)
    client.begin_stream("rtsp://a", **given)
    in_query, *by_json = (one for one in server.requests if one.path.startswith(("/v1/jobs", "/v1/streams")))
    assert parse_qs(urlsplit(in_query.path).query)["webhook_events"] == ["job.failed,job.cancelled"]
    assert [json.loads(one.body)["webhook_events"] for one in by_json] == [[*events]] * 4
    for call in (partial(client.submit, b"x"), partial(client.rescore, "x"), partial(client.begin_stream, "rtsp://a")):
        with pytest.raises(TypeError, match=r"give \['job.failed'\] instead of 'job.failed'"):
            call(webhook_url="https://b.example/", webhook_events="job.failed")
        with pytest.raises(ValueError, match=r"give \['job.failed', 'job.succeeded'\] instead of"):
            call(webhook_url="https://b.example/", webhook_events=["job.failed,job.succeeded"])
        with pytest.raises(ValueError, match="webhook_events is empty"):
            call(webhook_url="https://b.example/", webhook_events=[])
        with pytest.raises(TypeError, match="7 is none"):
            call(webhook_url="https://b.example/", webhook_events=["job.failed", 7])
    assert len(server.requests) == 7


@pytest.mark.parametrize("arguments", [{}, {"file": "a", "url": "b"}])
def test_a_submission_is_of_a_file_or_a_url(client, arguments):
    with pytest.raises(ValueError, match="either a file or a url"):
        client.submit(**arguments)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, AuthenticationError),
        (403, AuthenticationError),
        (404, NotFoundError),
        (409, ConflictError),
        (413, TooLargeError),
        (422, InvalidRequestError),
        (500, ServerError),
    ],
)
def test_problems_become_errors_of_their_kind(server, client, status, kind):
    server.answers = [problem(status, "some_code")]
    with pytest.raises(kind) as raised:
        client.get("x")
    assert (raised.value.status, raised.value.code, raised.value.detail) == (status, "some_code", "It is so.")
    assert raised.value.request_id == "r1"


def test_an_answer_that_is_no_problem_document_is_an_error_too(server, client):
    server.answers = [(502, {}, b"<html>")] * 4
    with pytest.raises(APIError) as raised:
        client.get("x")
    assert raised.value.code == "http_502"
    assert len(server.requests) == 4


def test_a_rate_limit_error_has_the_time_until_a_retry(server, client):
    server.answers = [problem(429, "rate_limited", **{"Retry-After": "7"})] * 4
    with pytest.raises(RateLimitedError) as raised:
        client.get("x")
    assert raised.value.retry_after_s == 7.0


@pytest.mark.usefixtures("no_pauses")
def test_no_server_is_a_failed_connection(connect):
    with connect("http://127.0.0.1:9", "dfs_key", retries=1) as client, pytest.raises(ConnectionFailedError):
        client.get("x")


def test_waiting_lets_the_service_hold_its_answers(server, client):
    server.answers = [answer(job("running")), answer(job("succeeded", verdict="real"))]
    assert client.wait("x", poll_s=0.0).verdict == "real"
    assert [request.headers["Prefer"] for request in server.requests] == ["wait=30", "wait=30"]


def test_waiting_with_progress_reports_each_status_and_notices_the_end_at_once(server, client):
    server.answers = [answer(job("queued")), answer(job("running")), answer(job("failed"))]
    seen = []
    client.wait("x", poll_s=0.0, on_progress=lambda found: seen.append(found.status))
    assert seen == ["queued", "running", "failed"]
    assert [request.headers["Prefer"] for request in server.requests] == ["wait=1"] * 3


def test_waiting_ends_in_time(server, client):
    server.answers = [answer(job("running"))] * 50
    began = time.monotonic()
    with pytest.raises(WaitTimeoutError):
        client.wait("x", timeout_s=0.3, poll_s=0.05)
    assert time.monotonic() - began < 15


def test_lists_follow_their_pages(server, client):
    server.answers = [
        answer({"items": [job(), job()], "next_cursor": "abc"}),
        answer({"items": [job()], "next_cursor": None}),
    ]
    assert len(list(client.list(status="succeeded"))) == 3
    assert [request.path for request in server.requests] == [
        "/v1/jobs?status=succeeded",
        "/v1/jobs?status=succeeded&cursor=abc",
    ]


@pytest.mark.parametrize("part", [".", ".."])
def test_no_id_names_another_resource(server, client, part):
    # HTTPX would resolve them: revoking the link ".." would delete the job.
    for request in (lambda: client.revoke_share("x", part), lambda: client.delete(part), lambda: client.get(part)):
        with pytest.raises(InvalidRequestError, match="is not an id or a name"):
            request()
    assert not server.requests
    client.revoke_share("x", "../../y")
    assert server.requests[0].path == "/v1/jobs/x/shares/..%2F..%2Fy"


def test_deleting_expects_no_body(server, client):
    server.answers = [(204, {}, b"")]
    client.delete("x")


def signed(body, moment=None):
    moment = moment or datetime.now(UTC)
    return {
        "Webhook-Id": "msg_1",
        "Webhook-Timestamp": str(int(moment.timestamp())),
        "Webhook-Signature": Webhook(SECRET).sign("msg_1", moment, body),
    }


def test_a_signed_webhook_is_verified():
    body = json.dumps({"type": "job.succeeded", "data": {}})
    assert verify_webhook(signed(body), body.encode(), SECRET)["type"] == "job.succeeded"
    assert Client.verify_webhook(signed(body), body, SECRET)["type"] == "job.succeeded"


@pytest.mark.parametrize("spoil", ["body", "secret", "age", "header"])
def test_a_webhook_that_was_changed_or_is_old_is_refused(spoil):
    body = '{"type":"job.succeeded"}'
    headers = signed(body, datetime(2020, 1, 1, tzinfo=UTC) if spoil == "age" else None)
    if spoil == "header":
        del headers["Webhook-Signature"]
    secret = "whsec_" + "A" * 32 if spoil == "secret" else SECRET
    with pytest.raises(WebhookVerificationError):
        verify_webhook(headers, body + (" " if spoil == "body" else ""), secret)


@pytest.mark.parametrize(
    "secret", ["", "whsec_", "whsec_=", "whsec_!", None, "whsec_é"], ids=["empty", "prefix", "=", "!", "None", "é"]
)
def test_an_invalid_secret_is_an_error_of_this_package(secret):
    with pytest.raises(WebhookVerificationError, match="could not be verified: "):
        verify_webhook(signed("{}"), "{}", secret)


@pytest.mark.parametrize("body", ["[1]", "null", "x", "[" * 100_000], ids=["list", "null", "no JSON", "deep"])
def test_a_signed_body_that_is_no_event_is_refused(body):
    with pytest.raises(WebhookVerificationError):
        verify_webhook(signed(body), body, SECRET)


def summaries(first, count):
    """Return segments as in the document of a job."""
    return [
        {"index": index, "start_s": 1.0 * index, "end_s": index + 1.0, "status": "scored", "fake_score": 0.5}
        for index in range(first, first + count)
    ]


def long_job(status, total=250):
    """Return a job of which the service returned the first 100 segments."""
    progress = {"segments_total": total, "segments_done": total, "fraction": 1.0}
    return answer(job(status, progress=progress, segments=summaries(0, 100), segments_next_cursor="OTk"))


def page(first, count, following=None):
    """Return a page of summaries."""
    return answer({"items": summaries(first, count), "next_cursor": following})


ASKING = pytest.mark.parametrize(
    "ask",
    [methodcaller("get", "x"), methodcaller("wait", "x"), methodcaller("cancel", "x")],
    ids=["get", "wait", "cancel"],
)
"""Requests that complete the job that they return."""


@ASKING
def test_an_ended_job_has_all_of_its_segments(server, client, ask):
    server.answers = [long_job("cancelled"), page(100, 100, "MTk5"), page(200, 50)]
    found = ask(client)
    assert [segment.index for segment in found.segments] == list(range(250))
    assert found.raw["segments"] == summaries(0, 250)
    assert found.segments_next_cursor is found.raw["segments_next_cursor"] is None
    path = "/v1/jobs/01a20d78-a9e9-755a-a1ee-3373ca532026/segments?view=summary&limit=1000&cursor="
    assert [request.path for request in server.requests[1:]] == [f"{path}OTk", f"{path}MTk5"]


def test_polls_of_a_running_job_request_no_more_pages(server, client):
    server.answers = [long_job("running"), long_job("running"), long_job("failed"), page(100, 150)]
    seen = []
    done = client.wait("x", poll_s=0.0, on_progress=lambda found: seen.append(len(found.segments)))
    assert (seen, len(done.segments), len(server.requests)) == ([100, 100, 250], 250, 4)


def test_the_table_says_how_many_segments_it_leaves_out(server, client):
    server.answers = [long_job("running")]
    printed = io.StringIO()
    print_job(Console(file=printed), "x", client.get("x"))
    assert "and 150 more segments" in printed.getvalue()
