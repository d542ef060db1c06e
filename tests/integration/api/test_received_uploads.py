"""The files of direct uploads that the api takes itself, mostly under the real server."""

import hashlib
import http.client
import json
import os
import socket
import threading
import time
import uuid
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from functools import partial
from http.client import HTTPResponse
from urllib.parse import parse_qs, urlsplit

import pytest
from sqlalchemy import func, select, update

from shared.models import AuditEvent, DirectUpload
from tests.clips import noise_picture
from tests.integration.api.conftest import api_maker
from tests.integration.api.test_stopping import served, wait_until
from worker.tasks.ingest import ingest
from worker.tasks.upkeep import tidy

LARGE = 3 * 1024**2
"""Bytes of a file that counts as a large upload."""


@pytest.fixture(scope="module")
def make_api(postgres_url, template_url, tmp_path_factory):
    with api_maker(postgres_url, template_url, tmp_path_factory.mktemp("storage")) as make:
        yield make


@pytest.fixture(scope="module")
def api(make_api):
    return make_api()


@pytest.fixture(scope="module")
def server(api):
    """The port of one process of the api, which takes one large upload and one small one more than it needs here."""
    with served(api, API__MAX_UPLOADS=2) as (_, port):
        yield port


@pytest.fixture
def auth(api):
    return api.key(uuid.uuid4().hex)[0]


def begin(api, auth, size_bytes):
    answer = api.call("POST", "/v1/uploads", auth, json={"size_bytes": size_bytes})
    assert answer.status_code == 201, answer.text
    return answer.json


def place_of(upload):
    """Return path and query of the address of an upload."""
    url = urlsplit(upload["url"])
    return f"{url.path}?{url.query}"


def token_of(upload):
    [token] = parse_qs(urlsplit(upload["url"]).query)["token"]
    return token


def put(api, upload, content, headers=None):
    return api.call("PUT", place_of(upload), upload["headers"] if headers is None else headers, data=content)


def submit(api, auth, upload):
    return api.call("POST", "/v1/jobs", auth, json={"upload_id": upload["id"]})


def files_of(api, upload):
    """Return the names of what is stored of an upload."""
    return sorted(path.name for path in api.files() if path.name.startswith(upload["id"]))


def content_of(api, upload):
    return (api.storage / "incoming" / upload["id"]).read_bytes()


@contextmanager
def sending(port, upload, length=None):
    """Begin to send a file over a connection of its own; yield the connection."""
    length = upload["headers"]["Content-Length"] if length is None else length
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(f"PUT {place_of(upload)} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n".encode())
        yield connection


def read_answer(connection):
    """Return status, document and headers of an answer."""
    with HTTPResponse(connection) as answer:
        answer.begin()
        body = answer.read()
        return answer.status, json.loads(body) if body else None, answer.headers


def test_nothing_is_visible_before_the_whole_file_is_there(api, auth, server):
    upload = begin(api, auth, LARGE)
    with sending(server, upload) as connection:
        connection.sendall(b"a" * (LARGE - 1))
        wait_until(lambda: files_of(api, upload))
        [unfinished] = files_of(api, upload)
        assert unfinished != upload["id"]
        assert submit(api, auth, upload).json["code"] == "upload_incomplete"
        connection.sendall(b"a")
        assert read_answer(connection)[:2] == (200, None)
    assert files_of(api, upload) == [upload["id"]]
    assert content_of(api, upload) == b"a" * LARGE


@pytest.mark.parametrize("last", [0, 1])
def test_two_files_at_the_same_time_do_not_mix_and_the_last_one_stays(api, auth, server, last):
    upload = begin(api, auth, LARGE)
    with ExitStack() as opened:
        connections = [opened.enter_context(sending(server, upload)) for _ in range(2)]
        for connection, letter in zip(connections, b"ab", strict=True):
            connection.sendall(bytes([letter]) * (LARGE // 2))
        wait_until(lambda: len(files_of(api, upload)) == 2)
        for which in (1 - last, last):
            connections[which].sendall(bytes([b"ab"[which]]) * (LARGE - LARGE // 2))
            assert read_answer(connections[which])[0] == 200
    assert content_of(api, upload) == bytes([b"ab"[last]]) * LARGE
    assert files_of(api, upload) == [upload["id"]]


@pytest.mark.parametrize("sent", [0, 1000, LARGE - 1])
def test_a_client_that_goes_away_leaves_nothing(api, auth, server, sent):
    upload = begin(api, auth, LARGE)
    with sending(server, upload) as connection:
        connection.sendall(b"a" * sent)
        wait_until(lambda: files_of(api, upload))
    wait_until(lambda: not files_of(api, upload))
    # The address still takes the file.
    assert put(api, upload, b"b" * LARGE).status_code == 200


def test_what_arrives_after_the_submission_is_refused_and_the_job_has_the_earlier_file(api, auth, server, worker):
    picture = noise_picture(1)
    upload = begin(api, auth, len(picture))
    assert put(api, upload, picture).status_code == 200
    with sending(server, upload) as connection:
        connection.sendall(b"a" * 10)
        wait_until(lambda: len(files_of(api, upload)) == 2)
        job = submit(api, auth, upload)
        assert job.status_code == 202, job.text
        connection.sendall(b"a" * (len(picture) - 10))
        status, problem, _ = read_answer(connection)
        assert (status, problem["code"]) == (404, "not_found")
    assert content_of(api, upload) == picture
    ingest(worker, uuid.UUID(job.json["id"]))
    document = api.call("GET", f"/v1/jobs/{job.json['id']}", auth).json
    assert document["media"]["sha256"] == hashlib.sha256(picture).hexdigest()
    assert files_of(api, upload) == []


def test_a_file_that_is_stored_after_its_upload_ended_is_removed(api, auth, worker, monkeypatch):
    upload = begin(api, auth, 5)
    storage = api.app.extensions["deepfakestream"].storage
    create = storage.create

    def end_and_commit(commit):
        with worker.sessions.transaction() as session:
            session.execute(
                update(DirectUpload).where(DirectUpload.id == uuid.UUID(upload["id"])).values(expires_at=func.now())
            )
        tidy(worker)
        return commit()

    def create_late(key):
        made = create(key)
        made.commit = partial(end_and_commit, made.commit)
        return made

    with monkeypatch.context() as patch:
        patch.setattr(storage, "create", create_late)
        answer = put(api, upload, b"abcde")
    assert (answer.status_code, answer.json["code"]) == (404, "not_found")
    assert files_of(api, upload) == []


def test_a_file_can_be_sent_again_until_it_is_taken(api, auth):
    upload = begin(api, auth, 5)
    for content in (b"first", b"secnd"):
        assert put(api, upload, content).status_code == 200
        assert content_of(api, upload) == content


@pytest.mark.parametrize(
    ("announced", "status", "code"), [(4, 400, "bad_request"), (6, 413, "too_large"), (10**12, 413, "too_large")]
)
def test_another_length_is_refused_before_the_file_is_read(api, auth, server, announced, status, code):
    upload = begin(api, auth, 5)
    with sending(server, upload, announced) as connection:
        found, problem, _ = read_answer(connection)
    assert (found, problem["code"]) == (status, code)
    assert files_of(api, upload) == []


def test_a_file_without_a_length_is_refused(api, auth, server):
    upload = begin(api, auth, 5)
    connection = http.client.HTTPConnection("127.0.0.1", server, timeout=20)
    connection.request("PUT", place_of(upload), iter([b"abcde"]), {"Transfer-Encoding": "chunked"}, encode_chunked=True)
    answer = connection.getresponse()
    problem = json.loads(answer.read())
    connection.close()
    assert (answer.status, problem["code"]) == (400, "bad_request")
    assert "Content-Length" in problem["detail"]
    assert files_of(api, upload) == []


def test_every_address_that_takes_no_file_is_refused_alike(api, auth):
    upload, other, expired, taken = (begin(api, auth, 5) for _ in range(4))
    with api.sessions.transaction() as session:
        for ended, values in ((expired, {"expires_at": func.now()}), (taken, {"claimed_at": func.now()})):
            session.execute(update(DirectUpload).where(DirectUpload.id == uuid.UUID(ended["id"])).values(values))
        # One of those whose address is in S3.
        signed = DirectUpload(owner="somebody", size_bytes=5, expires_at=func.now() + timedelta(hours=1))
        session.add(signed)
        session.flush()
        signed_id = str(signed.id)
    wrong = [
        *[f"{upload['id']}/content{query}" for query in ("", "?token=", f"?token={token_of(upload)[:-1]}")],
        *[f"{upload['id']}/content?token={token}" for token in (token_of(other), "%00", "%ff", "x" * 5000)],
        *[f"{one}/content?token={token_of(upload)}" for one in (uuid.uuid4(), other["id"], signed_id)],
        f"{signed_id}/content",
        *[place_of(one).removeprefix("/v1/uploads/") for one in (expired, taken)],
    ]
    details = set()
    for place in wrong:
        # A key makes no difference.
        for headers in ({}, auth):
            answer = api.call("PUT", f"/v1/uploads/{place}", headers, data=b"abcde")
            assert (answer.status_code, answer.json["code"]) == (404, "not_found"), place
            details.add(answer.json["detail"])
    assert len(details) == 1
    assert [files_of(api, one) for one in (upload, other, expired, taken)] == [[]] * 4
    assert put(api, upload, b"abcde").status_code == 200


def test_the_token_is_kept_as_a_digest_only(api, auth):
    upload = begin(api, auth, 5)
    with api.sessions.transaction() as session:
        row = session.get_one(DirectUpload, uuid.UUID(upload["id"]))
        assert row.token_sha256 == hashlib.sha256(token_of(upload).encode()).digest()
        details = session.scalars(select(AuditEvent.detail).where(AuditEvent.owner == row.owner)).all()
        assert {"size_bytes": 5} in details
        assert token_of(upload) not in json.dumps(details)


def test_the_address_is_that_at_which_clients_reach_the_api(make_api):
    api = make_api(trusted_proxies=1)
    headers = {**api.key()[0], "Host": "deepfakes.example", "X-Forwarded-Proto": "https"}
    upload = begin(api, headers, 5)
    assert upload["url"].startswith(f"https://deepfakes.example/v1/uploads/{upload['id']}/content?token=")
    assert (upload["method"], upload["headers"]) == ("PUT", {"Content-Length": "5"})
    assert put(api, upload, b"abcde").status_code == 200


def test_slow_files_leave_threads_for_others(api, auth, server):
    upload = begin(api, auth, LARGE)
    with ExitStack() as opened:
        slow = [opened.enter_context(sending(server, upload)) for _ in range(2)]
        for connection in slow:
            connection.sendall(b"a")
        wait_until(lambda: len(files_of(api, upload)) == 2)
        with sending(server, upload) as connection:
            status, problem, headers = read_answer(connection)
        assert (status, problem["code"], headers["Retry-After"]) == (503, "too_many_uploads", "5")
        # Neither small files nor other requests have to wait.
        small = begin(api, auth, 5)
        with sending(server, small) as connection:
            connection.sendall(b"abcde")
            assert read_answer(connection)[0] == 200
        for connection in slow:
            connection.sendall(b"a" * (LARGE - 1))
            assert read_answer(connection)[0] == 200


def test_one_address_takes_two_bodies_at_a_time(api, auth):
    one, other = (begin(api, auth, 10) for _ in range(2))
    receiving = api.app.extensions["deepfakestream"].receiving
    with receiving.hold(uuid.UUID(one["id"]), RuntimeError()), receiving.hold(uuid.UUID(one["id"]), RuntimeError()):
        refused = api.call("PUT", place_of(one), {"Content-Length": "10"}, data=b"x" * 10)
        assert (refused.status_code, refused.json["code"], refused.headers["Retry-After"]) == (
            503,
            "too_many_uploads",
            "5",
        )
        assert api.call("PUT", place_of(other), {"Content-Length": "10"}, data=b"x" * 10).status_code == 200
    assert api.call("PUT", place_of(one), {"Content-Length": "10"}, data=b"x" * 10).status_code == 200


def test_requests_to_the_address_are_counted_by_where_they_come_from(make_api):
    api = make_api(requests_per_minute=2)
    path = f"/v1/uploads/{uuid.uuid4()}/content?token="
    answers = [
        api.call("PUT", f"{path}{number}", {"Authorization": f"Bearer dfs_{number}"}, "192.0.2.9", data=b"a")
        for number in range(3)
    ]
    assert [answer.status_code for answer in answers] == [404, 404, 429]
    assert api.call("PUT", path, {}, "192.0.2.10", data=b"a").status_code == 404


def test_what_a_killed_process_left_of_a_file_is_removed_a_day_later(api, auth, worker):
    upload = begin(api, auth, 5)
    assert put(api, upload, b"abcde").status_code == 200
    folder = api.storage / "incoming"
    names = {
        f"{upload['id']}.{'0' * 16}.part": 2,
        f"{upload['id']}.part": 2,
        f"{upload['id']}.{'1' * 16}.part": 0,
        f"{upload['id']}.notes.part": 2,
        f"{upload['id']}.{'2' * 16}": 2,
        "notes.part": 2,
    }
    for name, days in names.items():
        (folder / name).write_bytes(b"half")
        changed = time.time() - days * 86400
        os.utime(folder / name, (changed, changed))
    tidy(worker)
    kept = [upload["id"], *list(names)[2:]]
    assert {name for name in [*names, upload["id"]] if (folder / name).exists()} == set(kept)
    for name in names:
        (folder / name).unlink(missing_ok=True)


def test_many_files_at_once_arrive_whole(api, auth, server):
    """Threads of one process share nothing by which their files could mix."""
    uploads = [begin(api, auth, 100_000) for _ in range(4)]
    statuses = []

    def send(number, upload):
        for _ in range(5):
            with sending(server, upload) as connection:
                connection.sendall(bytes([number]) * 100_000)
                statuses.append(read_answer(connection)[0])

    threads = [threading.Thread(target=send, args=(number, upload)) for number, upload in enumerate(uploads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert set(statuses) <= {200, 503}
    for number, upload in enumerate(uploads):
        assert files_of(api, upload) == [upload["id"]]
        assert content_of(api, upload) == bytes([number]) * 100_000
