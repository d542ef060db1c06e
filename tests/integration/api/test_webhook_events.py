"""The events that a receiver gets: named in every form of a request, checked, shown, and kept to."""

import io
import uuid

import pytest
from sqlalchemy import select, text

from shared.jobs.deliveries import list_deliveries, schedule_alert
from shared.jobs.ending import delete_job, end_job
from shared.jobs.queries import lock_job
from shared.models import APIKey, Delivery, DirectUpload, Job
from shared.states import JobStatus
from tests.clips import noise_picture
from tests.integration.api.conftest import api_maker
from tests.integration.api.finished import succeed

RECEIVER = "https://receiver.example/hook"
URL = {"url": "https://a.example/1.mp4"}
STREAM = {"url": "rtsp://cameras.example/1"}
UNKNOWN = "name job.succeeded, job.failed, job.cancelled"


@pytest.fixture(scope="module")
def api(postgres_url, template_url, tmp_path_factory):
    with api_maker(postgres_url, template_url, tmp_path_factory.mktemp("storage")) as make:
        yield make(submissions_per_minute=10_000, max_open_jobs_per_owner=1000)


@pytest.fixture
def headers(api):
    return api.key(f"owner-{uuid.uuid4().hex[:8]}")[0]


def picture():
    return (io.BytesIO(noise_picture()), "a.jpg")


def submit_form(api, headers, **fields):
    data = {**fields, "file": picture()}
    return api.call("POST", "/v1/jobs", headers, data=data, content_type="multipart/form-data")


def submit_raw(api, headers, **fields):
    return api.submit(headers, query_string=fields)


def submit_url(api, headers, **fields):
    if isinstance(fields.get("webhook_events"), str):
        fields["webhook_events"] = fields["webhook_events"].split(",")
    return api.call("POST", "/v1/jobs", headers, json={**URL, **fields})


def owner_of(session):
    """Return the owner of the key that was made last."""
    return session.scalars(select(APIKey.owner).order_by(APIKey.id.desc()).limit(1)).one()


def submit_upload(api, headers, **fields):
    content = noise_picture()
    with api.sessions.transaction() as session:
        row = DirectUpload(
            owner=owner_of(session), size_bytes=len(content), expires_at=text("now() + interval '1 hour'")
        )
        session.add(row)
        session.flush()
        upload_id = str(row.id)
    upload = api.app.extensions["deepfakestream"].storage.create(f"incoming/{upload_id}")
    upload.write(content)
    upload.commit()
    fields["webhook_events"] = fields["webhook_events"].split(",")
    return api.call("POST", "/v1/jobs", headers, json={"upload_id": upload_id, **fields})


def rescore(api, headers, **fields):
    parent = api.submit(headers).json["id"]
    fields["webhook_events"] = fields["webhook_events"].split(",")
    return api.call("POST", f"/v1/jobs/{parent}/rescore", headers, json=fields)


def events_of(api, job_id):
    with api.sessions.transaction() as session:
        return [delivery.event for delivery in list_deliveries(session, uuid.UUID(str(job_id)))]


def end(api, job_id, status):
    if status == JobStatus.SUCCEEDED:
        succeed(api, uuid.UUID(job_id), [0.1])
        return
    with api.sessions.transaction() as session:
        end_job(session, lock_job(session, uuid.UUID(job_id)), status)


@pytest.mark.parametrize("submit", [submit_form, submit_raw, submit_url, submit_upload, rescore])
def test_a_job_sends_the_events_that_its_submission_names(api, headers, submit):
    answer = submit(api, headers, webhook_url=RECEIVER, webhook_events="job.cancelled,job.failed,job.failed")
    assert answer.status_code == 202, answer.text
    assert answer.json["options"]["webhook_events"] == ["job.failed", "job.cancelled"]
    read = api.call("GET", f"/v1/jobs/{answer.json['id']}", headers).json
    assert read["options"]["webhook_events"] == ["job.failed", "job.cancelled"]
    end(api, answer.json["id"], JobStatus.CANCELLED)
    assert events_of(api, answer.json["id"]) == ["job.cancelled"]


@pytest.mark.parametrize(
    ("chosen", "status", "sent"),
    [
        (None, JobStatus.SUCCEEDED, ["job.succeeded"]),
        (None, JobStatus.FAILED, ["job.failed"]),
        (["job.failed"], JobStatus.FAILED, ["job.failed"]),
        (["job.failed"], JobStatus.SUCCEEDED, []),
        (["job.succeeded", "job.failed"], JobStatus.CANCELLED, []),
    ],
)
def test_an_end_that_was_not_chosen_is_not_sent(api, headers, chosen, status, sent):
    options = {} if chosen is None else {"webhook_events": chosen}
    job = submit_url(api, headers, webhook_url=RECEIVER, **options).json
    assert job["options"]["webhook_events"] == chosen
    end(api, job["id"], status)
    assert events_of(api, job["id"]) == sent


def test_options_of_the_query_and_of_the_body_are_taken_together(api, headers):
    given = {"webhook_events": ["job.failed"]}
    answer = api.call("POST", "/v1/jobs", headers, json={**URL, **given}, query_string={"webhook_url": RECEIVER})
    assert (answer.status_code, answer.json["options"]["webhook_events"]) == (202, ["job.failed"])
    data = {"webhook_url": RECEIVER, "file": picture()}
    query = {"webhook_events": "job.failed"}
    kind = "multipart/form-data"
    answer = api.call("POST", "/v1/jobs", headers, data=data, content_type=kind, query_string=query)
    assert (answer.status_code, answer.json["options"]["webhook_events"]) == (202, ["job.failed"])


@pytest.mark.parametrize("submit", [submit_form, submit_raw, submit_url])
def test_events_without_an_address_are_refused(api, headers, submit):
    stored = len(api.files())
    answer = submit(api, headers, webhook_events="job.failed")
    assert (answer.status_code, answer.json["code"]) == (422, "invalid_request")
    assert "webhook_events is given without webhook_url; give the address that gets them" in answer.json["detail"]
    assert len(api.files()) == stored


@pytest.mark.parametrize(
    ("given", "detail"),
    [
        ("job.done", f"'job.done' is no event that is sent here; {UNKNOWN}"),
        ("job.failed,", f"'' is no event that is sent here; {UNKNOWN}"),
        ("stream.ended", f"'stream.ended' is no event that is sent here; {UNKNOWN}"),
        ("", f"'' is no event that is sent here; {UNKNOWN}"),
        (["job.done"], f"'job.done' is no event that is sent here; {UNKNOWN}"),
        (["x" * 5000], f"'{'x' * 64}' is no event that is sent here; {UNKNOWN}"),
        ([], "no event is named; name some of job.succeeded, job.failed, job.cancelled, or leave it out for all"),
        ({"job.failed": True}, "Input should be a valid list"),
    ],
)
def test_what_is_no_list_of_events_is_refused_with_what_to_send(api, headers, given, detail):
    if isinstance(given, str):
        answers = [
            submit(api, headers, webhook_url=RECEIVER, webhook_events=given) for submit in (submit_form, submit_raw)
        ]
    else:
        answers = [submit_url(api, headers, webhook_url=RECEIVER, webhook_events=given)]
    for answer in answers:
        assert (answer.status_code, answer.json["code"]) == (422, "invalid_request")
        assert answer.json["detail"] == f"webhook_events: {detail}"
        assert answer.json["errors"] == [{"name": "webhook_events", "detail": detail}]


def test_text_is_no_list_in_a_json_object(api, headers):
    answer = api.call(
        "POST", "/v1/jobs", headers, json={**URL, "webhook_url": RECEIVER, "webhook_events": "job.failed"}
    )
    assert (answer.status_code, answer.json["code"]) == (422, "invalid_request")


def test_another_choice_under_the_same_key_is_another_request(api, headers):
    once = {**headers, "Idempotency-Key": "once"}
    first = submit_url(api, once, webhook_url=RECEIVER, webhook_events="job.failed,job.cancelled")
    again = submit_url(api, once, webhook_url=RECEIVER, webhook_events="job.cancelled,job.failed")
    assert again.json["id"] == first.json["id"]
    for other in ({"webhook_events": "job.failed"}, {}):
        assert submit_url(api, once, webhook_url=RECEIVER, **other).json["code"] == "idempotency_conflict"


def test_a_job_scored_again_has_a_choice_of_its_own(api, headers):
    parent = submit_raw(api, headers, webhook_url=RECEIVER, webhook_events="job.failed").json["id"]
    child = api.call("POST", f"/v1/jobs/{parent}/rescore", headers, json={"webhook_url": RECEIVER}).json
    assert child["options"]["webhook_events"] is None
    answer = api.call("POST", f"/v1/jobs/{parent}/rescore", headers, json={"webhook_events": ["job.failed"]})
    assert answer.json["errors"][0]["name"] == "webhook_events"


@pytest.mark.parametrize(
    ("chosen", "sent"),
    [
        (None, ["stream.alert", "stream.ended"]),
        (["stream.ended"], ["stream.ended"]),
        (["stream.alert"], ["stream.alert"]),
    ],
)
def test_a_stream_sends_the_events_that_its_request_names(api, headers, chosen, sent):
    options = {} if chosen is None else {"webhook_events": chosen}
    made = api.call("POST", "/v1/streams", headers, json={**STREAM, "webhook_url": RECEIVER, **options})
    assert made.status_code == 202, made.text
    assert made.json["options"]["webhook_events"] == chosen
    with api.sessions.transaction() as session:
        job = lock_job(session, uuid.UUID(made.json["id"]))
        schedule_alert(session, job, 1, {"created_at": "2026-01-01T00:00:00Z"})
        end_job(session, job, JobStatus.CANCELLED)
    assert events_of(api, made.json["id"]) == sent


def test_a_stream_does_not_take_the_events_of_a_job(api, headers):
    made = {**STREAM, "webhook_url": RECEIVER, "webhook_events": ["job.failed"]}
    answer = api.call("POST", "/v1/streams", headers, json=made)
    assert answer.json["detail"] == (
        "webhook_events: 'job.failed' is no event that is sent here; name stream.alert, stream.ended"
    )
    answer = api.call("POST", "/v1/streams", headers, json={**STREAM, "webhook_events": ["stream.alert"]})
    assert answer.json["errors"][0]["name"] == "webhook_events"


def test_a_batch_and_its_items_have_choices_of_their_own(api, headers):
    item = {**URL, "webhook_url": RECEIVER, "webhook_events": ["job.failed"]}
    items = [item, {**URL, "webhook_events": ["job.failed"]}, {**item, "webhook_events": ["batch.ended"]}]
    given = {"items": items, "webhook_url": RECEIVER, "webhook_events": ["batch.ended"]}
    once = {**headers, "Idempotency-Key": "once"}
    batch = api.call("POST", "/v1/batches", once, json=given).json
    assert batch["webhook_events"] == ["batch.ended"]
    assert [one["error"] and one["error"]["code"] for one in batch["items"]] == [
        *(None, "invalid_request", "invalid_request"),
    ]
    assert api.call("POST", "/v1/batches", once, json=given).json["id"] == batch["id"]
    other = {**given, "webhook_events": None}
    del other["webhook_events"]
    assert api.call("POST", "/v1/batches", once, json=other).json["code"] == "idempotency_conflict"
    end(api, batch["items"][0]["job_id"], JobStatus.CANCELLED)
    assert events_of(api, batch["items"][0]["job_id"]) == ["batch.ended"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"webhook_url": RECEIVER, "webhook_events": ["job.failed"]}, "name batch.ended"),
        ({"webhook_url": RECEIVER, "webhook_events": []}, "name some of batch.ended"),
        ({"webhook_events": ["batch.ended"]}, "without webhook_url"),
    ],
)
def test_a_batch_is_refused_with_what_to_send(api, headers, given, said):
    answer = api.call("POST", "/v1/batches", headers, json={"items": [URL], **given})
    assert (answer.status_code, answer.json["code"]) == (422, "invalid_request")
    assert said in answer.json["detail"]


def test_nothing_of_the_choice_is_left_of_an_erased_job(api, headers):
    job_id = uuid.UUID(submit_url(api, headers, webhook_url=RECEIVER, webhook_events="job.failed").json["id"])
    with api.sessions.transaction() as session:
        delete_job(session, lock_job(session, job_id))
    with api.sessions.transaction() as session:
        assert session.scalars(select(Job.id).where(Job.id == job_id, Job.webhook_events.is_(None))).all() == [job_id]
        assert session.scalars(select(Delivery).where(Delivery.job_id == job_id)).all() == []
