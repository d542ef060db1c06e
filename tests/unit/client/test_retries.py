"""Retries: which requests are repeated, when, and for how long; and requests that cannot be sent at all."""

import asyncio
import io
import itertools
import socket
import threading
import time
from contextlib import closing

import pytest
from deepfakestream import Client
from deepfakestream.errors import (
    APIError,
    ConnectionFailedError,
    DeepfakeStreamError,
    InvalidRequestError,
    MissingPartError,
    NotFoundError,
    ServerError,
    UnexpectedAnswerError,
)

from tests.unit.client.services import answer, cut_off, job, problem

PLACE_ID = "01a20d78-a9e9-755a-a1ee-3373ca532026"


@pytest.fixture
def client(server, no_pauses, connect):  # noqa: ARG001 - it changes how the client pauses
    with connect(server.url, "dfs_key", timeout_s=5.0) as connected:
        yield connected


def place(server, **headers):
    headers = {"Content-Length": "10", **headers}
    return answer({"id": PLACE_ID, "method": "PUT", "url": f"{server.url}/storage/x", "headers": headers}, 201)


def submit_directly(client):
    return client.submit(io.BytesIO(b"whole file"), direct=True)


@pytest.mark.parametrize(
    "first",
    [cut_off(200), problem(429, "x"), problem(500, "x"), problem(503, "SlowDown", **{"Retry-After": "1"})],
    ids=["lost", "429", "500", "503"],
)
def test_a_failed_put_is_repeated_if_that_can_help(server, client, first):
    server.answers = [place(server), first, (200, {}, b""), answer(job("queued"), 202)]
    assert submit_directly(client).status == "queued"
    puts = [request for request in server.requests if request.method == "PUT"]
    assert [request.body for request in puts] == [b"whole file"] * 2
    assert not any("Authorization" in request.headers for request in puts)


def test_a_direct_upload_survives_every_lost_answer(server, client):
    stored, made = (200, {}, b""), answer(job("queued"), 202)
    server.answers = [cut_off(201), place(server), cut_off(200), stored, cut_off(202), problem(503, "x"), made]
    assert submit_directly(client).status == "queued"
    submissions = [request for request in server.requests if request.path == "/v1/jobs"]
    assert len({request.headers["Idempotency-Key"] for request in submissions}) == 1
    assert len({request.body for request in submissions}) == 1
    assert len(submissions) == 3


def test_a_pause_that_storage_requests_is_kept(server, pauses, connect):
    with connect(server.url, "dfs_key", timeout_s=5.0) as client:
        slow_down = problem(503, "SlowDown", **{"Retry-After": "7"})
        server.answers = [place(server), slow_down, (200, {}, b""), answer(job("queued"), 202)]
        submit_directly(client)
    (pause_s,) = pauses
    assert 7.0 <= pause_s <= 8.0


@pytest.mark.parametrize("status", [400, 403, 404, 412])
def test_a_file_that_storage_refuses_is_not_put_again(server, client, status):
    server.answers = [place(server), (status, {}, b"<Error/>")]
    with pytest.raises(APIError) as raised:
        submit_directly(client)
    assert raised.value.status == status
    assert len(server.requests) == 2


def test_a_service_that_takes_files_itself_says_why_it_refuses_one(server, client):
    server.answers = [place(server), problem(404, "not_found", **{"Content-Type": "application/problem+json"})]
    with pytest.raises(NotFoundError) as raised:
        submit_directly(client)
    assert raised.value.code == "not_found"


def test_a_file_is_not_sent_without_tls_to_a_service_with_tls():
    client = Client("https://service.example", "dfs_key")
    document = {"id": PLACE_ID, "method": "PUT", "url": "http://service.example/v1/uploads/x/content", "headers": {}}
    with closing(client), pytest.raises(UnexpectedAnswerError, match=r"without TLS.*api\.trusted_proxies"):
        asyncio.run(client._transport.put(document, lambda: None, 10))


def test_storage_that_gives_no_answer_is_a_failed_connection(server, client):
    server.answers = [place(server), *[cut_off(200)] * 4]
    with pytest.raises(ConnectionFailedError, match="storage"):
        submit_directly(client)
    assert len(server.requests) == 5


@pytest.mark.parametrize(
    "first", [(200, {"Content-Encoding": "gzip"}, b"{}"), (302, {"Location": "https://a.example/"}, b"")]
)
def test_an_unreadable_answer_of_storage_is_an_error_of_this_package(server, client, first):
    server.answers = [place(server), first]
    with pytest.raises(UnexpectedAnswerError):
        submit_directly(client)
    assert len(server.requests) == 2


@pytest.mark.parametrize("value", ["é", "a\nb", "a\0b", "\udcff"])
def test_an_upload_header_that_cannot_be_sent_is_an_error_of_this_package(server, client, value):
    server.answers = [place(server, **{"x-amz-meta": value})]
    with pytest.raises(DeepfakeStreamError):
        submit_directly(client)
    # A request that cannot be sent once is not repeated.
    assert len(server.requests) == 1


@pytest.mark.parametrize("key", ["a\nb", "a\0b", "é", "a\r\nX-Evil: 1"])
def test_an_idempotency_key_that_cannot_be_sent_is_refused_at_once(server, client, key):
    with pytest.raises(InvalidRequestError, match="cannot be sent"):
        client.submit(url="https://a.example/x", idempotency_key=key)
    assert server.requests == []


@pytest.mark.parametrize("of_file", [True, False], ids=["file", "url"])
@pytest.mark.parametrize("metadata", [{"a": float("nan")}, {"a": float("inf")}, {"a": b""}, {"a": {1}}], ids=str)
def test_metadata_that_is_no_json_is_an_error_of_the_tree(server, client, of_file, metadata):
    source = {"file": io.BytesIO(b"x")} if of_file else {"url": "https://a.example/x"}
    with pytest.raises(InvalidRequestError, match="metadata"):
        client.submit(**source, metadata=metadata)
    assert server.requests == []


class Shrinking(io.BytesIO):
    """A file that another program cuts while it is sent."""

    def read(self, size=-1, /):
        return super().read(size)[:-1]


class Growing(io.BytesIO):
    """A file that another program appends to while it is sent."""

    def read(self, size=-1, /):
        return block + b"more" if (block := super().read(size)) else b""


@pytest.mark.parametrize("file", [Shrinking, Growing], ids=["shrinks", "grows"])
def test_a_file_that_changes_while_it_is_sent_is_reported_and_not_sent_again(server, client, file):
    with pytest.raises(InvalidRequestError, match="changed while it was sent"):
        client.submit(file(b"0123456789"))
    assert len(server.requests) <= 1


@pytest.mark.parametrize(
    "content", [(200, {}, b""), answer({}), (200, {"Content-Type": "text/html"}, b"<html>"), answer(job())]
)
def test_a_job_is_erased_only_if_the_service_says_so(server, client, content):
    server.answers = [content]
    with pytest.raises(UnexpectedAnswerError):
        client.delete("x")
    assert len(server.requests) == 1


def test_an_erased_job_gives_no_error(server, client):
    server.answers = [(204, {}, b"")]
    client.delete("x")


def test_paging_continues_after_a_lost_page(server, client):
    server.answers = [
        answer({"items": [job()], "next_cursor": "abc"}),
        cut_off(200),
        answer({"items": [job()], "next_cursor": None}),
    ]
    assert len(list(client.list())) == 2
    assert [request.path for request in server.requests] == ["/v1/jobs", "/v1/jobs?cursor=abc", "/v1/jobs?cursor=abc"]


def test_waiting_continues_after_a_lost_answer(server, client):
    server.answers = [cut_off(200), problem(503, "x"), answer(job("running")), cut_off(200), answer(job("succeeded"))]
    assert client.wait("x", poll_s=0.0).status == "succeeded"


@pytest.mark.parametrize("status", [429, 503])
def test_waiting_ends_in_time_even_if_the_service_requests_longer_pauses(server, status, connect):
    server.answers = [problem(status, "x", **{"Retry-After": "60"})] * 9
    began = time.monotonic()
    with connect(server.url, "dfs_key") as client, pytest.raises(APIError) as raised:
        client.wait("x", timeout_s=1.0)
    assert raised.value.status == status
    assert time.monotonic() - began < 30.0


def test_waiting_ends_in_time_even_if_the_service_does_not_answer(monkeypatch, connect):
    monkeypatch.setattr("deepfakestream.transport.GRACE_S", 0.2)
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        began = time.monotonic()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with connect(url, "dfs_key") as client, pytest.raises(ConnectionFailedError):
            client.wait("x", timeout_s=0.3)
    assert time.monotonic() - began < 15.0


def test_pauses_grow_and_differ_between_clients(server, pauses, connect):
    for _ in range(20):
        server.answers = [problem(503, "x")] * 4
        with connect(server.url, "dfs_key") as client, pytest.raises(ServerError):
            client.get("x")
    by_attempt = [pauses[at::3] for at in range(3)]
    for times in by_attempt:
        assert len(set(times)) == 20
    assert all(0.25 <= short < 0.8 for short in by_attempt[0])
    assert all(max(shorter) < max(longer) for shorter, longer in itertools.pairwise(by_attempt))


@pytest.mark.parametrize(("asked", "min_s", "max_s"), [("0", 0.0, 1.0), ("7", 7.0, 8.0), ("999999999", 60.0, 60.0)])
def test_a_requested_pause_is_kept_within_bounds(server, pauses, asked, min_s, max_s, connect):
    server.answers = [problem(429, "x", **{"Retry-After": asked}), answer(job())]
    with connect(server.url, "dfs_key") as client:
        client.get("x")
    (pause_s,) = pauses
    assert min_s <= pause_s <= max_s


def test_a_client_without_retries_sends_once(server, connect):
    server.answers = [problem(503, "x")]
    with connect(server.url, "dfs_key", retries=0) as client, pytest.raises(ServerError):
        client.get("x")
    assert len(server.requests) == 1


@pytest.mark.parametrize(("name", "value"), [("HTTPS_PROXY", "nonsense://a"), ("SSL_CERT_FILE", "/nowhere")])
def test_an_unusable_proxy_or_certificate_file_is_an_error_of_this_package(monkeypatch, name, value, connect):
    monkeypatch.setenv(name, value)
    with pytest.raises(MissingPartError, match="environment"):
        connect("https://a.example", "dfs_key")


@pytest.mark.usefixtures("no_pauses")
def test_a_client_may_be_used_by_threads(server):
    server.answers = [problem(503, "x"), *[answer(job())] * 8]
    found = []
    with Client(server.url, "dfs_key") as client:
        threads = [threading.Thread(target=lambda: found.append(client.get("x").status)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == ["succeeded"] * 8
