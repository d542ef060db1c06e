"""Paged lists, and jobs with paged segments, also from a service whose pages are inconsistent."""

import io
import itertools
import json
import time
from types import SimpleNamespace

import pytest
from deepfakestream.errors import UnexpectedAnswerError
from deepfakestream.requests import base as base_requests
from deepfakestream.requests import jobs as job_requests
from deepfakestream.tables import print_job
from rich.console import Console

from tests.unit.client.services import answer, cut_off, job, problem
from tests.unit.client.test_client import ASKING, long_job, page, summaries

LONG = json.loads(long_job("failed")[2])
REPEATED = answer({"items": [*summaries(100, 149), *summaries(150, 1)], "next_cursor": None})
UNSORTED = answer({"items": [*summaries(101, 149), *summaries(100, 1)], "next_cursor": None})


@pytest.fixture
def client(server, no_pauses, connect):  # noqa: ARG001 - it changes how the client pauses
    with connect(server.url, "dfs_key", timeout_s=5.0) as connected:
        yield connected


@ASKING
@pytest.mark.parametrize(
    "pages",
    [
        pytest.param([problem(403, "forbidden")], id="refused"),
        pytest.param([problem(404, "not_found")], id="erased meanwhile"),
        pytest.param([problem(429, "rate_limited")] * 4, id="asked too often"),
        pytest.param([cut_off(200)] * 4, id="cut off"),
        pytest.param([page(100, 50, "MTQ5"), problem(403, "forbidden")], id="second one refused"),
        pytest.param([answer({"items": "x"})], id="no list"),
        pytest.param([answer({"items": [{"index": "x"}] * 150, "next_cursor": None})], id="no segments"),
        pytest.param([page(100, 0, "b"), page(100, 0, "OTk"), page(100, 0, "b")], id="empty, with cursors in turn"),
        pytest.param([page(100, 10, "b"), page(110, 10, "OTk"), page(120, 130)], id="a cursor from before"),
        pytest.param([page(100, 149)], id="one too few"),
        pytest.param([page(100, 100, "MTk5"), page(200, 51)], id="one too many"),
        pytest.param([page(99, 150)], id="one of before"),
        pytest.param([REPEATED], id="one repeated"),
        pytest.param([UNSORTED], id="not in order"),
        pytest.param([page(100, 150, "MjQ5"), page(250, 0, "x")], id="never the last page"),
    ],
)
def test_a_job_that_cannot_be_completed_is_returned_unchanged(server, client, ask, pages):
    server.answers = [long_job("cancelled"), *pages]
    found = ask(client)
    assert (found.status, found.segments_next_cursor) == ("cancelled", "OTk")
    assert [segment.index for segment in found.segments] == list(range(100))
    assert (found.raw["segments"], found.raw["segments_next_cursor"]) == (summaries(0, 100), "OTk")
    printed = io.StringIO()
    print_job(Console(file=printed), "x", found)
    assert "and 150 more segments" in printed.getvalue()


@pytest.mark.parametrize("total", [None, 0, 50, 10**30])
def test_a_job_that_announces_another_number_of_segments_is_returned_unchanged(server, client, total):
    progress = {"segments_total": total, "segments_done": 100, "fraction": 1.0}
    server.answers = [answer(LONG | {"progress": progress}), page(100, 150)]
    found = client.get("x")
    assert (len(found.segments), found.segments_next_cursor, found.segments_total) == (100, "OTk", total)


def test_a_job_without_segments_and_with_a_cursor_is_returned_unchanged(server, client):
    document = {name: value for name, value in LONG.items() if name != "segments"}
    server.answers = [answer(document), page(100, 150)]
    found = client.get("x")
    assert (found.segments, found.segments_next_cursor, found.raw) == ((), "OTk", document)


def test_pages_of_segments_are_bounded(server, client, monkeypatch):
    monkeypatch.setattr(job_requests, "MAX_PAGES", 3)
    server.answers = [long_job("failed"), *(page(100 + at, 1, f"c{at}") for at in range(9))]
    assert client.get("x").segments_next_cursor == "OTk"
    assert len(server.requests) == 1 + 3


@pytest.mark.parametrize("status", [429, 503])
def test_waiting_for_pages_ends_in_time_even_if_the_service_requests_longer_pauses(server, status, connect):
    server.answers = [long_job("succeeded"), *[problem(status, "x", **{"Retry-After": "20"})] * 9]
    began = time.monotonic()
    with connect(server.url, "dfs_key") as client:
        found = client.wait("x", timeout_s=1.0)
    assert (found.status, found.segments_next_cursor) == ("succeeded", "OTk")
    assert time.monotonic() - began < 15.0


def test_no_page_is_requested_after_the_timeout(server, client, monkeypatch):
    # Each reading of the clock is a second after the previous one; that of event loops is left alone.
    clock = SimpleNamespace(monotonic=map(float, itertools.count()).__next__)
    for module in (job_requests, base_requests):
        monkeypatch.setattr(module, "time", clock)
    server.answers = [long_job("succeeded"), page(100, 150)]
    assert client.wait("x", timeout_s=0.0).segments_next_cursor == "OTk"
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "pages",
    [
        pytest.param([([], "a"), ([], "b")] * 9, id="empty"),
        pytest.param([([job()], "a"), ([job()], "b")] * 9, id="in turn"),
        pytest.param([([job()], "")] * 9, id="without a name"),
        pytest.param([([job()], ["a"])] * 9, id="no text"),
    ],
)
def test_lists_that_do_not_end_are_an_error(server, client, pages):
    server.answers = [answer({"items": items, "next_cursor": following}) for items, following in pages]
    with pytest.raises(UnexpectedAnswerError, match="do not end"):
        list(client.list())
    assert len(server.requests) <= 3
