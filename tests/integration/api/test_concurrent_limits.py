"""Limits of an owner that hold for requests at the same time: the second comes right before the first is committed."""

import threading
import uuid

import pytest
from sqlalchemy import event, update

from api.admission import lock_owner
from shared.config import StorageSettings
from shared.models import Job
from tests.clips import noise_picture
from tests.integration.api.conftest import api_maker
from tests.integration.rows import before_commits, recorded_statements, wait_until_blocked

URL = "https://media.example/clip.mp4"
STREAM = {"url": "https://media.example/live.m3u8"}


def answers_of(api, first, second, *, of="insert into jobs"):
    """Send the request *second* right before *first* is committed; return the answers to both."""
    answers = []
    other = threading.Thread(target=lambda: answers.append(second()))

    def send():
        other.start()
        wait_until_blocked(api.sessions, lambda: not other.is_alive())

    with before_commits(api.app.extensions["deepfakestream"].sessions.engine, send, of=of):
        answer = first()
    other.join(30)
    return [answer, *answers]


def outcomes(answers):
    return [(answer.status_code, (answer.json or {}).get("code")) for answer in answers]


@pytest.fixture(scope="module")
def make_api(postgres_url, template_url, tmp_path_factory):
    with api_maker(postgres_url, template_url, tmp_path_factory.mktemp("storage")) as make:
        yield make


@pytest.fixture(scope="module")
def api(make_api):
    return make_api(max_open_jobs_per_owner=1, submissions_per_minute=1000)


@pytest.fixture
def auth(api):
    """Headers with a key of an owner of the test's own."""
    return api.key(uuid.uuid4().hex)[0]


def post(api, path, headers, document):
    return api.call("POST", path, headers, json=document)


@pytest.mark.parametrize("kind", ["file", "url", "batch", "rescoring", "stream"])
def test_two_submissions_at_once_do_not_exceed_the_open_jobs_of_an_owner(api, auth, kind):
    parent = api.submit(auth).json["id"]
    assert api.call("POST", f"/v1/jobs/{parent}/cancel", auth).status_code == 200
    second = {
        "file": lambda: api.submit(auth, noise_picture(1)),
        "url": lambda: post(api, "/v1/jobs", auth, {"url": URL}),
        "batch": lambda: post(api, "/v1/batches", auth, {"items": [{"url": URL}]}),
        "rescoring": lambda: post(api, f"/v1/jobs/{parent}/rescore", auth, {}),
        "stream": lambda: post(api, "/v1/streams", auth, STREAM),
    }[kind]
    found = answers_of(api, lambda: api.submit(auth, noise_picture(2)), second)
    assert outcomes(found) == [(202, None), (429, "too_many_open_jobs")]
    assert found[1].headers["Retry-After"] == "15"


def test_another_owner_does_not_wait(api, auth):
    other, _ = api.key(uuid.uuid4().hex)
    sent = []

    def second():
        sent.append(post(api, "/v1/jobs", other, {"url": URL}))
        assert api.call("GET", "/v1/jobs", auth).json["items"] == []
        return sent[0]

    found = answers_of(api, lambda: post(api, "/v1/jobs", auth, {"url": URL}), second)
    assert outcomes(found) == [(202, None), (202, None)]


def test_a_repetition_at_the_same_time_is_answered_at_the_limit(api, auth):
    once = {**auth, "Idempotency-Key": "once"}
    first, again = answers_of(api, *[lambda: post(api, "/v1/jobs", once, {"url": URL})] * 2)
    assert outcomes([first, again]) == [(202, None), (202, None)]
    assert first.json["id"] == again.json["id"]


def test_a_wait_for_other_requests_that_takes_too_long_is_a_refusal(api, monkeypatch):
    owner = uuid.uuid4().hex
    auth, _ = api.key(owner)
    engine = api.app.extensions["deepfakestream"].sessions.engine
    logged = []
    monkeypatch.setattr("api.errors.log.error", lambda *given, **_: logged.append(given))

    def hurry(connection):
        connection.exec_driver_sql("set local lock_timeout = '50ms'")

    event.listen(engine, "begin", hurry)
    try:
        with api.sessions.transaction() as session:
            lock_owner(session, owner)
            answers = [
                api.submit(auth),
                post(api, "/v1/jobs", auth, {"url": URL}),
                post(api, "/v1/batches", auth, {"items": [{"url": URL}]}),
            ]
        accepted = post(api, "/v1/jobs", auth, {"url": URL})
    finally:
        event.remove(engine, "begin", hurry)
    assert outcomes([*answers, accepted]) == [(429, "rate_limited")] * 3 + [(202, None)]
    assert {answer.headers["Retry-After"] for answer in answers} == {"15"}
    assert logged == []


@pytest.mark.parametrize("has_key", [False, True], ids=["without", "with"])
def test_a_key_is_looked_up_under_the_lock_only_at_a_limit(make_api, has_key):
    api = make_api()
    auth, _ = api.key(uuid.uuid4().hex)
    headers = {**auth, "Idempotency-Key": "once"} if has_key else auth
    with recorded_statements(api.app.extensions["deepfakestream"].sessions.engine) as statements:
        assert post(api, "/v1/jobs", headers, {"url": URL}).status_code == 202
    lock = next(place for place, each in enumerate(statements) if "pg_advisory_xact_lock" in each)
    insert = next(place for place, each in enumerate(statements) if each.startswith("INSERT INTO jobs"))
    between = [each for each in statements[lock + 1 : insert] if not each.startswith("SAVEPOINT")]
    assert len(between) == 1
    assert not any("idempotency_key" in each for each in between)


def test_a_repetition_that_waited_is_answered_over_the_quota_of_bytes(make_api, auth):
    api = make_api(max_stored_bytes_per_owner=1)
    once = {**auth, "Idempotency-Key": "once"}
    first, again = answers_of(api, *[lambda: api.submit(once, noise_picture(1))] * 2)
    assert outcomes([first, again]) == [(202, None), (202, None)]
    assert first.json["id"] == again.json["id"]


def test_a_batch_locks_its_owner_before_its_first_row_and_inserts_its_jobs_together(make_api):
    api = make_api()
    auth, _ = api.key(uuid.uuid4().hex)
    numbers = []
    for size in (2, 50):
        with recorded_statements(api.app.extensions["deepfakestream"].sessions.engine) as statements:
            items = [{"url": f"{URL}?{index}"} for index in range(size)]
            answer = post(api, "/v1/batches", auth, {"items": items, "explain": True})
        assert answer.status_code == 202
        numbers.append(len(statements))
        order = [each.split("(")[0].strip() for each in statements]
        assert order.index("select pg_advisory_xact_lock") < order.index("INSERT INTO batches")
        assert order.count("INSERT INTO jobs") == 1
    assert numbers[0] == numbers[1]


def test_two_streams_at_once_do_not_exceed_the_open_streams_of_an_owner(make_api, auth):
    api = make_api(streams={"max_open_per_owner": 1})
    found = answers_of(api, *[lambda: post(api, "/v1/streams", auth, STREAM)] * 2)
    assert outcomes(found) == [(202, None), (429, "too_many_open_jobs")]


def test_two_files_at_once_do_not_exceed_the_stored_bytes_of_an_owner(make_api, auth):
    api = make_api(max_stored_bytes_per_owner=1)
    before = len(api.files())
    requests = [lambda: api.submit(auth, noise_picture(1)), lambda: api.submit(auth, noise_picture(2))]
    found = answers_of(api, *requests)
    assert outcomes(found) == [(202, None), (403, "storage_quota_exceeded")]
    assert len(api.files()) == before + 1


def test_two_explanations_at_once_do_not_exceed_the_open_ones_of_an_owner(make_api, auth):
    api = make_api()
    jobs = [api.submit(auth, noise_picture(number)).json["id"] for number in (1, 2)]
    with api.sessions.transaction() as session:
        session.execute(update(Job).where(Job.id.in_(jobs)).values(status="succeeded"))
    api = make_api(max_open_jobs_per_owner=1)
    explain = [lambda job_id=job_id: post(api, f"/v1/jobs/{job_id}/explanations", auth, {}) for job_id in jobs]
    found = answers_of(api, *explain, of="insert into explanations")
    assert outcomes(found) == [(202, None), (429, "too_many_open_jobs")]


def test_two_direct_uploads_at_once_do_not_exceed_the_open_ones_of_an_owner(make_api, auth):
    # To presign an address sends no request.
    server = {"endpoint_url": "http://127.0.0.1:9", "public_endpoint_url": "http://127.0.0.1:9"}
    storage = StorageSettings(url="s3://bucket", access_key_id="key", secret_access_key="secret", **server)
    api = make_api(storage, max_open_jobs_per_owner=1)
    requests = [lambda: post(api, "/v1/uploads", auth, {"size_bytes": 1000})] * 2
    found = answers_of(api, *requests, of="insert into uploads")
    assert outcomes(found) == [(201, None), (429, "too_many_open_uploads")]
