"""Every route refuses options that it does not have, and names those that it has."""

import io
import re

import pytest

from tests.clips import noise_picture

LEFT_OUT = ("openapi.", "swagger.", "web.", "static", "docs")
"""Endpoints of pages and files."""


def routes(api):
    """(method, path with ids filled in) of every route but pages."""
    for rule in api.app.url_map.iter_rules():
        if not rule.endpoint.startswith(LEFT_OUT) or rule.rule == "/openapi.json":
            path = re.sub("<int:[a-z]+>", "7", rule.rule)
            path = re.sub("<[^>]+>", "01a21db6-8ff1-7c4c-b05f-d3c74dc15979", path)
            for method in sorted(rule.methods - {"HEAD", "OPTIONS"}):
                yield method, path


def test_every_route_refuses_an_unknown_option(api):
    auth, _ = api.key("owner", "admin")
    found = list(routes(api))
    assert ("GET", "/v1/models") in found
    assert ("GET", "/livez") in found
    for method, path in found:
        answer = api.call(method, f"{path}?colour=red", auth)
        assert (answer.status_code, answer.json["code"]) == (422, "unknown_option"), (method, path)
        assert answer.json["detail"].startswith("unknown option 'colour' in the query; th")
        assert answer.json["errors"] == [{"name": "colour", "detail": "unknown option"}]


@pytest.mark.parametrize(
    ("method", "path", "said"),
    [
        ("GET", "/v1/models?a=1", "this request takes none"),
        ("GET", "/v1/jobs?order=up", "takes limit, cursor, status, created_after, created_before"),
        ("POST", "/v1/jobs?url=https://a.example/x", 'send it in a JSON object as application/json: {"url": '),
        ("POST", "/v1/jobs?file=a.mp4", "send the file as the body, or in the field 'file'"),
    ],
)
def test_the_sentence_names_what_the_route_takes(api, headers, method, path, said):
    assert said in api.call(method, path, headers).json["detail"]


def test_pages_for_people_accept_what_chat_programs_add_to_links(api):
    assert api.call("GET", "/?utm_source=mail", {}).status_code == 200
    assert api.call("GET", "/swagger?utm_source=mail", {}).status_code == 200
    assert api.call("GET", "/openapi.json?utm_source=mail", {}).status_code == 422


def test_an_unknown_address_is_not_found_whatever_its_query(api, headers):
    assert api.call("GET", "/v1/nothing?a=1", headers).status_code == 404


AS_JSON = '": "…"} as application/json'


def form(api, auth, data):
    return api.call("POST", "/v1/jobs", auth, data=data, content_type="multipart/form-data")


@pytest.mark.parametrize(
    ("data", "code", "said"),
    [
        ({"url": "https://a.example/x.mp4"}, "missing_file", AS_JSON),
        ({"upload_id": "x"}, "missing_file", AS_JSON),
        ({"url": "https://a.example/x", "file": (io.BytesIO(noise_picture()), "a.jpg")}, "unknown_option", AS_JSON),
        ({"file": "clip.mp4"}, "missing_file", "-F file=@clip.mp4"),
        ({"image": (io.BytesIO(noise_picture()), "a.jpg")}, "missing_file", "the file is in the field 'image'"),
        ({}, "missing_file", "the form has no file in a field named 'file'"),
    ],
    ids=["url", "upload", "url and file", "name of a file", "another field", "nothing"],
)  # fmt: skip
def test_a_form_with_a_common_mistake_is_told_what_to_send(api, headers, data, code, said):
    answer = form(api, headers, data or {"sample_fps": "1"})
    assert (answer.status_code, answer.json["code"]) == (422, code)
    assert said in answer.json["detail"]
    assert api.files() == []


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "has neither 'url' nor 'upload_id'"),
        ({"file": "aGVsbG8="}, "a JSON object takes no file"),
        ({"url": "https://a.example/x", "upload_id": "01a21db6-8ff1-7c4c-b05f-d3c74dc15979"}, "give one of them"),
    ],
    ids=["nothing", "file", "both"],
)
def test_a_json_object_with_a_common_mistake_is_told_what_to_send(api, headers, body, said):
    answer = api.call("POST", "/v1/jobs", headers, json=body)
    assert (answer.status_code, answer.json["code"]) == (422, "invalid_request")
    assert said in answer.json["detail"]


def test_a_form_of_text_is_told_what_to_send(api, headers):
    kind = "application/x-www-form-urlencoded"
    answer = api.call("POST", "/v1/jobs", headers, data="url=https://a.example/x", content_type=kind)
    assert (answer.status_code, answer.json["code"]) == (415, "unsupported_media_type")
    assert "curl -d and --data-binary send" in answer.json["detail"]
    assert "--json" in answer.json["detail"]


def test_a_wrong_address_or_method_is_told_the_right_one(api, headers):
    wrong = api.call("GET", "/v1/jobs/", headers)
    assert (wrong.status_code, wrong.json["code"]) == (404, "not_found")
    assert "end without a slash" in wrong.json["detail"]
    wrong = api.call("PUT", "/v1/jobs", headers)
    assert wrong.json["detail"] == "this address does not take PUT; it takes GET, POST"
