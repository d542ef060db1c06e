"""How the SDK handles lost, repeated and invalid answers."""

import gzip
import io
import json
from dataclasses import FrozenInstanceError
from datetime import UTC, datetime

import pytest
from deepfakestream.errors import (
    APIError,
    ConflictError,
    ConnectionFailedError,
    DeepfakeStreamError,
    NotFoundError,
    RateLimitedError,
    ServerError,
    UnexpectedAnswerError,
)
from deepfakestream.explanations import Explanation
from deepfakestream.requests.base import parse_document
from deepfakestream.results import Job
from deepfakestream.tables import describe_explanation, print_job
from rich.console import Console

from tests.retry_after import cases, date_in
from tests.unit.client.explained import explained_person, explanation
from tests.unit.client.services import answer, cut_off, job, problem

HTML = (200, {"Content-Type": "text/html"}, b"<html>Sign in</html>")
DELIVERY = {"number": 2, "event": "job.succeeded", "status": "pending", "response_status": None, "error_code": None}


@pytest.fixture
def client(server, no_pauses, connect):  # noqa: ARG001 - it changes how the client pauses
    with connect(server.url, "dfs_key", timeout_s=5.0) as connected:
        yield connected


@pytest.mark.parametrize("first", [cut_off(200), problem(502, "x"), problem(503, "x"), problem(504, "x")])
def test_a_job_that_was_erased_by_a_lost_attempt_is_erased(server, client, first):
    server.answers = [first, problem(404, "not_found")]
    client.delete("x")
    assert [request.method for request in server.requests] == ["DELETE", "DELETE"]


def test_erasing_an_unknown_job_is_an_error(server, client):
    server.answers = [problem(404, "not_found")]
    with pytest.raises(NotFoundError):
        client.delete("x")
    server.answers = [problem(429, "rate_limited"), problem(404, "not_found")]
    with pytest.raises(NotFoundError):
        client.delete("x")


def test_a_webhook_whose_answer_was_lost_is_not_sent_twice(server, client):
    server.answers = [cut_off(202), answer(DELIVERY, 202)]
    with pytest.raises(ConnectionFailedError, match="may have processed the request"):
        client.redeliver("x", 1)
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_webhook_that_may_have_been_sent_is_not_sent_twice(server, client, status):
    server.answers = [problem(status, "service_unavailable"), answer(DELIVERY, 202)]
    with pytest.raises(ServerError):
        client.redeliver("x", 1)
    assert len(server.requests) == 1


def test_a_webhook_that_was_not_sent_is_requested_again(server, client):
    server.answers = [problem(429, "rate_limited"), answer(DELIVERY, 202)]
    assert client.redeliver("x", 1).number == 2


def test_safe_requests_are_still_repeated(server, client):
    server.answers = [cut_off(200), answer(job("cancelled"))]
    assert client.cancel("x").status == "cancelled"
    server.answers = [problem(503, "x"), answer(job())]
    assert client.get("x").status == "succeeded"
    server.answers = [cut_off(200), problem(409, "job_already_final")]
    with pytest.raises(ConflictError):
        client.cancel("x")


CALLS = {
    "submit": lambda client: client.submit(url="https://a.example/x"),
    "get": lambda client: client.get("x"),
    "wait": lambda client: client.wait("x"),
    "list": lambda client: list(client.list()),
    "segments": lambda client: list(client.segments("x")),
    "cancel": lambda client: client.cancel("x"),
    "deliveries": lambda client: client.deliveries("x"),
    "delete": lambda client: client.delete("x"),
    "redeliver": lambda client: client.redeliver("x", 1),
    "models": lambda client: client.models(),
}
NONSENSE = {
    "HTML": HTML,
    "no body": (200, {}, b""),
    "no UTF-8": (200, {"Content-Type": "application/json"}, b"\xff\xfe{"),
    "deep": (200, {"Content-Type": "application/json"}, b"[" * 100_000),
    "no gzip": (200, {"Content-Encoding": "gzip"}, b"{}"),
    "null": answer(None),
    "text": answer("x"),
    "list": answer([1, 2]),
    "empty object": answer({}),
    "items that are none": answer({"items": "x", "next_cursor": None}),
    "items that are no documents": answer({"items": [1], "next_cursor": None}),
    "redirection": (302, {"Location": "https://login.example/"}, b""),
    "not modified": (304, {}, b""),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_an_answer_of_another_program_is_an_error_of_this_package(server, client, call):
    for name, content in NONSENSE.items():
        server.answers, server.requests = [content] * 4, []
        with pytest.raises(APIError) as raised:
            call(client)
        assert raised.value.code in {"unexpected_answer", "redirected", "http_304"}, name
        assert len(server.requests) == 1, name


def with_one_change(document):
    """Yield copies of *document*, each with one value, at any depth, replaced by one of another type."""
    for name, value in document.items():
        for other in (None, True, 7, "text", [1], {"a": 1}, "\x1b[2J", float("inf")):
            yield document | {name: other}
        if isinstance(value, dict):
            for inner in with_one_change(value):
                yield document | {name: inner}
        if isinstance(value, list) and value and isinstance(value[0], dict):
            for inner in with_one_change(value[0]):
                yield document | {name: [inner]}


FACE = {
    "time_s": 0.5,
    "box_px": [1.0, 2.0, 3.0, 4.0],
    "landmarks_px": [[1.0, 2.0]],
    "confidence": 0.9,
    "size_px": 60.0,
    "sharpness": 10.0,
    "problem": None,
    "fake_score": 0.25,
}
SEGMENT = {
    "index": 0,
    "start_s": 0.0,
    "end_s": 5.0,
    "status": "scored",
    "fake_score": 0.25,
    "reasons": [],
    "people": [{"person": 0, "fake_score": 0.25, "faces": [FACE]}],
    "error": {"code": "a", "detail": "b"},
}
MODEL = {
    "name": "m",
    "version": "1",
    "trained": True,
    "weights_sha256": "0",
    "threshold": 0.5,
    "uncertainty_band": [0, 1],
}
JUDGED = {
    "person": 0,
    "fake_score": 0.5,
    "verdict": "fake",
    "real_below": 0.1,
    "fake_from": 0.4,
    "faces": 3,
    "faces_scored": 3,
    "face": {"time_s": 0.5, "box_px": [1.0, 2.0, 3.0, 4.0]},
    "seen": [{"start_s": 0.0, "end_s": 5.0}],
}
SUSPICION = {"start_s": 0.0, "end_s": 5.0, "person": 0, "fake_score": 0.5, "faces": 3, "verdict": "fake"}
EVIDENCE = {"kind": "video", "faces": 3, "people": 1.0, "bits_per_pixel": 0.1, "real_below": 0.1, "fake_from": 0.5}
FULL_JOB = job(
    model=MODEL,
    evidence=EVIDENCE,
    people=[JUDGED],
    suspicious=[SUSPICION],
    segments=[SEGMENT],
    error={"code": "a", "detail": "b"},
    media={"duration_s": 5.0},
    fake_score=0.5,
)


def test_a_job_is_read_with_everything_in_it():
    found = Job.from_json(FULL_JOB)
    assert (found.duration_s, found.segments_done, found.fraction) == (5.0, 0, 0.0)
    assert found.created_at == datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
    assert found.model.uncertainty_band == (0.0, 1.0)
    (person,), (stretch,), (segment,) = found.people, found.suspicious, found.segments
    assert (person.face_time_s, person.face_box_px, person.seen) == (0.5, (1.0, 2.0, 3.0, 4.0), ((0.0, 5.0),))
    assert (person.raw, found.raw) == (JUDGED, FULL_JOB)
    assert (stretch.verdict, segment.people_count, segment.people[0].faces[0].size_px) == ("fake", 1, 60.0)
    with pytest.raises(FrozenInstanceError):
        found.status = "failed"


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"created_at": 7}, "created_at"),
        ({"created_at": "1700000000"}, "created_at"),
        ({"progress": {}}, "progress.segments_total"),
        ({"progress": 7}, "progress"),
        ({"people": [JUDGED | {"face": {"time_s": 0.5}}]}, "people.0.face.box_px"),
        ({"people": [JUDGED | {"seen": [7]}]}, "people.0.seen.0"),
        ({"people": [JUDGED | {"seen": {}}]}, "people.0.seen"),
        ({"segments": [SEGMENT | {"fake_score": "0.25"}]}, "segments.0.fake_score"),
        ({"media": 7}, "media"),
        ({"media": [7]}, "media"),
    ],
)
def test_an_answer_that_cannot_be_read_says_where(server, client, change, where):
    server.answers = [answer(FULL_JOB | change)]
    with pytest.raises(UnexpectedAnswerError, match=rf"it is no job: {where}: "):
        client.get("x")


def returning(document):
    async def call(*_, **__):
        return document

    return call


def test_a_document_of_another_shape_is_read_or_refused_and_never_half_read(client, monkeypatch):
    documents = list(with_one_change(FULL_JOB))
    assert len(documents) > 300
    refusals = []
    for document in documents:
        monkeypatch.setattr(client._transport, "call", returning(document))
        try:
            found = client.get("x")
        except APIError as error:
            refusals.append(error.code)
            continue
        # As the command line uses it: raises where a field is of another type than it says.
        print_job(Console(file=io.StringIO()), "x", found)
    assert set(refusals) == {"unexpected_answer"}
    assert 100 < len(refusals) < len(documents)


def test_an_explanation_of_another_shape_is_read_or_refused_and_never_half_read():
    refused = 0
    documents = list(with_one_change(explanation("succeeded", explained_person())))
    for document in documents:
        try:
            found = parse_document(Explanation, document)
        except UnexpectedAnswerError:
            refused += 1
            continue
        assert describe_explanation(found)
    assert 20 < refused < len(documents)


def test_pages_that_do_not_end_are_an_error(server, client):
    server.answers = [answer({"items": [job()], "next_cursor": "same"})] * 5
    with pytest.raises(APIError, match="do not end"):
        list(client.list())


@cases()
def test_any_retry_after_is_read_or_ignored(server, client, value, seconds):
    # As a server sends it: headers are Latin-1, and other characters are sent as UTF-8.
    sent = value.encode().decode("latin-1")
    server.answers = [problem(429, "rate_limited", **{"Retry-After": sent})] * 4
    with pytest.raises(RateLimitedError) as raised:
        client.get("x")
    assert raised.value.retry_after_s == seconds


@pytest.mark.parametrize(("ahead", "seconds"), [(1000, pytest.approx(1000, abs=60)), (-1000, 0.0)])
def test_a_retry_after_that_is_a_date_is_read_as_seconds_from_now(server, client, ahead, seconds):
    server.answers = [problem(429, "rate_limited", **{"Retry-After": date_in(ahead)})] * 4
    with pytest.raises(RateLimitedError) as raised:
        client.get("x")
    assert raised.value.retry_after_s == seconds


def test_a_superscript_two_is_no_number(server, client):
    server.answers = [problem(429, "rate_limited", **{"Retry-After": "²"}), answer(job())]
    assert client.get("x").status == "succeeded"


@pytest.mark.parametrize("body", [{"code": 7, "detail": ["x"], "request_id": {}}, [1], "x", None, {"code": None}])
def test_a_problem_document_of_another_shape_is_an_error_too(server, client, body):
    server.answers = [answer(body, 422)]
    with pytest.raises(APIError) as raised:
        client.get("x")
    assert isinstance(raised.value.code, str)
    assert isinstance(raised.value.detail, str)
    assert raised.value.request_id is None


@pytest.mark.parametrize("job_id", ["../models", "x/cancel", "x?y", "x#y", "a\udcff", "é", "x" * 100_000])
def test_an_id_names_a_job_and_nothing_else(server, client, job_id):
    server.answers = [problem(404, "not_found")]
    with pytest.raises(DeepfakeStreamError):
        client.delete(job_id)
    for request in server.requests:
        assert request.path.startswith("/v1/jobs/")
        assert request.path.count("/") == 3
        assert "?" not in request.path


@pytest.mark.parametrize(
    "options", [{"model": "a\udcff"}, {"url": "https://a.example/\udcff"}, {"metadata": {"a": "\udcff"}}], ids=str
)
def test_options_that_cannot_be_written_are_an_error_of_the_tree(client, options):
    with pytest.raises(DeepfakeStreamError):
        client.submit(**{"url": "https://a.example/x", **options})


@pytest.mark.parametrize(
    "place",
    [
        {},
        {"id": "1", "method": "PUT", "url": "nonsense", "headers": {}},
        {"id": "1", "method": "PUT", "url": "file:///etc/passwd", "headers": {}},
        {"id": "1", "method": "PUT", "url": "https://a.example", "headers": [1]},
        [],
    ],
)
def test_an_invalid_upload_address_is_an_error_of_this_package(server, client, tmp_path, place):
    (tmp_path / "a").write_bytes(b"x")
    server.answers = [answer(place, 201)]
    with pytest.raises(APIError):
        client.submit(tmp_path / "a", direct=True)
    assert len(server.requests) == 1


def test_a_compressed_answer_is_read(server, client):
    server.answers = [(200, {"Content-Encoding": "gzip"}, gzip.compress(json.dumps(job()).encode()))]
    assert client.get("x").status == "succeeded"
