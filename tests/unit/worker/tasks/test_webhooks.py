import httpx
import pytest
from standardwebhooks import Webhook

from tests.receiver import running_receiver
from tests.retry_after import cases, date_in
from worker.tasks.webhooks import EXCERPT_BYTES, make_attempt, parse_retry_after

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def attempt(url, allow_insecure=True):
    return make_attempt(url, "msg_1", '{"type":"job.succeeded"}', SECRET, 2.0, allow_insecure)


@pytest.mark.parametrize(
    ("status", "delivered", "is_final"),
    [
        (200, True, False),
        (204, True, False),
        (301, False, False),
        (404, False, False),
        (500, False, False),
        (410, False, True),
    ],
)
def test_the_response_status_decides_the_outcome(status, delivered, is_final):
    with running_receiver() as receiver:
        receiver.answers = [(status, {"Location": "/elsewhere"}, b"answer")]
        outcome = attempt(receiver.url)
        assert (outcome.delivered, outcome.is_final, outcome.response_status) == (delivered, is_final, status)
        (request,) = receiver.requests
        Webhook(SECRET).verify(request.body.decode(), {k.lower(): v for k, v in request.headers.items()})


def test_no_more_than_an_excerpt_of_the_answer_is_kept():
    with running_receiver() as receiver:
        receiver.answers = [(500, {}, b"a\0" + b"x" * 100_000)]
        excerpt = attempt(receiver.url).response_excerpt
    assert len(excerpt) <= EXCERPT_BYTES
    assert "\0" not in excerpt


def test_an_unavailable_receiver_is_retried():
    outcome = attempt("http://127.0.0.1:9/")
    assert (outcome.delivered, outcome.is_final, outcome.error_code) == (False, False, "receiver_unreachable")


def test_a_receiver_inside_the_network_is_never_called():
    with running_receiver() as receiver:
        outcome = attempt(receiver.url, allow_insecure=False)
        assert (outcome.is_final, outcome.error_code) == (True, "forbidden_url")
        assert receiver.requests == []


@cases()
def test_retry_after_is_seconds_or_a_date_or_is_ignored(value, seconds):
    with running_receiver() as receiver:
        # As a server sends it: headers are Latin-1, and what does not fit is UTF-8.
        receiver.answers = [(503, {"Retry-After": value.encode().decode("latin-1")}, b"")]
        outcome = attempt(receiver.url)
    assert (outcome.response_status, outcome.error_code) == (503, "receiver_refused")
    assert outcome.retry_after_s == seconds


def test_retry_after_is_a_date():
    assert parse_retry_after(httpx.Response(503, headers={"retry-after": date_in(90)})) == pytest.approx(90, abs=10)
