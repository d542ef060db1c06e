"""Rate limits, quotas and capacity, with a real database and Redis."""

import threading
from io import RawIOBase

import pytest

from tests.clips import noise_picture


def refused(answer, status, code):
    assert answer.status_code == status, answer.text
    assert answer.json["code"] == code
    if status in (429, 503):
        assert 1 <= int(answer.headers["Retry-After"]) <= 61
    else:
        assert "Retry-After" not in answer.headers
    return True


def test_retry_after_is_sent_only_for_temporary_refusals(make_api):
    api = make_api(max_open_jobs=1, max_open_jobs_per_owner=1, requests_per_minute=1)
    (auth, _), (other, _) = api.key(), api.key("another")
    accepted = api.submit(auth)
    job = accepted.headers["Location"]
    others = [
        (accepted, 202),
        (api.call("GET", job, auth), 200),
        (api.call("GET", "/v1/models", auth), 200),
        (api.call("GET", f"{job}0/segments", auth), 422),
        (api.call("GET", "/nowhere", auth), 404),
        (api.call("GET", "/v1/jobs", {}), 401),
        (api.call("GET", "/livez", {}), 200),
    ]
    for answer, status in others:
        assert (answer.status_code, answer.headers.get("Retry-After")) == (status, None)
    # Retry-After of a refusal differs from the end of the rate limit's window.
    assert api.submit(auth).headers["Retry-After"] == api.submit(other).headers["Retry-After"] == "15"
    assert refused(api.call("GET", job, auth), 429, "rate_limited")


def test_a_key_over_its_rate_limit_does_not_affect_others(make_api):
    api = make_api(requests_per_minute=3)
    (auth, _), (other, _) = api.key(), api.key("another")
    answers = [api.call("GET", "/v1/jobs", auth) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert refused(answers[3], 429, "rate_limited")
    assert answers[0].headers["X-RateLimit-Limit"] == "3"
    assert answers[0].headers["X-RateLimit-Remaining"] == "2"
    assert api.call("GET", "/v1/jobs", other).status_code == 200
    assert api.call("GET", "/livez", auth).status_code == 200


def test_submissions_have_a_separate_rate_limit(make_api):
    api = make_api(requests_per_minute=100, submissions_per_minute=2)
    auth, _ = api.key()
    assert [api.submit(auth).status_code for _ in range(3)] == [202, 202, 429]
    assert api.call("GET", "/v1/jobs", auth).status_code == 200


def test_an_address_with_many_invalid_keys_is_blocked_for_a_while(make_api):
    api = make_api(refusals_per_minute=3)
    auth, _ = api.key()
    for number in range(3):
        wrong = {"Authorization": f"Bearer dfs_{number}"}
        assert refused(api.call("GET", "/v1/jobs", wrong, "192.0.2.7"), 401, "unauthenticated")
    assert refused(api.call("GET", "/v1/jobs", {"Authorization": "Bearer dfs_9"}, "192.0.2.7"), 429, "rate_limited")
    assert refused(api.call("GET", "/v1/jobs", auth, "192.0.2.7"), 429, "rate_limited")
    assert api.call("GET", "/v1/jobs", auth, "192.0.2.8").status_code == 200


def test_requests_with_a_valid_key_do_not_count_as_refusals(make_api):
    api = make_api(refusals_per_minute=2)
    auth, _ = api.key()
    assert [api.call("GET", "/v1/jobs", auth).status_code for _ in range(6)] == [200] * 6


def test_behind_a_proxy_the_address_of_the_client_counts(make_api):
    api = make_api(refusals_per_minute=1, trusted_proxies=1)
    wrong = {"Authorization": "Bearer dfs_0"}
    for address in ("192.0.2.1", "192.0.2.2"):
        # Values that the client sends itself come before the one that the proxy appends.
        headers = wrong | {"X-Forwarded-For": f"198.51.100.1, {address}"}
        assert [api.call("GET", "/v1/jobs", headers).status_code for _ in range(2)] == [401, 429]


def test_without_redis_requests_are_answered_and_limited(make_api):
    api = make_api(requests_per_minute=4)
    auth, _ = api.key()
    assert api.call("GET", "/v1/jobs", auth).status_code == 200
    api.redis.stop()
    answers = [api.call("GET", "/v1/jobs", auth).status_code for _ in range(6)]
    assert answers == [200, 200, 200, 200, 429, 429]


def test_the_number_of_open_jobs_is_limited(make_api):
    api = make_api(max_open_jobs=2)
    (auth, _), (other, _) = api.key(), api.key("another")
    first = api.submit(auth, noise_picture(1))
    assert api.submit(other, noise_picture(2)).status_code == 202
    stored = len(api.files())
    for headers in (auth, other):
        assert refused(api.submit(headers, noise_picture(3)), 503, "overloaded")
    assert len(api.files()) == stored
    assert api.call("POST", f"/v1/jobs/{first.json['id']}/cancel", auth).status_code == 200
    assert api.submit(other, noise_picture(3)).status_code == 202


def test_a_repeated_request_is_answered_even_over_the_limit(make_api):
    api = make_api(max_open_jobs=1, max_stored_bytes_per_owner=1)
    auth, _ = api.key()
    once = {**auth, "Idempotency-Key": "once"}
    first, again = api.submit(once), api.submit(once)
    assert (first.status_code, again.status_code) == (202, 202)
    assert again.json["id"] == first.json["id"]
    assert api.submit({**auth, "Idempotency-Key": "another"}).status_code == 503


def test_the_open_jobs_of_an_owner_are_limited(make_api):
    api = make_api(max_open_jobs=10, max_open_jobs_per_owner=2)
    (auth, _), (other, _) = api.key(), api.key("another")
    assert [api.submit(auth, noise_picture(number)).status_code for number in range(3)] == [202, 202, 429]
    assert refused(api.submit(auth), 429, "too_many_open_jobs")
    assert api.submit(other).status_code == 202


def test_the_stored_bytes_of_an_owner_are_limited(make_api):
    api = make_api(max_stored_bytes_per_owner=len(noise_picture(1)))
    (auth, _), (other, _) = api.key(), api.key("another")
    first = api.submit(auth, noise_picture(1))
    assert refused(api.submit(auth, noise_picture(2)), 403, "storage_quota_exceeded")
    assert api.submit(other, noise_picture(2)).status_code == 202
    assert api.call("DELETE", f"/v1/jobs/{first.json['id']}", auth).status_code == 204
    assert api.submit(auth, noise_picture(2)).status_code == 202


class SlowBody(RawIOBase):
    """A body that stops after its first half, signals that, and continues when it is allowed to."""

    def __init__(self, data):
        self.begun, self.go_on = threading.Event(), threading.Event()
        self._data, self._half, self._place = data, len(data) // 2, 0

    def readable(self):
        return True

    def readinto(self, buffer):
        if self._place >= self._half:
            self.begun.set()
            self.go_on.wait(30)
        block = self._data[self._place : self._place + min(len(buffer), self._half, 65536)]
        buffer[: len(block)] = block
        self._place += len(block)
        return len(block)


@pytest.fixture
def large_picture():
    """Return a JPEG with so much trailing data that it counts as a large upload."""
    return noise_picture(7) + b"\0" * 2 * 1024 * 1024


@pytest.mark.parametrize("is_small", [False, True], ids=["large", "small"])
def test_slow_uploads_leave_threads_for_others(make_api, large_picture, is_small):
    api = make_api(max_uploads=1)
    auth, _ = api.key()
    slow, quick = (noise_picture(7), large_picture) if is_small else (large_picture, noise_picture(8))
    body, answers = SlowBody(slow), []

    def upload():
        headers = {**auth, "Content-Type": "image/jpeg"}
        given = {"wsgi.input": body, "CONTENT_LENGTH": str(len(slow))}
        answers.append(api.call("POST", "/v1/jobs", headers, environ_overrides=given))

    thread = threading.Thread(target=upload)
    thread.start()
    assert body.begun.wait(30)
    assert refused(api.submit(auth, slow), 503, "too_many_uploads")
    assert api.submit(auth, quick).status_code == 202
    assert api.call("GET", "/v1/jobs", auth).status_code == 200
    body.go_on.set()
    thread.join(60)
    assert answers[0].status_code == 202
    assert api.submit(auth, slow + b"\0").status_code == 202


@pytest.mark.parametrize("path", ["/v1/jobs", "/livez", "/openapi.json", "/swagger", "/nowhere"])
def test_every_response_has_security_headers(make_api, path):
    headers = make_api().call("GET", path, {}).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]


def test_metrics_need_loopback_or_a_token(make_api):
    api = make_api()
    assert api.call("GET", "/metrics", {}).status_code == 200
    assert api.call("GET", "/metrics", {}, "192.0.2.1").status_code == 404
    assert make_api(trusted_proxies=1).call("GET", "/metrics", {"X-Forwarded-For": "nonsense:1"}).status_code == 404
    api = make_api(metrics_token="open-sesame")
    assert api.call("GET", "/metrics", {}).status_code == 404
    assert api.call("GET", "/metrics", {"Authorization": "Bearer open"}).status_code == 404
    token = {"Authorization": "Bearer open-sesame"}
    assert api.call("GET", "/metrics", token, "192.0.2.1").status_code == 200
