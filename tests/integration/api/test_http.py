"""The HTTP API of a real server with real database, broker and storage."""

import contextlib
import json
import math
import socket
import subprocess
import sys
import threading
import time
import uuid
from http.client import HTTPResponse

import httpx
import pytest

from tests.clips import make_clip, run, truncate
from tests.inside import environment_of


@pytest.fixture(scope="module")
def key(stack):
    return stack.api_key_file.read_text().strip()


@pytest.fixture
def http(stack, key):
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=stack.url, headers=headers, trust_env=False, timeout=70) as session:
        yield session


def other_owner(stack, *scopes, owner="somebody-else"):
    """Create a key for another owner by the command line and return its headers and id."""
    environment = environment_of(stack)
    arguments = ["-m", "api.keys", "create", "--owner", owner, "--name", "test", "--json"]
    arguments += [word for scope in scopes for word in ("--scope", scope)]
    made = subprocess.run(
        [sys.executable, *arguments], env=environment, cwd=stack.state, capture_output=True, text=True, check=True
    )
    made = json.loads(made.stdout)
    return {"Authorization": f"Bearer {made['key']}"}, made["id"]


def submit(http, clip, **arguments):
    with clip.open("rb") as file:
        answer = http.post("/v1/jobs", files={"file": ("name.mp4", file)}, **arguments)
    assert answer.status_code == 202, answer.text
    return answer


def check_problem(answer, status, code):
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert (body["status"], body["code"]) == (status, code)
    assert body["detail"]
    assert body["request_id"] == answer.headers["x-request-id"]
    for secret in ("Traceback", "/storage", "select ", "psycopg", "site-packages"):
        assert secret not in answer.text


def test_a_file_can_come_as_a_form_or_as_raw_bytes(http, clip):
    form = submit(http, clip, data={"sample_fps": "1", "metadata": '{"a": 1}'})
    assert form.headers["location"] == f"/v1/jobs/{form.json()['id']}"
    raw = http.post(
        "/v1/jobs?sample_fps=1&model=swap-lite0", content=clip.read_bytes(), headers={"Content-Type": "video/mp4"}
    )
    assert raw.status_code == 202
    assert form.json()["options"]["sample_fps"] == raw.json()["options"]["sample_fps"] == 1.0
    assert form.json()["media"]["sha256"] == raw.json()["media"]["sha256"]
    assert form.json()["metadata"] == {"a": 1}
    assert form.json()["status"] == "queued"


def test_a_body_of_unknown_length_is_accepted(http, clip):
    content = clip.read_bytes()
    blocks = (content[start : start + 10_000] for start in range(0, len(content), 10_000))
    answer = http.post("/v1/jobs", content=blocks, headers={"Content-Type": "application/octet-stream"})
    assert answer.status_code == 202
    assert answer.json()["media"]["size_bytes"] == len(content)


def _sound(path):
    run("-f", "lavfi", "-i", "sine=duration=1", "-c:a", "aac", "-f", "mp4", str(path))


@pytest.mark.parametrize(
    ("make", "status", "code"),
    [
        pytest.param(lambda path: path.write_bytes(b""), 422, "empty_file", id="empty"),
        pytest.param(lambda path: path.write_text("no media " * 99), 422, "not_media", id="text"),
        pytest.param(lambda path: path.write_bytes(b"%PDF-1.7" + bytes(99)), 422, "unsupported_media", id="pdf"),
        pytest.param(_sound, 422, "no_video_stream", id="sound"),
        pytest.param(
            lambda path: make_clip(path.with_suffix(".avi"), codec="ffv1").rename(path),
            422,
            "unsupported_codec",
            id="codec",
        ),
        pytest.param(
            lambda path: truncate(make_clip(path.with_suffix(".mp4")).rename(path), 0.5), 422, "truncated", id="torn"
        ),
        pytest.param(
            lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + b"\0\0\xff\xff" * 2 + bytes(20)),
            422,
            "too_many_pixels",
            id="pixels",
        ),
    ],
)
def test_a_bad_file_is_refused_at_once_and_not_kept(http, stack, tmp_path, make, status, code):
    path = tmp_path / "file"
    make(path)
    before = set((stack.state / "storage" / "media").iterdir())
    with path.open("rb") as file:
        check_problem(http.post("/v1/jobs", files={"file": file}), status, code)
    answer = http.post("/v1/jobs", content=path.read_bytes(), headers={"Content-Type": "application/octet-stream"})
    check_problem(answer, status, code)
    assert set((stack.state / "storage" / "media").iterdir()) == before


FORM = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'


@pytest.mark.parametrize("form", ["raw", "multipart"])
@pytest.mark.parametrize("length", [True, False], ids=["announced", "chunked"])
def test_a_file_that_is_not_media_is_refused_before_it_has_arrived(http, stack, form, length):
    size, sent = 600 * 1024**2, 0
    before = set((stack.state / "storage" / "media").iterdir())

    def body():
        nonlocal sent
        yield FORM if form == "multipart" else b""
        while sent < size:
            sent += 1024**2
            yield bytes(1024**2)
        yield b"\r\n--b--\r\n" if form == "multipart" else b""

    more = len(FORM) + 9 if form == "multipart" else 0
    kind = "multipart/form-data; boundary=b" if form == "multipart" else "application/octet-stream"
    headers = {"Content-Type": kind} | ({"Content-Length": str(size + more)} if length else {})
    check_problem(http.post("/v1/jobs", content=body(), headers=headers), 422, "not_media")
    # The server drains some bytes after its response, and socket buffers hold more.
    assert sent < 64 * 1024**2
    assert set((stack.state / "storage" / "media").iterdir()) == before


@pytest.mark.parametrize(
    ("query", "sent", "status", "code"),
    [
        ("?model=nope", b"", 422, b"unknown_model"),
        ("?sample_fps=99", b"", 422, b"invalid_request"),
        ("?metadata=%7B%22a%22%3A%22" + 5000 * "a" + "%22%7D", b"", 422, b"metadata_too_large"),
        ("?webhook_url=ftp://a/", b"", 422, b"forbidden_url"),
        ("", bytes(4096), 422, b"not_media"),
    ],
    ids=["model", "option", "metadata", "webhook", "file"],
)
def test_a_refusal_does_not_wait_for_the_body_and_closes_the_connection(stack, key, query, sent, status, code):
    address = ("127.0.0.1", int(stack.url.rpartition(":")[2]))
    with socket.create_connection(address, timeout=20) as connection:
        head = f"POST /v1/jobs{query} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\n"
        head += f"Content-Type: video/mp4\r\nContent-Length: {50 * 1024**2}\r\n\r\n"
        connection.sendall(head.encode() + sent)
        answer = b""
        while block := connection.recv(65536):
            answer += block
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b'"code": "%s"' % code in answer


def test_errors_name_the_limit(http, tmp_path):
    # It is refused by its declared length, before it is sent.
    head = f"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: {http.headers['authorization']}\r\n"
    head += f"Content-Type: video/mp4\r\nContent-Length: {3 * 1024**3}\r\nConnection: close\r\n\r\n"
    with socket.create_connection((http.base_url.host, http.base_url.port), timeout=20) as connection:
        connection.sendall(head.encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
    assert answer.startswith("HTTP/1.1 413 ")
    assert '"code": "too_large"' in answer
    assert "max_upload_bytes is 2147483648" in answer
    # The header of a five-second video claims three hours: it is refused by its header alone.
    path = make_clip(tmp_path / "long.mp4", fps=0.05, frames=400)
    with path.open("rb") as file:
        answer = http.post("/v1/jobs", files={"file": file})
    check_problem(answer, 422, "too_long")
    assert "max_duration_s is 7200" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("arguments", "status", "code"),
    [
        pytest.param({"params": {"smaple_fps": "1"}}, 422, "unknown_option", id="query"),
        pytest.param({"data": {"colour": "red"}}, 422, "unknown_option", id="form"),
        pytest.param({"params": {"sample_fps": "fast"}}, 422, "invalid_request", id="no number"),
        pytest.param({"params": {"sample_fps": "0"}}, 422, "invalid_request", id="too slow"),
        pytest.param({"params": {"segment_seconds": "61"}}, 422, "invalid_request", id="too long"),
        pytest.param({"params": {"sample_fps": "nan"}}, 422, "invalid_request", id="nan"),
        pytest.param({"params": {"sample_fps": "1"}, "data": {"sample_fps": "1"}}, 422, "invalid_request", id="twice"),
        pytest.param({"params": {"model": "gpt"}}, 422, "unknown_model", id="model"),
        pytest.param({"data": {"metadata": "{"}}, 422, "invalid_request", id="metadata"),
        pytest.param({"data": {"metadata": "[1]"}}, 422, "invalid_request", id="list"),
        pytest.param({"data": {"metadata": '{"a": "\\u0000"}'}}, 422, "invalid_request", id="nul"),
        pytest.param({"data": {"metadata": json.dumps({"a": "x" * 5000})}}, 422, "metadata_too_large", id="large"),
        pytest.param({"data": {"webhook_url": "ftp://a.example/"}}, 422, "forbidden_url", id="ftp"),
        pytest.param({"data": {"webhook_url": "https://u:p@a.example/"}}, 422, "forbidden_url", id="password"),
        pytest.param({"headers": {"Idempotency-Key": "x" * 256}}, 422, "invalid_request", id="idempotency"),
    ],
)
def test_a_bad_option_is_refused(http, clip, arguments, status, code):
    with clip.open("rb") as file:
        check_problem(http.post("/v1/jobs", files={"file": file}, **arguments), status, code)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "invalid_request"),
        ({"url": "https://a.example/x", "sample_fps": "2"}, "invalid_request"),
        ({"url": "https://a.example/x", "surprise": 1}, "unknown_option"),
        ({"url": "file:///etc/passwd"}, "forbidden_url"),
        ([1], "invalid_request"),
    ],
    ids=str,
)
def test_a_bad_json_body_is_refused(http, body, code):
    check_problem(http.post("/v1/jobs", json=body), 422, code)


def test_other_bodies_are_refused(http):
    check_problem(http.post("/v1/jobs", content=b"{", headers={"Content-Type": "application/json"}), 400, "bad_request")
    check_problem(
        http.post("/v1/jobs", content=b"x", headers={"Content-Type": "text/plain"}), 415, "unsupported_media_type"
    )
    check_problem(http.post("/v1/jobs"), 415, "unsupported_media_type")
    check_problem(http.post("/v1/jobs", files={"other": b"x"}), 422, "missing_file")
    as_form = http.post("/v1/jobs", files={"url": (None, "https://example.org/clip.mp4")})
    check_problem(as_form, 422, "missing_file")
    assert '{"url": "…"} as application/json' in as_form.json()["detail"]
    check_problem(http.post("/v1/jobs", files=[("file", b"x"), ("file", b"y")]), 422, "invalid_request")
    check_problem(http.put("/v1/jobs"), 405, "method_not_allowed")
    check_problem(http.get("/v1/nothing"), 404, "not_found")


def test_a_key_is_needed_before_anything_is_read(stack, clip):
    with httpx.Client(base_url=stack.url, trust_env=False) as stranger:
        for header in (
            {},
            {"Authorization": "Bearer dfs_wrong"},
            {"Authorization": "Basic eDp5"},
            {"Authorization": "x"},
        ):
            answer = stranger.post("/v1/jobs", content=clip.read_bytes(), headers=header)
            check_problem(answer, 401, "unauthenticated")
            assert answer.headers["www-authenticate"].startswith("Bearer")
            check_problem(stranger.get("/v1/models", headers=header), 401, "unauthenticated")


def test_scopes_are_checked(stack, clip):
    reader, _ = other_owner(stack, "jobs:read")
    with httpx.Client(base_url=stack.url, headers=reader, trust_env=False) as session:
        assert session.get("/v1/jobs").status_code == 200
        check_problem(session.post("/v1/jobs", files={"file": clip.read_bytes()}), 403, "missing_scope")


def test_a_revoked_key_is_refused_at_once(stack):
    headers, key_id = other_owner(stack)
    with httpx.Client(base_url=stack.url, headers=headers, trust_env=False) as session:
        assert session.get("/v1/jobs").status_code == 200
        environment = environment_of(stack)
        subprocess.run(
            [sys.executable, "-m", "api.keys", "revoke", key_id], env=environment, cwd=stack.state, check=True
        )
        check_problem(session.get("/v1/jobs"), 401, "unauthenticated")


def test_another_owners_job_does_not_exist(stack, http, clip):
    job_id = submit(http, clip).json()["id"]
    headers, _ = other_owner(stack)
    with httpx.Client(base_url=stack.url, headers=headers, trust_env=False) as session:
        for method, path in [
            ("GET", ""),
            ("GET", "/segments"),
            ("GET", "/deliveries"),
            ("POST", "/cancel"),
            ("POST", "/deliveries/1/redeliver"),
            ("DELETE", ""),
        ]:
            check_problem(session.request(method, f"/v1/jobs/{job_id}{path}"), 404, "not_found")
        assert session.get("/v1/jobs").json()["items"] == []
    assert http.get(f"/v1/jobs/{job_id}").status_code == 200


def test_the_same_idempotency_key_gives_the_same_job(http, clip):
    headers = {"Idempotency-Key": uuid.uuid4().hex}
    first, second = submit(http, clip, headers=headers), submit(http, clip, headers=headers)
    assert first.json()["id"] == second.json()["id"]
    assert second.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers
    with clip.open("rb") as file:
        answer = http.post("/v1/jobs", files={"file": file}, data={"sample_fps": "3"}, headers=headers)
    check_problem(answer, 409, "idempotency_conflict")
    other = http.post("/v1/jobs", json={"url": "https://a.example/x"}, headers=headers)
    check_problem(other, 409, "idempotency_conflict")


def test_concurrent_requests_with_one_idempotency_key_create_one_job(http, stack, tmp_path):
    content = make_clip(tmp_path / "race.mp4", frames=4).read_bytes()
    headers = {"Idempotency-Key": uuid.uuid4().hex, "Content-Type": "video/mp4"}
    barrier, answers = threading.Barrier(6), []

    def send():
        barrier.wait()
        answers.append(http.post("/v1/jobs", content=content, headers=headers))

    threads = [threading.Thread(target=send) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum("idempotent-replayed" in answer.headers for answer in answers) == 5
    stored = [file for file in (stack.state / "storage" / "media").iterdir() if file.stat().st_size == len(content)]
    assert len(stored) == 1


def test_prefer_wait_delays_the_response_until_the_job_ends(http, clip):
    job_id = submit(http, clip).json()["id"]
    answer = http.get(f"/v1/jobs/{job_id}", headers={"Prefer": "wait=60"})
    assert answer.json()["status"] == "succeeded"
    assert answer.headers["preference-applied"] == "wait=60"
    began = time.monotonic()
    http.get(f"/v1/jobs/{job_id}", headers={"Prefer": "wait=60"})
    assert time.monotonic() - began < 30, "the wait ended before its 60 seconds"


def test_an_unchanged_job_is_not_sent_again(http, clip):
    job_id = submit(http, clip).json()["id"]
    queued = http.get(f"/v1/jobs/{job_id}")
    done = http.get(f"/v1/jobs/{job_id}", headers={"Prefer": "wait=60"})
    again = http.get(f"/v1/jobs/{job_id}", headers={"If-None-Match": done.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert done.headers["etag"] != queued.headers["etag"]
    assert http.get(f"/v1/jobs/{job_id}", headers={"If-None-Match": 'W/"other"'}).status_code == 200
    for condition in ('"other"', "*", done.headers["etag"]):
        assert http.get(f"/v1/jobs/{job_id}", headers={"If-Match": condition}).status_code == 200


def test_lists_are_paged_without_gap_or_repetition(stack, clip):
    headers, _ = other_owner(stack, owner=f"pages-{uuid.uuid4().hex}")
    with httpx.Client(base_url=stack.url, headers=headers, trust_env=False) as session:
        made = [submit(session, clip).json()["id"] for _ in range(5)]
        seen, cursor = [], None
        while True:
            page = session.get("/v1/jobs", params={"limit": 2, **({"cursor": cursor} if cursor else {})}).json()
            assert len(page["items"]) <= 2
            assert all("segments" not in item for item in page["items"])
            seen += [item["id"] for item in page["items"]]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        assert seen == made[::-1]
        assert session.get("/v1/jobs", params={"status": "cancelled"}).json()["items"] == []
        assert session.get("/v1/jobs", params={"created_before": "2020-01-01T00:00:00Z"}).json()["items"] == []
        check_problem(session.get("/v1/jobs", params={"cursor": "!"}), 422, "invalid_cursor")
        check_problem(session.get("/v1/jobs", params={"limit": "0"}), 422, "invalid_request")
        check_problem(session.get("/v1/jobs", params={"order": "up"}), 422, "unknown_option")


def test_segments_are_paged(http, clip):
    job_id = submit(http, clip, data={"segment_seconds": "1"}).json()["id"]
    assert http.get(f"/v1/jobs/{job_id}", headers={"Prefer": "wait=60"}).json()["status"] == "succeeded"
    first = http.get(f"/v1/jobs/{job_id}/segments", params={"limit": 4}).json()
    rest = http.get(f"/v1/jobs/{job_id}/segments", params={"cursor": first["next_cursor"]}).json()
    assert [item["index"] for item in first["items"] + rest["items"]] == list(range(6))
    assert rest["next_cursor"] is None
    face = first["items"][0]["people"][0]["faces"][0]
    assert len(face["box_px"]) == 4


def test_a_job_that_ended_cannot_be_cancelled(http, clip):
    job_id = submit(http, clip).json()["id"]
    http.get(f"/v1/jobs/{job_id}", headers={"Prefer": "wait=60"})
    check_problem(http.post(f"/v1/jobs/{job_id}/cancel"), 409, "job_already_final")
    check_problem(http.post(f"/v1/jobs/{job_id}/deliveries/1/redeliver"), 404, "not_found")
    assert http.delete(f"/v1/jobs/{job_id}").status_code == 204
    check_problem(http.delete(f"/v1/jobs/{job_id}"), 404, "not_found")


def test_models_are_listed_with_their_cards(http):
    models = http.get("/v1/models").json()["items"]
    assert [(model["name"], model["trained"], model["is_default"]) for model in models] == [
        ("swap-lite0", True, False),
        ("swap-lite2", True, True),
    ]
    assert all("## Intended use" in model["model_card"] for model in models)


def test_results_contain_the_evidence_of_the_verdict(http, clip):
    job_id = submit(http, clip).json()["id"]
    job = http.get(f"/v1/jobs/{job_id}", headers={"Prefer": "wait=60"}).json()
    evidence = job["evidence"]
    assert evidence["kind"] == "video"
    assert evidence["people"] == 1
    assert evidence["faces"] == sum(segment["faces_scored"] for segment in job["segments"])
    assert evidence["bits_per_pixel"] > 0.0
    low, high = evidence["real_below"], evidence["fake_from"]
    score, verdict = job["fake_score"], job["verdict"]
    assert (verdict == "fake") == (score >= high)
    assert low <= high
    # The limit for several faces is below the threshold for one.
    assert high < job["model"]["threshold"]
    # docs/api.md recommends this retry to clients.
    for name, limit in (("low", low), ("high", high)):
        bound = job["model"]["bounds"]["video"][name]
        odds = bound["many"] + (bound["one"] - bound["many"]) / evidence["faces"]
        odds += bound["doubling"] * math.log2(evidence["people"])
        assert limit == pytest.approx(1 / (1 + math.exp(-odds)), abs=1e-6)
    http.delete(f"/v1/jobs/{job_id}")
    other = http.post("/v1/jobs?model=swap-lite0", content=clip.read_bytes(), headers={"Content-Type": "video/mp4"})
    judged = http.get(f"/v1/jobs/{other.json()['id']}", headers={"Prefer": "wait=60"}).json()
    assert judged["model"]["name"] == "swap-lite0"
    assert judged["evidence"]["fake_from"] == judged["model"]["threshold"]


def test_probes_and_metrics_need_no_key(stack):
    with httpx.Client(base_url=stack.url, trust_env=False) as stranger:
        assert stranger.get("/livez").json()["status"] == "ok"
        ready = stranger.get("/readyz").json()
        assert ready == {"status": "ok", "checks": {"database": "ok", "broker": "ok", "storage": "ok"}}
        assert "deepfakestream_http_request_seconds" in stranger.get("/metrics").text
        assert stranger.get("/docs", follow_redirects=True).status_code == 200


def test_an_interrupted_upload_leaves_nothing(stack, key, clip):
    before = set((stack.state / "storage" / "media").iterdir())
    host, port = stack.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        head = f"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Type: video/mp4\r\n"
        connection.sendall(head.encode() + b"Content-Length: 1000000\r\n\r\n" + clip.read_bytes()[:5000])
    deadline = time.monotonic() + 60
    time.sleep(0.5)
    while set((stack.state / "storage" / "media").iterdir()) != before and time.monotonic() < deadline:
        time.sleep(0.1)
    assert set((stack.state / "storage" / "media").iterdir()) == before


def test_segments_have_times_and_engine(http, clip):
    job_id = submit(http, clip).json()["id"]
    job = http.get(f"/v1/jobs/{job_id}", headers={"Prefer": "wait=60"}).json()
    assert job["status"] == "succeeded"
    (segment,) = http.get(f"/v1/jobs/{job_id}/segments").json()["items"]
    assert job["created_at"] < segment["started_at"] < segment["finished_at"] <= job["finished_at"]
    assert segment["engine"] == job["segments"][0]["engine"]
    assert segment["engine"].startswith("openvino-")


PATIENCE_S = 30.0
"""The body never ends; on an idle machine the connection is closed after about five seconds."""
SLOW_BODIES = {
    "refused, of a known length": (b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\n", b"401"),
    "refused, in chunks": (
        b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nfffff\r\n",
        b"401",
    ),
    "answered without reading it": (b"GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\n", b"200"),
}


def test_draining_a_refused_body_is_limited_in_time(stack):
    host, port = stack.url.removeprefix("http://").split(":")
    is_over, held_s, answers = threading.Event(), {}, {}

    def drip(case, head):
        begun = time.monotonic()
        with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as connection:
            connection.sendall(head)

            def send():
                with contextlib.suppress(OSError):
                    while not is_over.wait(0.3):
                        connection.sendall(b"x")

            sender = threading.Thread(target=send)
            sender.start()
            with contextlib.suppress(TimeoutError):
                answer = b""
                while block := connection.recv(4096):
                    answer += block
                answers[case] = answer.split(b" ")[1]
                held_s[case] = time.monotonic() - begun
            is_over.wait(PATIENCE_S)
            sender.join()

    clients = [threading.Thread(target=drip, args=(case, head)) for case, (head, _) in SLOW_BODIES.items()]
    for client in clients:
        client.start()
    deadline = time.monotonic() + PATIENCE_S
    while len(held_s) < len(clients) and time.monotonic() < deadline:
        time.sleep(0.05)
    is_over.set()
    for client in clients:
        client.join()
    assert answers == {case: status for case, (_, status) in SLOW_BODIES.items()}
    assert max(held_s.values()) < PATIENCE_S


def test_a_completely_drained_body_leaves_the_connection_open(stack):
    host, port = stack.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        for _ in range(2):
            connection.sendall(b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello")
            with HTTPResponse(connection) as answer:
                answer.begin()
                assert (answer.status, answer.will_close) == (401, False)
                answer.read()
