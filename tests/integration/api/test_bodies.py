"""Bodies of submissions: which are refused, when, and that nothing of them is kept."""

import io
import json
import socket
from http.client import HTTPResponse

import pytest
from sqlalchemy.exc import DataError, IntegrityError, OperationalError

from api.uploads import receive_body
from shared.config import StorageSettings
from shared.db import UnconfirmedCommitError
from shared.storage import open_storage
from tests.clips import noise_picture

NOT_FINITE = ['{"a": 1e999}', '{"a": [{"b": -1e999}]}', '{"a": NaN}', '{"a": Infinity}']
NO_TEXT = [r'{"a": "\u0000"}', r'{"\u0000": 1}', r'{"a": [{"b\u0000": 1}]}', r'{"a": "\ud800"}', r'{"\udfff": 1}']
TOO_MUCH = ['{"a": 1' + "0" * 5000 + "}", '{"a": ' + "[" * 150 + "]" * 150 + "}"]
REFUSED = [*NOT_FINITE, *NO_TEXT, *TOO_MUCH]
KEPT = [
    {"a": "\\u0000"},
    {"\\u0000": ["\\\\u0000", "u0000"]},
    {"a": 1.5e10, "b": [[[[-0.5]]]], "c": None},
    {"ü": "ß"},
]


@pytest.fixture(scope="module")
def key(stack):
    return stack.api_key_file.read_text().strip()


def send_form(api, headers, fields, *, file_first):
    parts = {"file": (noise_file(), "a.jpg")}
    data = {**parts, **fields} if file_first else {**fields, **parts}
    return api.call("POST", "/v1/jobs", headers, data=data, content_type="multipart/form-data")


def noise_file():
    return io.BytesIO(noise_picture())


def test_metadata_that_cannot_be_stored_is_refused_and_leaves_no_file(make_api):
    api = make_api()
    auth, _ = api.key()
    for metadata in REFUSED:
        as_json = f'{{"url": "https://a.example/x", "metadata": {metadata}}}'
        for answer in (
            send_form(api, auth, {"metadata": metadata}, file_first=True),
            send_form(api, auth, {"metadata": metadata}, file_first=False),
            api.submit(auth, query_string={"metadata": metadata}),
            api.call("POST", "/v1/jobs", auth, data=as_json, content_type="application/json"),
        ):
            assert answer.status_code in (400, 422), (metadata, answer.text)
            assert answer.json["code"] in ("invalid_request", "bad_request"), (metadata, answer.text)
        assert api.files() == [], metadata
    assert api.call("GET", "/v1/jobs", auth).json["items"] == []


def test_metadata_is_returned_unchanged(make_api):
    api = make_api()
    auth, _ = api.key()
    for metadata in KEPT:
        for answer in (
            send_form(api, auth, {"metadata": json.dumps(metadata)}, file_first=False),
            api.submit(auth, query_string={"metadata": json.dumps(metadata)}),
            api.call("POST", "/v1/jobs", auth, json={"url": "https://a.example/x", "metadata": metadata}),
        ):
            assert answer.status_code == 202, (metadata, answer.text)
            again = api.call("GET", answer.headers["Location"], auth)
            assert again.json["metadata"] == answer.json["metadata"] == metadata


@pytest.mark.parametrize(
    ("error", "stays"),
    [
        (DataError("insert", {}, Exception()), False),
        (IntegrityError("insert", {}, Exception()), False),
        (OperationalError("insert", {}, Exception()), False),
        (UnconfirmedCommitError("commit"), True),
    ],
    ids=["refused value", "broken rule", "lost before the commit", "lost answer to the commit"],
)
def test_a_file_stays_only_if_its_job_may_have_been_committed(make_api, tmp_path, error, stays):
    app = make_api().app
    storage = open_storage(StorageSettings(url=f"file://{tmp_path}/kept"))
    with (
        app.test_request_context("/v1/jobs", method="POST", data=noise_picture(), content_type="image/jpeg") as context,
        pytest.raises(type(error)),
        receive_body(context.request, storage, 10**7),
    ):
        raise error
    assert bool([path for path in (tmp_path / "kept").rglob("*") if path.is_file()]) is stays


def part(name, value):
    return f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()


FILE = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
BAD_FIELDS = {
    "model": (part("model", "nope"), "unknown_model"),
    "option": (part("sample_fps", "0"), "invalid_request"),
    "unknown": (part("colour", "red"), "unknown_option"),
    "webhook": (part("webhook_url", "ftp://a/"), "forbidden_url"),
    "metadata": (part("metadata", '{"a": 1e999}'), "invalid_request"),
    "twice": (part("model", "swap-lite0") * 2, "invalid_request"),
    "file without a name": (part("file", "x"), "missing_file"),
}


def connect(stack):
    return socket.create_connection(("127.0.0.1", int(stack.url.rpartition(":")[2])), timeout=20)


def head_of(key, path, kind, length="Transfer-Encoding: chunked"):
    lines = (
        f"POST {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\nContent-Type: {kind}\r\n{length}\r\n\r\n"
    )
    return lines.encode()


def answer_to_a_part(stack, key, path, sent, kind="multipart/form-data; boundary=b"):
    """Send only *sent* of a request of 50 MiB, and return status and document of the response."""
    with connect(stack) as connection:
        connection.sendall(head_of(key, path, kind, f"Content-Length: {50 * 1024**2}") + sent)
        with HTTPResponse(connection) as answer:
            answer.begin()
            return answer.status, json.loads(answer.read())


@pytest.mark.parametrize("case", BAD_FIELDS)
def test_fields_before_the_file_are_checked_before_it_is_read(stack, key, case):
    fields, code = BAD_FIELDS[case]
    status, document = answer_to_a_part(stack, key, "/v1/jobs", fields + FILE + noise_picture()[:8192])
    assert (status, document["code"]) == (422, code)


def test_an_option_in_query_and_form_is_refused_before_the_file_is_read(stack, key):
    sent = part("model", "swap-lite0") + FILE + noise_picture()[:8192]
    status, document = answer_to_a_part(stack, key, "/v1/jobs?model=swap-lite0", sent)
    assert status == 422
    assert "both in the query and in the body" in document["detail"]


@pytest.mark.parametrize("name", ["other", ""])
def test_a_file_in_another_field_is_not_read(stack, key, name):
    sent = FILE.replace(b'"file"', f'"{name}"'.encode()) + noise_picture()[:8192]
    assert answer_to_a_part(stack, key, "/v1/jobs", sent)[1]["code"] == "missing_file"


@pytest.mark.parametrize(
    "query", ["sample_fps=0", "metadata=%7B%22a%22%3A1e999%7D", "webhook_url=https://u:p@a.example/", "model=nope"]
)
def test_options_in_the_query_are_checked_before_the_body(stack, key, query):
    assert answer_to_a_part(stack, key, f"/v1/jobs?{query}", b"", "video/mp4")[0] == 422


BROKEN_CHUNKS = {
    "size": b"zz\r\nabc\r\n0\r\n\r\n",
    "end": b"3\r\nabcX\r\n0\r\n\r\n",
    "extension": b"3;=\r\nabc\r\n0\r\n\r\n",
    "trailer": b"3\r\nabc\r\n0\r\nno colon\r\n\r\n",
    "long size": b"0" * 9000,
}


@pytest.mark.parametrize(
    ("case", "path", "kind"),
    [
        *[pytest.param(case, "/v1/jobs", "video/mp4", id=f"{case} of a file") for case in BROKEN_CHUNKS],
        pytest.param("size", "/v1/jobs", "application/json", id="size of an object"),
        pytest.param("size", "/v1/jobs", "multipart/form-data; boundary=b", id="size of a form"),
        pytest.param("size", "/v1/uploads", "application/json", id="size of another call"),
    ],
)
def test_a_malformed_chunk_is_a_bad_request_and_closes_the_connection(stack, key, case, path, kind):
    # The following bytes must not be read as another request.
    sent = BROKEN_CHUNKS[case] + b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"
    before = set(stack.state.glob("storage/media/*"))
    with connect(stack) as connection:
        connection.sendall(head_of(key, path, kind) + sent)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 400 "), answer
    assert b'"code": "bad_request"' in answer
    assert answer.count(b"HTTP/1.1 ") == 1
    assert set(stack.state.glob("storage/media/*")) == before


def test_an_incomplete_form_is_a_bad_request(make_api):
    api = make_api()
    auth, _ = api.key()
    whole = part("sample_fps", "1") + FILE + noise_picture() + b"\r\n--b--\r\n"
    given = {"content_type": "multipart/form-data; boundary=b"}
    assert api.call("POST", "/v1/jobs", auth, data=whole, **given).status_code == 202
    stored = api.files()
    for cut in (whole[: len(whole) // 2], whole[:30], whole.replace(b"Content-Disposition", b"X")):
        answer = api.call("POST", "/v1/jobs", auth, data=cut, **given)
        assert (answer.status_code, answer.json["code"]) == (400, "bad_request")
    answer = api.call("POST", "/v1/jobs", auth, data=whole, content_type="multipart/form-data")
    assert (answer.status_code, answer.json["code"]) == (400, "bad_request")
    assert api.files() == stored


def test_other_endpoints_accept_no_form(make_api):
    api = make_api()
    auth, _ = api.key()
    answer = api.call("POST", "/v1/uploads", auth, data={"file": (noise_file(), "a.jpg")})
    assert answer.status_code in (415, 422)


def test_a_connection_is_reused_after_a_form(stack, key):
    body = part("sample_fps", "1") + FILE + noise_picture() + b"\r\n--b--\r\n"
    head = head_of(key, "/v1/jobs", "multipart/form-data; boundary=b", f"Content-Length: {len(body)}")
    with connect(stack) as connection:
        for _ in range(2):
            connection.sendall(head + body)
            with HTTPResponse(connection) as answer:
                answer.begin()
                assert answer.status == 202
                answer.read()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/jobs?sample_fps=3&sample_fps=9", None),
        ("/v1/jobs", b'{"url": "https://a.example/1", "url": "https://a.example/2"}'),
        ("/v1/jobs", b'{"url": "https://a.example/1", "metadata": {"a": 1, "a": 2}}'),
    ],
    ids=["query", "json", "metadata"],
)
def test_repeated_options_are_refused(make_api, path, body):
    api = make_api()
    auth, _ = api.key()
    if body is None:
        answer = api.call("POST", path, {**auth, "Content-Type": "image/jpeg"}, data=noise_picture())
    else:
        answer = api.call("POST", path, {**auth, "Content-Type": "application/json"}, data=body)
    assert answer.status_code in (400, 422), answer.text
    assert api.files() == []
