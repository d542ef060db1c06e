"""Authorisation of every route with every kind of caller. A route that is missing here fails."""

import re
import uuid
from datetime import UTC, datetime

import pytest

from api.keys import revoke_key
from shared.models import Delivery
from tests.clips import noise_picture
from tests.integration.api.conftest import api_maker

OPEN = {
    ("GET", "/"),
    ("GET", "/docs"),
    # Without figures: its script asks for them with a key.
    ("GET", "/inputs"),
    ("GET", "/livez"),
    ("GET", "/metrics"),
    ("GET", "/openapi.json"),
    ("GET", "/readyz"),
    ("GET", "/swagger"),
    ("GET", "/oauth2-redirect.html"),
}
"""Routes without a key; metrics have their own rule."""
LINKED = {
    ("GET", "/jobs/<uuid:job_id>/report"),
    ("GET", "/jobs/<uuid:job_id>/report/events"),
    ("GET", "/jobs/<uuid:job_id>/report/explanations"),
    ("GET", "/jobs/<uuid:job_id>/report/explanations/person-0-crop.webp"),
    ("GET", "/jobs/<uuid:job_id>/report/live"),
    ("GET", "/jobs/<uuid:job_id>/report/live/faces/7"),
    ("GET", "/jobs/<uuid:job_id>/report/live/state"),
    ("GET", "/jobs/<uuid:job_id>/report/media"),
    ("GET", "/jobs/<uuid:job_id>/report/pdf"),
    ("GET", "/jobs/<uuid:job_id>/report/state"),
    ("PUT", "/v1/uploads/<string:upload_id>/content"),
}
"""Routes that need the token of a link instead of a key; see test_reports.py and test_received_uploads.py."""
GUARDED = {
    # Route → required scope, status for the owner, status for another owner.
    ("POST", "/v1/jobs"): ("jobs:write", 202, 202),
    ("GET", "/v1/jobs"): ("jobs:read", 200, 200),
    ("GET", "/v1/jobs/{job}"): ("jobs:read", 200, 404),
    ("GET", "/v1/jobs/{job}/segments"): ("jobs:read", 200, 404),
    ("GET", "/v1/jobs/{job}/deliveries"): ("jobs:read", 200, 404),
    ("POST", "/v1/jobs/{job}/deliveries/7/redeliver"): ("jobs:write", 202, 404),
    ("POST", "/v1/jobs/{job}/cancel"): ("jobs:write", 200, 404),
    ("DELETE", "/v1/jobs/{job}"): ("jobs:write", 204, 404),
    # The job has not ended, so there is nothing to compare and nothing to review.
    ("GET", "/v1/jobs/{job}/diff/{job}"): ("jobs:read", 409, 404),
    ("PUT", "/v1/jobs/{job}/review"): ("jobs:write", 409, 404),
    ("DELETE", "/v1/jobs/{job}/review"): ("jobs:write", 204, 404),
    ("GET", "/v1/jobs/{job}/report.html"): ("jobs:read", 200, 404),
    ("GET", "/v1/jobs/{job}/report.pdf"): ("jobs:read", 200, 404),
    ("GET", "/v1/jobs/{job}/shares"): ("jobs:read", 200, 404),
    ("POST", "/v1/jobs/{job}/shares"): ("jobs:write", 201, 404),
    ("DELETE", "/v1/jobs/{job}/shares/{job}"): ("jobs:write", 404, 404),
    ("POST", "/v1/jobs/{job}/rescore"): ("jobs:write", 202, 404),
    # The job has not succeeded, so there is nothing to explain; see tests/e2e/test_explanations.py.
    ("POST", "/v1/jobs/{job}/explanations"): ("jobs:write", 409, 404),
    ("GET", "/v1/jobs/{job}/explanations"): ("jobs:read", 404, 404),
    ("GET", "/v1/jobs/{job}/explanations/person-0-crop.webp"): ("jobs:read", 404, 404),
    ("POST", "/v1/batches"): ("jobs:write", 202, 202),
    ("GET", "/v1/batches"): ("jobs:read", 200, 200),
    ("GET", "/v1/batches/{batch}"): ("jobs:read", 200, 404),
    ("GET", "/v1/batches/{batch}/results.csv"): ("jobs:read", 200, 404),
    ("POST", "/v1/batches/{batch}/cancel"): ("jobs:write", 200, 404),
    ("DELETE", "/v1/batches/{batch}"): ("jobs:write", 204, 404),
    ("POST", "/v1/streams"): ("jobs:write", 202, 202),
    ("GET", "/v1/streams"): ("jobs:read", 200, 200),
    ("GET", "/v1/streams/{stream}"): ("jobs:read", 200, 404),
    ("GET", "/v1/streams/{stream}/events"): ("jobs:read", 200, 404),
    # No face is kept; see test_live_pages.py.
    ("GET", "/v1/streams/{stream}/faces/7"): ("jobs:read", 404, 404),
    ("GET", "/v1/streams/{stream}/recordings"): ("jobs:read", 200, 404),
    # Nothing of it was recorded; see test_streams.py.
    ("GET", "/v1/streams/{stream}/recordings/7"): ("jobs:read", 404, 404),
    ("POST", "/v1/streams/{stream}/stop"): ("jobs:write", 200, 404),
    ("DELETE", "/v1/streams/{stream}"): ("jobs:write", 204, 404),
    ("GET", "/v1/models"): ("jobs:read", 200, 200),
    # Of the caller's owner only; see test_usage.py.
    ("GET", "/v1/usage"): ("jobs:read", 200, 200),
    # Sums over all owners, for operators.
    ("GET", "/v1/inputs.html"): ("admin", 200, 200),
    # The job has not ended, and the service has no key; other tests get bundles.
    ("GET", "/v1/jobs/{job}/evidence.zip"): ("jobs:read", 409, 404),
    ("GET", "/v1/evidence-key"): ("jobs:read", 409, 409),
    ("POST", "/v1/uploads"): ("jobs:write", 201, 201),
}
STREAM = {"url": "https://cameras.example/live.m3u8"}
BATCH = {"items": [{"url": "https://files.example/clip.mp4"}]}
CALLERS = ("nobody", "wrong key", "revoked key", "wrong scope", "other owner", "owner", "admin")


@pytest.fixture(scope="module")
def api(postgres_url, template_url, tmp_path_factory):
    """One for all tests, each of which has owners of its own."""
    with api_maker(postgres_url, template_url, tmp_path_factory.mktemp("storage")) as make:
        yield make(submissions_per_minute=100_000, refusals_per_minute=100_000, max_open_jobs=100_000)


@pytest.fixture
def owner():
    """Return the name of an owner who has nothing yet."""
    return f"owner {uuid.uuid4()}"


@pytest.fixture
def job(api, owner):
    """Return a job of the owner that has ended and has a delivery."""
    headers, _ = api.key(owner)
    made = api.submit(headers, noise_picture(1), query_string={"webhook_url": "https://receiver.example/"})
    job_id = made.json["id"]
    with api.sessions.transaction() as session:
        session.add(
            Delivery(
                job_id=uuid.UUID(job_id),
                number=7,
                event_id="msg_1",
                event="job.succeeded",
                url="https://receiver.example/",
                status="failed",
                finished_at=datetime.now(UTC),
            )
        )
    return job_id


@pytest.fixture
def stream(api, owner):
    """Return a stream of the owner that has ended; tests of streams follow one that has not."""
    headers, _ = api.key(owner)
    stream_id = api.call("POST", "/v1/streams", headers, json=STREAM).json["id"]
    assert api.call("POST", f"/v1/streams/{stream_id}/stop", headers).status_code == 200
    return stream_id


@pytest.fixture
def batch(api, owner):
    """Return a batch of the owner with a job."""
    headers, _ = api.key(owner)
    return api.call("POST", "/v1/batches", headers, json=BATCH).json["id"]


def headers_of(api, owner, kind, scope):
    if kind == "nobody":
        return {}
    if kind == "wrong key":
        return {"Authorization": "Bearer dfs_" + "x" * 43}
    if kind == "revoked key":
        headers, row = api.key(owner, scope)
        with api.sessions.transaction() as session:
            assert revoke_key(session, row.id)
        return headers
    if kind == "admin":
        return api.key(owner, "admin")[0]
    other_scope = {"jobs:read": "jobs:write", "jobs:write": "jobs:read", "admin": "jobs:read"}[scope]
    owner = f"not {owner}" if kind == "other owner" else owner
    return api.key(owner, other_scope if kind == "wrong scope" else scope)[0]


@pytest.mark.parametrize("kind", CALLERS)
@pytest.mark.parametrize("route", GUARDED, ids=lambda route: f"{route[0]} {route[1]}")
def test_each_caller_gets_the_expected_status(api, owner, request, route, kind):
    method, path = route
    scope, for_owner, for_others = GUARDED[route]
    known = {name: request.getfixturevalue(name) for name in ("batch", "job", "stream") if f"{{{name}}}" in path}
    wanted = {
        "nobody": 401,
        "wrong key": 401,
        "revoked key": 401,
        "wrong scope": 403,
        "other owner": for_others,
        "owner": for_owner,
        "admin": for_owner,
    }[kind]
    headers = headers_of(api, owner, kind, scope)
    given = {"data": noise_picture(2)} if path == "/v1/jobs" and method == "POST" else {}
    if given:
        headers = {**headers, "Content-Type": "image/jpeg"}
    bodies = {"uploads": {"size_bytes": 1}, "rescore": {}, "shares": {}, "review": {"finding": "disputed"}}
    bodies |= {"streams": STREAM, "batches": BATCH}
    if method not in ("DELETE", "GET") and path.rpartition("/")[2] in bodies:
        given = {"json": bodies[path.rpartition("/")[2]]}
    stored = len(api.files())
    answer = api.call(method, path.format(**known), headers, **given)
    assert answer.status_code == wanted, answer.text
    if wanted in (401, 403, 404):
        for secret in known.values():
            assert secret not in re.sub(f"there is no (batch|job) {secret}", "", answer.text)
        assert len(api.files()) == stored
    if kind == "other owner" and path in ("/v1/jobs", "/v1/streams") and method == "GET":
        assert answer.json["items"] == []


def test_every_route_is_tested(api):
    rows = set()
    for rule in api.app.url_map.iter_rules():
        if "<path:filename>" in rule.rule:  # Files of the documentation page.
            continue
        path = (
            re.sub("<string:(job|other|share)_id>", "{job}", rule.rule)
            .replace("<int:number>", "7")
            .replace("<int:index>", "7")
            .replace("<int:person>", "7")
        )
        path = (
            path.replace("<string:stream_id>", "{stream}")
            .replace("<string:batch_id>", "{batch}")
            .replace("<string:name>", "person-0-crop.webp")
        )
        rows |= {(method, path) for method in rule.methods - {"HEAD", "OPTIONS"}}
    assert rows == OPEN | LINKED | set(GUARDED)


@pytest.mark.parametrize("route", sorted(OPEN), ids=lambda route: route[1])
def test_open_routes_need_no_key(api, route):
    assert api.call(*route, {}).status_code < 400
