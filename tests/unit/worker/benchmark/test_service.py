"""What the service's benchmark does when the service is busy, against a real HTTP server with scripted answers."""

import json
from contextlib import closing, contextmanager

import pytest

from tests.receiver import running_receiver
from worker.benchmark import service
from worker.benchmark.errors import BenchmarkError
from worker.benchmark.service import APIConnection, BusyError, measure_submissions_per_s

BUSY = (503, {"Retry-After": "0"}, {"code": "too_many_uploads"})


@contextmanager
def answering(*refusals, jobs=1):
    """Answer submissions with *refusals* in turn, then with *jobs* jobs; give the address and what came."""
    answers = [*refusals, *((202, {}, {"id": f"job-{number}"}) for number in range(jobs))]
    with running_receiver() as server:
        server.answers += [(status, headers, json.dumps(document).encode()) for status, headers, document in answers]
        yield server.url, server.requests


def sent(requests):
    return [one.body for one in requests if one.method == "POST"]


def test_a_submission_is_sent_again_when_the_service_was_busy():
    with answering(BUSY, BUSY) as (url, requests), closing(APIConnection(url, "key")) as api:
        assert api.submit(b"picture") == "job-0"
        assert (sent(requests), api.refusals) == ([b"picture"] * 3, 2)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ((503, {"Retry-After": "10"}, {"code": "too_many_uploads"}), BusyError),
        ((503, {}, {"code": "too_many_uploads"}), BenchmarkError),
        ((503, {"Retry-After": "0"}, {"code": "service_unavailable"}), BenchmarkError),
        ((429, {"Retry-After": "0"}, {"code": "rate_limited"}), BenchmarkError),
    ],
    ids=["for too long", "for an unknown time", "a database that is away", "a rate"],
)
def test_a_submission_that_is_refused_otherwise_ends_the_benchmark(monkeypatch, answer, kind):
    monkeypatch.setattr(service, "TIMEOUT_S", 5.0)
    with answering(answer) as (url, requests), closing(APIConnection(url, "key")) as api:
        with pytest.raises(kind, match=answer[2]["code"]):
            api.submit(b"picture")
        assert len(sent(requests)) == 1


def test_the_rate_is_of_all_submissions_and_says_how_many_were_refused_at_first():
    with answering(BUSY, jobs=6) as (url, requests):
        rate, refusals = measure_submissions_per_s(url, "key", 6, 4)
    assert rate > 0.0
    assert (refusals, len(sent(requests))) == (1, 7)
    assert len(set(sent(requests))) == 6
