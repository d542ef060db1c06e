"""Batches and usage: what both clients send and read, and what the commands print."""

import csv
import dataclasses
import hashlib
import io
import json
import os
import signal
import threading
import time
from datetime import UTC, date, datetime

import pytest
from deepfakestream import Batch, InvalidRequestError, NotFoundError, Submission, Upload, Usage, WaitTimeoutError
from deepfakestream.errors import UnexpectedAnswerError
from pydantic import ValidationError

from tests.unit.client.services import answer, cut_off, job, problem

PICTURE = b"\xff\xd8\xff a picture"
NOT_SET = {"job_id": None, "status": None, "verdict": None, "fake_score": None, "reasons": [], "metadata": {}}


def item(index, status="succeeded", **changes):
    made = {"job_id": f"job-{index}", "status": status, "metadata": {"filename": f"{index}.jpg"}}
    return {**NOT_SET, "index": index, "error": None, **made, **changes}


def refused(index):
    return {**NOT_SET, "index": index, "error": {"code": "unknown_model", "detail": "There is none."}}


def batch(*items, ended=True, **changes):
    counts = {"total": len(items), "queued": 0, "running": 0, "succeeded": 0, "failed": 0, "cancelled": 0}
    counts |= {"refused": 0, "erased": 0}
    for each in items:
        counts[each["status"] or ("refused" if each["error"] else "erased")] += 1
    document = {"id": "b-1", "created_at": "2026-01-02T03:04:05Z", "webhook_url": None, "metadata": {}}
    document |= {"ended_at": "2026-01-02T03:04:09Z" if ended else None, "counts": counts, "verdicts": {"real": 1}}
    return {**document, "items": list(items), "next_cursor": None, **changes}


def usage_document(**changes):
    total = {"jobs": 3, "media": 2, "seconds": 20.5, "faces": 40, "bytes": 2_500_000}
    day = {"day": "2026-01-02", "api_key_id": "01a20d78-a9e9-755a-a1ee-3373ca532026", "key_name": "=desk"}
    document = {"first_day": "2026-01-01", "last_day": "2026-01-30", "total": total, "items": [{**total, **day}]}
    return document | changes


@pytest.fixture
def client(server, no_pauses, connect):  # noqa: ARG001 - it changes how the client pauses
    with connect(server.url, "dfs_key", timeout_s=5.0) as connected:
        yield connected


@pytest.fixture
def run(command, server):
    return lambda *arguments: command("--url", server.url, "--api-key", "dfs_key", *arguments)


def place(server, upload_id):
    headers = {"Content-Length": str(len(PICTURE))}
    return answer({"id": upload_id, "method": "PUT", "url": f"{server.url}/storage", "headers": headers}, 201)


def test_each_kind_of_item_is_sent_and_files_go_to_storage(server, client, tmp_path):
    (tmp_path / "a.jpg").write_bytes(PICTURE)
    stored, made = (200, {}, b""), answer(batch(item(0, "queued"), ended=False, webhook_events=["batch.ended"]), 202)
    server.answers = [
        *(place(server, "u-1"), stored),
        *(place(server, "u-2"), cut_off(200), stored),
        cut_off(202),
        made,
    ]
    sent = []
    found = client.submit_batch(
        [
            "https://a.example/1.mp4",
            tmp_path / "a.jpg",
            Submission(
                io.BytesIO(PICTURE),
                *(None, 4.0),
                webhook_url="https://c.example/",
                metadata={"case": 7},
                explain=True,
                webhook_events=("job.failed", "job.cancelled"),
            ),
            Upload(id="u-0", sha256="0" * 64, size_bytes=1),
        ],
        model="m",
        webhook_url="https://b.example/",
        webhook_events=("batch.ended",),
        metadata={"desk": 1},
        on_upload=lambda *what: sent.append(what),
    )
    sha256 = hashlib.sha256(PICTURE).hexdigest()
    bodies = [json.loads(request.body) for request in server.requests if request.path == "/v1/batches"]
    assert (
        bodies[0]
        == bodies[1]
        == {
            "items": [
                {"url": "https://a.example/1.mp4"},
                {"upload_id": "u-1", "sha256": sha256},
                {
                    "upload_id": "u-2",
                    "sha256": sha256,
                    "metadata": {"case": 7},
                    "sample_fps": 4.0,
                    "explain": True,
                    "webhook_url": "https://c.example/",
                    "webhook_events": ["job.failed", "job.cancelled"],
                },
                {"upload_id": "u-0", "sha256": "0" * 64},
            ],
            "model": "m",
            "webhook_url": "https://b.example/",
            "webhook_events": ["batch.ended"],
            "metadata": {"desk": 1},
        }
    )
    keys = {request.headers["Idempotency-Key"] for request in server.requests if request.path == "/v1/batches"}
    assert len(keys) == 1
    assert not any("Authorization" in request.headers for request in server.requests if request.method == "PUT")
    assert {(index, total) for index, _, total in sent} == {(1, len(PICTURE)), (2, len(PICTURE))}
    assert (found.is_final, found.items[0].status, found.webhook_events) == (False, "queued", ("batch.ended",))


@pytest.mark.parametrize("items", ["https://a.example/1.mp4", b"content", Submission("a"), 7])
def test_one_item_is_no_list_of_items(server, client, items):
    with pytest.raises(TypeError):
        client.submit_batch(items)
    assert server.requests == []


@pytest.mark.parametrize("count", [0, 101])
def test_a_batch_of_none_or_too_many_is_not_sent(server, client, count):
    with pytest.raises(InvalidRequestError, match="1 to 100 items"):
        client.submit_batch(["https://a.example/"] * count)
    assert server.requests == []


def test_nothing_is_sent_where_an_item_or_an_option_is_not_acceptable(server, client):
    with pytest.raises(TypeError, match="path, bytes"):
        client.submit_batch([io.BytesIO(PICTURE), 7])
    with pytest.raises(InvalidRequestError, match="metadata"):
        client.submit_batch([Submission(PICTURE, metadata={"a": {1}})])
    with pytest.raises(ValueError, match="webhook_events is empty"):
        client.submit_batch([PICTURE], webhook_url="https://b.example/", webhook_events=[])
    with pytest.raises(ValueError, match=r"give \['job.failed', 'job.cancelled'\]"):
        client.submit_batch([PICTURE, Submission(PICTURE, webhook_events=["job.failed,job.cancelled"])])
    with pytest.raises(ValueError, match="service fetches it"):
        client.upload("https://a.example/1.mp4")
    assert server.requests == []


def test_the_error_says_of_each_item_why_no_batch_was_made(server, client):
    errors = [{"name": "items.0", "detail": "no"}, "unexpected", {"name": "items.1", "detail": "never"}]
    body = {"status": 422, "code": "invalid_request", "detail": "It is so.", "errors": errors}
    server.answers = [answer(body, 422), answer(body | {"errors": "none"}, 422)]
    for expected in ((("items.0", "no"), ("items.1", "never")), ()):
        with pytest.raises(InvalidRequestError) as raised:
            client.submit_batch(["https://a.example/"])
        assert raised.value.errors == expected


def test_all_items_are_read_although_they_come_in_pages(server, client):
    pages = [batch(item(0), next_cursor="c1"), batch(item(1), next_cursor="c2"), batch(item(2))]
    server.answers = [answer(page) for page in pages]
    found = client.batch("b-1")
    assert [each.index for each in found.items] == [each["index"] for each in found.raw["items"]] == [0, 1, 2]
    assert [request.path for request in server.requests] == [
        "/v1/batches/b-1?limit=100",
        "/v1/batches/b-1?limit=100&cursor=c1",
        "/v1/batches/b-1?limit=100&cursor=c2",
    ]


def test_progress_has_each_state_once_and_waiting_calls_back(server, client):
    states = [
        batch(item(0, "queued"), item(1, "queued"), ended=False),
        batch(item(0, "queued"), item(1, "queued"), ended=False),
        batch(item(0), item(1, "running"), ended=False),
        batch(item(0), item(1)),
    ]
    server.answers = [answer(state) for state in states]
    found = list(client.batch_progress("b-1", poll_s=0.01))
    assert [(state.counts.ended, state.is_final) for state in found] == [(0, False), (1, False), (2, True)]
    server.answers = [answer(state) for state in states]
    seen = []
    ended = client.wait_for_batch("b-1", poll_s=0.01, on_progress=seen.append)
    assert len(seen) == len(states)
    assert (seen[-1], ended.duration.total_seconds()) == (ended, 4.0)
    server.answers = [answer(states[0])] * 100
    with pytest.raises(WaitTimeoutError, match=r"batch b-1 did not end within 0.2 s; it goes on"):
        client.wait_for_batch("b-1", timeout_s=0.2, poll_s=0.05)
    assert server.answers, "it was asked again before the pause"


def test_jobs_of_a_batch_are_those_that_are_there(server, client):
    server.answers = [
        answer(batch(item(0), refused(1), {**NOT_SET, "index": 2, "error": None}, item(3), item(4))),
        *(answer(job(id="job-0")), problem(404, "not_found"), answer(job(id="job-4"))),
    ]
    assert [each.id for each in client.batch_jobs("b-1")] == ["job-0", "job-4"]


def test_results_as_csv_and_what_is_none(server, client):
    server.answers = [
        (200, {"Content-Type": "text/csv; charset=utf-8"}, "index,job_id\r\n0,ä\r\n".encode()),
        (200, {"Content-Type": "text/html"}, b"<html>"),
    ]
    assert client.batch_csv("b-1") == "index,job_id\r\n0,ä\r\n"
    with pytest.raises(UnexpectedAnswerError, match="text/csv"):
        client.batch_csv("b-1")
    assert {request.path for request in server.requests} == {"/v1/batches/b-1/results.csv"}


def test_a_batch_is_cancelled_and_erased(server, client):
    server.answers = [answer(batch(item(0, "cancelled"))), cut_off(200), problem(404, "not_found")]
    assert client.cancel_batch("b-1").counts.cancelled == 1
    client.delete_batch("b-1")
    server.answers = [problem(404, "not_found")]
    with pytest.raises(NotFoundError):
        client.delete_batch("b-1")
    assert [request.method for request in server.requests] == ["POST", "DELETE", "DELETE", "DELETE"]


def summary(name, *items, **changes):
    """Return a batch as a list has it."""
    document = batch(*items, id=name, **changes)
    return {name: value for name, value in document.items() if name not in ("items", "next_cursor")}


def test_batches_are_listed_page_by_page_as_far_as_they_are_wanted(server, client):
    pages = [
        {"items": [summary("b-3", item(0)), summary("b-2", item(0), refused(1))], "next_cursor": "c1"},
        {"items": [summary("b-1", item(0))], "next_cursor": None},
    ]
    server.answers = [answer(page) for page in pages]
    found = list(client.list_batches())
    assert [each.id for each in found] == ["b-3", "b-2", "b-1"]
    assert (found[1].counts.refused, found[1].items, found[1].raw) == (1, (), pages[0]["items"][1])
    server.answers = [answer(pages[0])] * 2
    assert [each.id for each in client.list_batches(ended=True, limit=2)] == ["b-3", "b-2"]
    assert [each.id for each in client.list_batches(ended=False, limit=1)] == ["b-3"]
    assert [request.path for request in server.requests] == [
        *("/v1/batches", "/v1/batches?cursor=c1"),
        *("/v1/batches?ended=true", "/v1/batches?ended=false"),
    ]


def test_what_a_newer_service_adds_to_a_batch_or_usage_is_kept():
    added = {"later": 7}
    found = Batch.from_json(batch(item(0, **added), **added))
    assert found.webhook_events is None, "an older service says nothing of them"
    assert (found.extra["later"], found.items[0].extra, found.items[0].error) == (7, added, None)
    read = Usage.from_json(usage_document(**added))
    assert (read.extra, read.total.extra) == (added, {})
    assert dataclasses.replace(read, last_day=date(2026, 2, 1)).last_day == date(2026, 2, 1)


@pytest.mark.parametrize("day", ["1700000000", 1700000000, 1.5, "today", None, datetime(2026, 1, 1, tzinfo=UTC)])
def test_what_is_no_day_is_refused(day):
    with pytest.raises(ValidationError, match="first_day"):
        Usage.from_json(usage_document(first_day=day))


def test_usage_is_asked_for_by_days(server, client):
    server.answers = [answer(usage_document())] * 2
    found = client.usage(date(2026, 1, 1), date(2026, 1, 30))
    assert (found.first_day, found.items[0].day, found.items[0].faces) == (date(2026, 1, 1), date(2026, 1, 2), 40)
    assert client.usage().total == found.total
    assert [request.path for request in server.requests] == ["/v1/usage?from=2026-01-01&to=2026-01-30", "/v1/usage"]


def test_addresses_are_submitted_as_one_batch_and_printed_as_by_scan(server, run):
    addresses = ("HTTPS://a.example/x/one.jpg?token=secret", "https://a.example/")
    jobs = [job(id=f"job-{index}", verdict=verdict) for index, verdict in enumerate(("real", "fake"))]
    server.answers = [
        answer(batch(item(0, "queued"), item(1, "queued"), ended=False), 202),
        *(answer(batch(item(0), item(1))), *map(answer, jobs)),
    ]
    receiver = ("--webhook-url", "https://b.example/", "--webhook-event", "batch.ended")
    done = run("batch", "submit", *addresses, "--fail-on", "fake", *receiver)
    assert done.exit_code == 3, done.output
    assert json.loads(server.requests[0].body) == {
        "items": [
            {"url": "https://a.example/x/one.jpg?token=secret", "metadata": {"filename": "one.jpg"}},
            {"url": "https://a.example/"},
        ],
        "webhook_url": "https://b.example/",
        "webhook_events": ["batch.ended"],
    }
    assert done.stderr == "batch b-1\n"
    assert "job     job-0" in done.stdout
    assert "2 files in " in done.stdout
    assert "1 real, 1 fake, 0 inconclusive, 0 failed" in done.stdout


def test_files_are_uploaded_and_what_cannot_be_sent_is_named(server, run, tmp_path):
    (tmp_path / "a.jpg").write_bytes(PICTURE)
    (tmp_path / "notes.txt").write_text("text")
    server.answers = [
        *(place(server, "u-1"), (200, {}, b"")),
        *(answer(batch(item(0, "queued"), ended=False), 202), answer(batch(item(0))), answer(job(verdict="real"))),
    ]
    done = run("batch", "submit", "--json", tmp_path / "missing", tmp_path / "notes.txt", tmp_path / "a.jpg")
    assert done.exit_code == 1, done.output
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["file"].rsplit("/", 1)[-1] for line in lines] == ["missing", "notes.txt", "a.jpg"]
    assert lines[1]["error"]["code"] == "not_media"
    assert lines[2]["job"]["verdict"] == "real"
    [made] = [json.loads(request.body) for request in server.requests if request.path == "/v1/batches"]
    assert made["items"][0]["metadata"] == {"filename": "a.jpg"}


def test_files_for_a_service_without_direct_uploads(server, run, tmp_path):
    (tmp_path / "a.jpg").write_bytes(PICTURE)
    server.answers = [problem(409, "no_direct_uploads")]
    done = run("batch", "submit", tmp_path / "a.jpg", "https://a.example/")
    assert done.exit_code == 1
    assert "deepfakestream scan" in done.output
    assert [request.path for request in server.requests] == ["/v1/uploads"]


def test_a_batch_of_which_all_is_refused_says_why_of_each(server, run):
    errors = [{"name": "items.0", "detail": "not this"}, {"name": "items.1", "detail": "nor that"}]
    body = {"status": 422, "code": "unknown_model", "detail": "None.", "errors": errors}
    server.answers = [answer(body, 422), answer(body | {"errors": []}, 422)]
    done = run("batch", "submit", "https://a.example/1", "https://a.example/2")
    assert done.exit_code == 1
    assert done.stderr == "https://a.example/1: not this\nhttps://a.example/2: nor that\n"
    assert "0 inconclusive, 2 failed" in done.stdout
    assert "None. (unknown_model)" in run("batch", "submit", "https://a.example/1").output


def test_without_waiting_jobs_and_batch_are_printed(server, run):
    made = batch(item(0, "queued"), refused(1), ended=False)
    server.answers = [answer(made, 202), answer(made, 202)]
    done = run("batch", "submit", "--no-wait", "https://a.example/1", "https://a.example/2")
    assert (done.exit_code, done.stderr) == (1, "https://a.example/2: There is none.\n")
    assert done.stdout == "https://a.example/1: job job-0 queued\nbatch b-1: 1 submitted, 1 refused\n"
    done = run("batch", "submit", "--no-wait", "--json", "https://a.example/1", "https://a.example/2")
    assert json.loads(done.stdout) == made
    assert run("batch", "submit", "--no-wait", "--csv", "https://a.example/1").exit_code == 2


def test_without_waiting_standard_output_has_the_batch_alone(server, run, tmp_path):
    (tmp_path / "notes.txt").write_text("text")
    made = batch(item(0, "queued"), refused(1), ended=False)
    server.answers = [answer(made, 202)]
    given = ("batch", "submit", "--no-wait", "--json", tmp_path / "missing", tmp_path / "notes.txt")
    done = run(*given, "https://a.example/1", "https://a.example/2")
    assert (done.exit_code, json.loads(done.stdout)) == (1, made)
    missing, notes, second = done.stderr.splitlines()
    assert missing == f"{tmp_path}/missing: no such file"
    assert notes.startswith(f"{tmp_path}/notes.txt: ")
    assert second == "https://a.example/2: There is none."
    done = run(*given)
    assert (done.exit_code, done.stdout, done.stderr.splitlines()[:2]) == (1, "", [missing, notes])
    assert done.stderr.endswith("0 submitted, 2 failed\n")


def test_what_ended_before_a_failed_wait_is_printed_and_counts(server, run):
    made = batch(item(0, "queued"), item(1, verdict="fake"), refused(2), ended=False)
    failed = [problem(404, "not_found"), answer(job(verdict="fake"))]
    addresses = [f"https://a.example/{index}" for index in range(3)]
    server.answers = [answer(made, 202), *failed]
    done = run("batch", "submit", "--json", "--fail-on", "fake", *addresses)
    assert done.exit_code == 3, done.output
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["file"] for line in lines] == addresses
    assert [lines[0]["error"]["code"], lines[1]["job"]["verdict"], lines[2]["error"]["code"]] == [
        *("not_found", "fake", "unknown_model"),
    ]
    assert "1 fake, 0 inconclusive, 2 failed" in done.stderr
    server.answers = [answer(made), *failed]
    done = run("batch", "show", "--wait", "b-1")
    assert done.exit_code == 1, done.output
    assert done.stderr == "0.jpg: It is so.\nitem 2: There is none.\n"
    assert "job     " in done.stdout
    assert "3 files in " in done.stdout


def test_a_verdict_that_the_batch_names_counts_although_its_job_cannot_be_read(server, run, no_pauses):  # noqa: ARG001
    made = batch(item(0), item(1, verdict="fake"), item(2, "queued"), ended=False)
    server.answers = [answer(made), *[cut_off(200)] * 100]
    done = run("batch", "show", "--wait", "--csv", "--fail-on", "fake", "b-1")
    assert done.exit_code == 3, done.output
    rows = [line.split(",") for line in done.stdout.splitlines()[1:]]
    assert [row[0] for row in rows] == ["0.jpg", "1.jpg", "2.jpg"]
    assert {row[-2] for row in rows} == {"connection_failed"}
    asked = {request.path for request in server.requests}
    assert asked == {"/v1/batches/b-1?limit=100", "/v1/jobs/job-0"}, "the connection is lost for the others, too"


def test_ctrl_c_during_the_submission_says_that_it_may_have_been_carried_out(server, run):
    server.answers = [problem(503, "service_unavailable", **{"Retry-After": "60"})]

    def interrupt_when_submitted():
        deadline = time.monotonic() + 30
        while not server.requests and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    watching = threading.Thread(target=interrupt_when_submitted)
    watching.start()
    done = run("batch", "submit", "https://a.example/1")
    watching.join()
    assert (done.exit_code, done.stdout) == (130, "")
    assert done.stderr == "interrupted; it may have been submitted, see 'deepfakestream batches'\n"
    assert [request.path for request in server.requests] == ["/v1/batches"]


def test_more_sources_than_a_batch_can_have_are_a_usage_error(server, run):
    done = run("batch", "submit", *(f"https://a.example/{index}" for index in range(101)))
    assert done.exit_code == 2
    assert "'scan' takes any number" in done.output
    assert server.requests == []


def test_a_batch_is_shown_as_far_as_it_is_known(server, run):
    items = (item(0), item(1, "running", metadata={}), {**NOT_SET, "index": 2, "error": None})
    jobs = (answer(job(verdict="real")), answer(job("running")))
    server.answers = [answer(batch(*items, ended=False)), *jobs]
    done = run("batch", "show", "b-1", "--csv")
    assert done.exit_code == 1, "the third was erased"
    rows = [line.split(",") for line in done.stdout.splitlines()]
    assert [(row[0], row[2], row[3]) for row in rows[1:]] == [
        ("0.jpg", "succeeded", "real"),
        *(("item 1", "running", ""), ("item 2", "", "")),
    ]
    assert rows[3][-1] == "its job was erased"


def test_a_batch_that_is_waited_for_is_shown_at_its_end(server, run):
    server.answers = [
        *(answer(batch(item(0, "running"), ended=False)), answer(batch(item(0)))),
        *(answer(job(verdict="real")), answer(batch(item(0)))),
    ]
    done = run("batch", "show", "--wait", "--json", "b-1")
    assert (done.exit_code, json.loads(done.stdout)["file"]) == (0, "0.jpg"), done.output
    _, _, server.files["/v1/batches/b-1?limit=100"] = answer(batch(item(0, "running"), item(1), ended=False))
    _, _, server.files["/v1/jobs/job-1"] = answer(job(verdict="fake"))
    done = run("batch", "show", "--wait", "--timeout", "0.1", "--fail-on", "fake", "b-1")
    assert done.exit_code == 3
    assert "1 fake, 0 inconclusive, 1 failed" in done.stdout
    assert "did not end within 0.1 s; it goes on" in done.output
    assert run("batch", "show", "--timeout", "1", "b-1").exit_code == 2


def test_batches_are_cancelled_and_erased_by_commands(server, run):
    server.answers = [answer(batch(item(0, "cancelled"), item(1))), problem(404, "not_found"), (204, {}, b"")]
    done = run("batch", "cancel", "b-1", "b-2")
    assert (done.exit_code, done.stdout) == (1, "b-1 1 of 2 files cancelled\n")
    assert "b-2: It is so." in done.stderr
    assert run("batch", "delete", "--yes", "b-1").stdout == "b-1 erased\n"


LISTED = {
    "items": [
        summary("0198a000-0000-7000-8000-000000000002", item(0, "queued"), item(1), ended=False, verdicts={"fake": 1}),
        summary(
            "0198a000-0000-7000-8000-000000000001",
            *(item(0), item(1), refused(2)),
            verdicts={"not_applicable": 1, "doubtful": 1, "fake": 2},
        ),
    ],
    "next_cursor": None,
}


def test_a_list_of_batches_as_table_csv_and_json(server, run, monkeypatch):
    # As in a pipe, whatever the width that pytest gives its processes.
    monkeypatch.delenv("COLUMNS", raising=False)
    server.answers = [answer(LISTED)] * 3
    lines = run("batches", "--open", "--limit", "2").stdout.splitlines()
    assert server.requests[0].path == "/v1/batches?ended=false"
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if "0198a" in line]
    assert cells[0][0::2] == ["0198a000-0000-7000-8000-000000000002", "1/2", "1 fake"]
    assert cells[1][2:] == ["3/3", "4.0 s", "2 fake, 1 not applicable, 1 doubtful, 1 refused"]
    first, second = csv.DictReader(io.StringIO(run("batches", "--csv").stdout))
    assert (first["ended_at"], first["seconds"], first["queued"], first["fake"]) == ("", "", "1", "1")
    assert (second["batch_id"], second["seconds"]) == ("0198a000-0000-7000-8000-000000000001", "4.0")
    assert (second["total"], second["refused"], second["fake"], second["real"]) == ("3", "1", "2", "0")
    assert [json.loads(line) for line in run("batches", "--json").stdout.splitlines()] == LISTED["items"]
    assert run("batches", "--json", "--csv").exit_code == 2
    assert run("batches", "--limit", "0").exit_code == 2


@pytest.mark.parametrize(("columns", "headings"), [("80", ["id", "created", "done"]), ("60", ["id", "done"])])
def test_a_list_of_batches_fits_a_terminal(server, command, columns, headings):
    server.answers = [answer(LISTED)]
    lines = command("--url", server.url, "--api-key", "dfs_key", "batches", COLUMNS=columns).stdout.splitlines()
    assert max(map(len, lines)) <= int(columns)
    assert [word for word in lines[0].split() if not word.startswith("(")] == headings
    assert lines[1].split()[0 :: 1 if len(headings) == 2 else 3] == ["0198a000-0000-7000-8000-000000000002", "1/2"]


def test_where_there_are_no_batches_the_list_says_so(server, run):
    server.answers = [answer({"items": [], "next_cursor": None})] * 2
    empty = run("batches")
    assert (empty.exit_code, empty.stdout, empty.stderr) == (0, "", "there are no batches\n")
    assert run("batches", "--ended").stderr == "there are no such batches\n"


def test_usage_as_table_csv_and_json(server, run, monkeypatch):
    # As in a pipe, whatever the width that pytest gives its processes.
    monkeypatch.delenv("COLUMNS", raising=False)
    server.answers = [answer(usage_document())] * 4
    wide = run("usage", "--from", "2026-01-01", "--to", "2026-01-30").stdout.splitlines()
    assert wide[0].split() == ["day", "key", "id", "key", "jobs", "media", "seconds", "faces", "MB"]
    assert wide[1].split() == [
        *("2026-01-02", "01a20d78-a9e9-755a-a1ee-3373ca532026", "=desk"),
        *("3", "2", "20.5", "40", "2.5"),
    ]
    assert wide[2].split() == ["total", "3", "2", "20.5", "40", "2.5"]
    assert server.requests[0].path == "/v1/usage?from=2026-01-01&to=2026-01-30"
    lines = run("usage", "--csv").stdout.splitlines()
    assert lines[1] == "2026-01-02,01a20d78-a9e9-755a-a1ee-3373ca532026,'=desk,3,2,20.5,40,2500000"
    assert json.loads(run("usage", "--json").stdout) == usage_document()
    assert run("usage", "--json", "--csv").exit_code == 2
    assert run("usage", "--from", "yesterday").exit_code == 2


def test_usage_fits_a_terminal_and_says_where_there_is_none(server, command):
    server.answers = [answer(usage_document()), answer(usage_document(items=[]))]
    given = ("--url", server.url, "--api-key", "dfs_key", "usage")
    narrow = command(*given, COLUMNS="60").stdout.splitlines()
    assert max(map(len, narrow)) <= 60
    assert narrow[1].split()[:2] == ["2026-01-02", "=desk"]
    empty = command(*given)
    assert (empty.stdout, empty.stderr) == ("", "nothing was analysed from 2026-01-01 to 2026-01-30\n")
