"""Requests from web pages of other origins."""

import pytest

PAGE = "https://desk.example"


@pytest.fixture
def api(make_api):
    return make_api(cors_origins=[PAGE, "http://localhost:3000"])


def preflight(api, path, origin, method="POST"):
    asked = {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": "authorization,idempotency-key,prefer",
    }
    return api.call("OPTIONS", path, asked)


@pytest.mark.parametrize("origin", [PAGE, "http://localhost:3000"])
def test_a_listed_page_may_submit_and_read(api, origin):
    answer = preflight(api, "/v1/jobs", origin)
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == origin
    assert {"authorization", "idempotency-key", "prefer"} <= set(
        answer.headers["Access-Control-Allow-Headers"].replace(" ", "").lower().split(",")
    )
    allowed = answer.headers["Access-Control-Allow-Methods"].split(", ")
    used = {method for rule in api.app.url_map.iter_rules() if rule.rule.startswith("/v1/") for method in rule.methods}
    assert set(allowed) == used - {"OPTIONS"}
    key, _ = api.key()
    submitted = api.submit({**key, "Origin": origin})
    assert submitted.status_code == 202
    assert submitted.headers["Access-Control-Allow-Origin"] == origin
    assert "Location" in submitted.headers["Access-Control-Expose-Headers"]
    assert "Origin" in submitted.headers["Vary"]
    assert "Access-Control-Allow-Credentials" not in submitted.headers


@pytest.mark.parametrize(
    "origin",
    [
        "https://other.example",
        "https://deskXexample",
        "https://desk.example.evil.example",
        "http://desk.example",
        "null",
    ],
)
def test_another_page_may_not(api, origin):
    assert "Access-Control-Allow-Origin" not in preflight(api, "/v1/jobs", origin).headers
    key, _ = api.key()
    answer = api.call("GET", "/v1/jobs", {**key, "Origin": origin})
    assert answer.status_code == 200
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_a_refusal_can_be_read_by_the_page(api):
    answer = api.call("GET", "/v1/jobs", {"Origin": PAGE})
    assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (401, PAGE)


def test_nothing_but_the_api_is_open_to_pages(api):
    for path in ("/", "/docs", "/healthz"):
        assert "Access-Control-Allow-Origin" not in api.call("GET", path, {"Origin": PAGE}).headers


def test_an_asterisk_lets_every_page(make_api):
    answer = preflight(make_api(cors_origins=["*"]), "/v1/jobs", "https://any.example")
    assert answer.headers["Access-Control-Allow-Origin"] in ("*", "https://any.example")


def test_without_origins_pages_are_not_answered(make_api):
    answer = preflight(make_api(), "/v1/jobs", PAGE)
    assert answer.status_code == 401
    assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize("origin", ["desk.example", "https://desk.example/", "https://*.example", "", "null"])
def test_an_origin_that_no_page_has_is_refused_as_a_setting(make_api, origin):
    with pytest.raises(ValueError, match="cors_origins"):
        make_api(cors_origins=[origin])
