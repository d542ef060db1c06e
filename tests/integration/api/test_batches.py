"""Batches: many jobs of one request, that end, are cancelled and are erased together."""

import csv
import json
import threading
import uuid
from contextlib import contextmanager

import pytest
from sqlalchemy import select, text, update

from shared.jobs.batches import drop_erased_batches, settle_batches
from shared.jobs.ending import delete_job, end_job
from shared.jobs.queries import lock_job
from shared.models import AuditEvent, Batch, BatchItem, Delivery, DirectUpload, Job
from shared.states import JobStatus
from tests.clips import noise_picture
from tests.integration.api.finished import succeed

URLS = [{"url": f"https://a.example/{number}.mp4"} for number in range(3)]
RECEIVER = "https://receiver.example/"


def submit(api, auth, items=URLS, **given):
    """Submit a batch and return the answer."""
    extra = given.pop("headers", {})
    return api.call("POST", "/v1/batches", {**auth, **extra}, json={"items": items, **given})


def get(api, auth, batch, **query):
    return api.call("GET", f"/v1/batches/{batch['id']}", auth, query_string=query)


def job_ids(batch):
    return [uuid.UUID(item["job_id"]) for item in batch["items"] if item["job_id"]]


def end(api, job_id, status=JobStatus.CANCELLED):
    """End a job as a worker does."""
    with api.sessions.transaction() as session:
        end_job(session, lock_job(session, job_id), status)


def deliveries(api):
    with api.sessions.transaction() as session:
        rows = session.scalars(select(Delivery).where(Delivery.event == "batch.ended")).all()
        return [(row.job_id, row.event_id, row.url, row.payload) for row in rows]


def test_a_batch_makes_a_job_of_each_item(api, headers):
    items = [*URLS[:2], {**URLS[2], "metadata": {"case": 3}, "sample_fps": 4.0}]
    answer = submit(api, headers, items, sample_fps=1.5, segment_seconds=3.0, metadata={"desk": "a"})
    assert answer.status_code == 202, answer.text
    batch = answer.json
    assert answer.headers["Location"] == f"/v1/batches/{batch['id']}"
    assert (batch["poll_after_s"], batch["ended_at"], batch["metadata"]) == (2.0, None, {"desk": "a"})
    assert batch["counts"] == {
        "total": 3,
        "queued": 3,
        "running": 0,
        "succeeded": 0,
        "failed": 0,
        "cancelled": 0,
        "refused": 0,
        "erased": 0,
    }
    assert [(item["index"], item["status"], item["error"]) for item in batch["items"]] == [
        (index, "queued", None) for index in range(3)
    ]
    jobs = [api.call("GET", f"/v1/jobs/{job_id}", headers).json for job_id in job_ids(batch)]
    assert [job["options"]["sample_fps"] for job in jobs] == [1.5, 1.5, 4.0]
    assert [job["options"]["segment_seconds"] for job in jobs] == [3.0] * 3
    assert [job["metadata"] for job in jobs] == [{}, {}, {"case": 3}]
    assert get(api, headers, batch).json == {name: batch[name] for name in batch if name != "poll_after_s"}


def test_a_refused_item_does_not_lose_the_others(api, headers):
    bad = [
        {"url": "ftp://a.example/x"},
        {"url": "https://a.example/x", "colour": "red"},
        {"url": "https://a.example/x", "sample_fps": "2"},
        {"url": "https://a.example/x", "model": "gpt"},
        {"url": "https://a.example/x", "metadata": {"a": "\0"}},
        {"upload_id": str(uuid.uuid4())},
        {"upload_id": "x"},
        {},
        "https://a.example/x",
        {"url": "https://a.example/x", "webhook_url": "ftp://a/"},
    ]
    batch = submit(api, headers, [URLS[0], *bad, URLS[1]]).json
    assert (batch["counts"]["queued"], batch["counts"]["refused"], batch["counts"]["total"]) == (2, 10, 12)
    assert [item["error"] and item["error"]["code"] for item in batch["items"]] == [
        *(None, "forbidden_url", "unknown_option", "invalid_request", "unknown_model", "invalid_request"),
        *("not_found", "invalid_request", "invalid_request", "invalid_request", "forbidden_url", None),
    ]
    assert "send {" in batch["items"][9]["error"]["detail"]


def test_a_batch_without_an_acceptable_item_is_refused(api, headers):
    answer = submit(api, headers, [{"url": "ftp://a.example/x"}, {}])
    assert (answer.status_code, answer.json["code"]) == (422, "forbidden_url")
    assert answer.json["detail"].startswith("no item was accepted; the error of the first is: ")
    assert [error["name"] for error in answer.json["errors"]] == ["items.0", "items.1"]
    with api.sessions.transaction() as session:
        assert session.scalars(select(Batch)).all() == session.scalars(select(Job)).all() == []


@pytest.mark.parametrize(
    ("body", "code", "status"),
    [
        ({}, "invalid_request", 422),
        ({"items": []}, "invalid_request", 422),
        ({"items": URLS * 34}, "invalid_request", 422),
        ({"items": URLS, "colour": 1}, "unknown_option", 422),
        ({"items": URLS, "webhook_url": "ftp://a/"}, "forbidden_url", 422),
        ({"items": URLS, "metadata": {"a": "x" * 5000}}, "metadata_too_large", 422),
        ({"items": [{"url": "x" * 2_000_000}]}, "too_large", 413),
    ],
    ids=["nothing", "no items", "102 items", "option", "webhook", "metadata", "large"],
)
def test_a_bad_batch_is_refused(api, headers, body, code, status):
    answer = api.call("POST", "/v1/batches", headers, json=body)
    assert (answer.status_code, answer.json["code"]) == (status, code)


def test_a_repeated_batch_is_the_same_batch(api, headers):
    once = {"Idempotency-Key": "once"}
    first = submit(api, headers, headers=once)
    again = submit(api, headers, headers=once)
    assert (again.status_code, again.headers["Idempotent-Replayed"], again.json) == (202, "true", first.json)
    other = submit(api, headers, URLS[:2], headers=once)
    assert (other.status_code, other.json["code"]) == (409, "idempotency_conflict")
    assert submit(api, api.key("another")[0], headers=once).json["id"] != first.json["id"]
    with api.sessions.transaction() as session:
        assert len(session.scalars(select(Job.id).where(Job.owner == "owner")).all()) == 3


def test_two_equal_batches_at_once_make_one(make_api):
    api = make_api(submissions_per_minute=10_000)
    auth, _ = api.key()
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(submit(api, auth, headers={"Idempotency-Key": "once"})))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json["id"] for answer in answers}) == 1
    assert sum("Idempotent-Replayed" not in answer.headers for answer in answers) == 1


def test_every_job_of_a_batch_counts_towards_the_limit_of_open_jobs(make_api):
    api = make_api(max_open_jobs_per_owner=2)
    auth, _ = api.key()
    batch = submit(api, auth, [{}, *URLS]).json
    assert [item["error"] and item["error"]["code"] for item in batch["items"]] == [
        *("invalid_request", None, None, "too_many_open_jobs"),
    ]
    full = submit(api, auth)
    assert (full.status_code, full.json["code"]) == (429, "too_many_open_jobs")
    assert int(full.headers["Retry-After"]) > 0
    api.call("POST", f"/v1/batches/{batch['id']}/cancel", auth)
    assert submit(api, auth, URLS[:1]).status_code == 202


def test_batches_count_as_full_ones_towards_the_rate_of_submissions(make_api):
    api = make_api(submissions_per_minute=299)
    auth, _ = api.key()
    assert [submit(api, auth, URLS[:1]).status_code for _ in range(3)] == [202, 202, 429]


@contextmanager
def uploaded(api, size_bytes=5):
    """Add a direct upload of *owner*."""
    with api.sessions.transaction() as session:
        upload = DirectUpload(owner="owner", size_bytes=size_bytes, expires_at=text("now() + interval '1 hour'"))
        session.add(upload)
        session.flush()
        upload_id = upload.id
    yield upload_id


def test_an_upload_makes_one_job_of_a_batch(api, headers):
    content = noise_picture()
    with uploaded(api, len(content)) as upload_id:
        storage = api.app.extensions["deepfakestream"].storage
        upload = storage.create(f"incoming/{upload_id}")
        upload.write(content)
        upload.commit()
        batch = submit(api, headers, [{"upload_id": str(upload_id)}] * 2).json
    assert [item["status"] for item in batch["items"]] == ["queued", None]
    assert batch["items"][1]["error"]["code"] == "not_found"
    with api.sessions.transaction() as session:
        assert session.get(Job, job_ids(batch)[0]).source_key == f"incoming/{upload_id}"


def test_an_upload_that_has_not_arrived_is_refused(api, headers):
    with uploaded(api) as upload_id:
        batch = submit(api, headers, [URLS[0], {"upload_id": str(upload_id)}]).json
    assert batch["items"][1]["error"]["code"] == "upload_incomplete"


def test_the_items_of_a_batch_are_read_page_by_page(api, headers):
    batch = submit(api, headers, [*URLS, {}]).json
    first = get(api, headers, batch, limit=3).json
    assert [item["index"] for item in first["items"]] == [0, 1, 2]
    last = get(api, headers, batch, limit=3, cursor=first["next_cursor"]).json
    assert ([item["index"] for item in last["items"]], last["next_cursor"]) == ([3], None)
    assert get(api, headers, batch, cursor="x").json["code"] == "invalid_cursor"


def listed(api, auth, **query):
    return api.call("GET", "/v1/batches", auth, query_string=query).json


def test_batches_are_listed_in_pages_newest_first_and_only_for_their_owner(api, headers):
    made = [submit(api, headers, [*URLS, {}], metadata={"number": number}).json for number in range(3)]
    succeed(api, job_ids(made[0])[0], [0.9], fake_score=0.9, verdict="fake")
    assert api.call("DELETE", f"/v1/jobs/{job_ids(made[1])[1]}", headers).status_code == 204
    other = submit(api, api.key("another")[0]).json
    first = listed(api, headers, limit=2)
    last = listed(api, headers, limit=2, cursor=first["next_cursor"])
    assert last["next_cursor"] is None
    # Each as by itself, but without items: the counts of one batch are not those of another.
    alone = [get(api, headers, batch).json for batch in reversed(made)]
    for document in alone:
        del document["items"], document["next_cursor"]
    assert first["items"] + last["items"] == alone
    counts = [(found["counts"]["queued"], found["counts"]["erased"], found["verdicts"]) for found in alone]
    assert counts == [(3, 0, {}), (2, 1, {}), (2, 0, {"fake": 1})]
    assert [found["id"] for found in listed(api, api.key("another")[0])["items"]] == [other["id"]]
    assert listed(api, api.key("a third")[0]) == {"items": [], "next_cursor": None}


def test_batches_are_listed_by_whether_and_when(api, headers):
    ended, still_open = (submit(api, headers).json for _ in range(2))
    assert api.call("POST", f"/v1/batches/{ended['id']}/cancel", headers).status_code == 200

    def ids(**query):
        return [found["id"] for found in listed(api, headers, **query)["items"]]

    assert ids(ended="true") == [ended["id"]]
    assert ids(ended="false") == [still_open["id"]]
    assert ids(created_after=ended["created_at"]) == [still_open["id"]]
    assert ids(created_before=still_open["created_at"]) == [ended["id"]]
    assert ids(created_before=ended["created_at"]) == []


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"ended": "later"}, "invalid_request"),
        ({"created_after": "2026-01-02T03:04:05"}, "invalid_request"),
        ({"limit": 0}, "invalid_request"),
        ({"cursor": "x"}, "invalid_cursor"),
        ({"status": "queued"}, "unknown_option"),
    ],
    ids=["ended", "time without zone", "limit", "cursor", "unknown"],
)
def test_a_bad_query_for_batches_is_refused(api, headers, query, code):
    answer = api.call("GET", "/v1/batches", headers, query_string=query)
    assert (answer.status_code, answer.json["code"]) == (422, code)


def test_a_batch_ends_with_its_last_job_and_calls_its_receiver_once(api, headers):
    batch = submit(api, headers, [*URLS, {}], webhook_url=RECEIVER, metadata={"desk": "a"}).json
    first, second, third = job_ids(batch)
    succeed(api, first, [0.9], fake_score=0.9, verdict="fake")
    end(api, third, JobStatus.FAILED)
    assert deliveries(api) == []
    assert get(api, headers, batch).json["ended_at"] is None
    succeed(api, second, [0.1], fake_score=0.1, verdict="real")
    now = get(api, headers, batch).json
    assert now["ended_at"] is not None
    assert (now["counts"]["succeeded"], now["counts"]["failed"], now["counts"]["refused"]) == (2, 1, 1)
    assert now["verdicts"] == {"fake": 1, "real": 1}
    [(carrier, event_id, url, data)] = deliveries(api)
    assert (carrier, event_id, url) == (second, f"msg_{uuid.UUID(batch['id']).hex}", RECEIVER)
    assert data == {name: now[name] for name in now if name not in ("items", "next_cursor")}
    log = api.call("GET", f"/v1/jobs/{second}/deliveries", headers).json["items"]
    assert [entry["event"] for entry in log] == ["batch.ended"]


def test_two_jobs_that_end_at_once_end_their_batch_once(api, headers):
    batch = submit(api, headers, URLS[:2], webhook_url=RECEIVER).json
    barrier = threading.Barrier(2)

    def finish(job_id):
        with api.sessions.transaction() as session:
            job = lock_job(session, job_id)
            barrier.wait(20)
            end_job(session, job, JobStatus.FAILED)

    threads = [threading.Thread(target=finish, args=(job_id,)) for job_id in job_ids(batch)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert get(api, headers, batch).json["ended_at"] is not None
    assert len(deliveries(api)) == 1


def test_a_batch_is_cancelled_as_a_whole(api, headers):
    batch = submit(api, headers, webhook_url=RECEIVER).json
    succeed(api, job_ids(batch)[0], [0.1])
    answers = [api.call("POST", f"/v1/batches/{batch['id']}/cancel", headers) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json == answers[1].json
    assert (answers[0].json["counts"]["cancelled"], answers[0].json["counts"]["succeeded"]) == (2, 1)
    assert answers[0].json["ended_at"] is not None
    assert len(deliveries(api)) == 1
    with api.sessions.transaction() as session:
        actions = session.scalars(select(AuditEvent.action).where(AuditEvent.action.like("%.cancelled"))).all()
        assert sorted(actions) == ["batch.cancelled", "job.cancelled", "job.cancelled"]


def test_a_batch_is_erased_with_its_jobs(api, headers):
    batch = submit(api, headers, webhook_url=RECEIVER, metadata={"name": "secret"}).json
    succeed(api, job_ids(batch)[0], [0.1])
    path = f"/v1/batches/{batch['id']}"
    assert api.call("DELETE", path, headers).status_code == 204
    assert api.call("GET", path, headers).status_code == api.call("DELETE", path, headers).status_code == 404
    for job_id in job_ids(batch):
        assert api.call("GET", f"/v1/jobs/{job_id}", headers).status_code == 404
    with api.sessions.transaction() as session:
        assert session.scalars(select(Batch)).all() == session.scalars(select(BatchItem)).all() == []
        assert session.scalars(select(Delivery)).all() == []


def test_the_erasure_of_jobs_one_by_one_ends_and_then_erases_their_batch(api, headers):
    batch = submit(api, headers, webhook_url=RECEIVER).json
    first, second, third = job_ids(batch)
    end(api, first)
    end(api, second)
    # The last open job ends by being erased: another one of the batch has the webhook in its log.
    assert api.call("DELETE", f"/v1/jobs/{third}", headers).status_code == 204
    now = get(api, headers, batch).json
    assert (now["counts"]["erased"], now["counts"]["cancelled"]) == (1, 2)
    assert (now["items"][2]["job_id"], now["items"][2]["status"]) == (None, None)
    assert [carrier for carrier, *_ in deliveries(api)] == [first]
    # The webhook is still to be sent when that one is erased.
    api.call("DELETE", f"/v1/jobs/{first}", headers)
    assert [carrier for carrier, *_ in deliveries(api)] == [second]
    api.call("DELETE", f"/v1/jobs/{second}", headers)
    assert deliveries(api) == []
    assert get(api, headers, batch).status_code == 404


def test_batches_whose_jobs_the_release_before_ended_or_erased_are_settled(api, headers):
    batch, other = (submit(api, headers, webhook_url=RECEIVER).json for _ in range(2))
    with api.sessions.transaction() as session:
        ended = update(Job).where(Job.id.in_(job_ids(batch))).values(status="cancelled", finished_at=text("now()"))
        session.execute(ended)
        assert settle_batches(session, 10) == 1
        assert settle_batches(session, 10) == 0
    assert get(api, headers, batch).json["ended_at"] is not None
    assert len(deliveries(api)) == 1
    with api.sessions.transaction() as session:
        erased = update(Job).where(Job.id.in_(job_ids(other)))
        session.execute(erased.values(status="cancelled", finished_at=text("now()"), deleted_at=text("now()")))
        assert drop_erased_batches(session, 10) == 1
    assert get(api, headers, other).status_code == 404
    assert get(api, headers, batch).status_code == 200


def test_results_are_a_table_in_which_nothing_is_a_formula(api, headers):
    hostile = '=HYPERLINK("https://evil.example")'
    batch = submit(
        api, headers, [{**URLS[0], "metadata": {"a": 'b,\n"c"'}}, {"url": "https://a.example/", hostile: 1}]
    ).json
    [job_id] = job_ids(batch)
    succeed(api, job_id, [0.875], fake_score=0.875, verdict="fake")
    with api.sessions.transaction() as session:
        item = session.get(BatchItem, (uuid.UUID(batch["id"]), 1))
        item.error_detail = hostile
    answer = api.call("GET", f"/v1/batches/{batch['id']}/results.csv", headers)
    assert answer.mimetype == "text/csv"
    assert answer.headers["Content-Disposition"] == f'attachment; filename="batch-{batch["id"]}.csv"'
    first, second = csv.DictReader(answer.text.splitlines(keepends=True))
    assert (first["index"], first["job_id"], first["verdict"], first["fake_score"]) == (
        "0",
        str(job_id),
        "fake",
        "0.875",
    )
    assert json.loads(first["metadata"]) == {"a": 'b,\n"c"'}
    assert (second["error_code"], second["job_id"]) == ("unknown_option", "")
    assert second["error_detail"] == f"'{hostile}"


def test_a_batch_of_another_owner_does_not_exist(api, headers):
    batch = submit(api, headers).json
    other, _ = api.key("another")
    for method, path in (("GET", ""), ("GET", "/results.csv"), ("POST", "/cancel"), ("DELETE", "")):
        assert api.call(method, f"/v1/batches/{batch['id']}{path}", other).status_code == 404
    assert get(api, headers, batch).json["counts"]["queued"] == 3


def test_a_job_that_is_erased_in_one_transaction_with_others_keeps_the_batch_consistent(api, headers):
    batch = submit(api, headers, URLS[:2]).json
    with api.sessions.transaction() as session:
        for job_id in sorted(job_ids(batch)):
            delete_job(session, lock_job(session, job_id))
    assert get(api, headers, batch).status_code == 404
