"""Requests to every operation of a running stack, and what it answers and sends to receivers."""

import contextlib
import json
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from flask_openapi3 import OpenAPI

from api.app import create_app
from api.config import APISettings
from api.embedded.stack import EmbeddedStack
from api.keys import create_key
from shared.config import load_settings
from tests.clips import make_clip, noise_picture, run
from tests.inside import environment_of
from tests.live import Playlist, serving
from tests.receiver import Receiver, running_receiver
from tests.unit.worker.explain.conftest import swapped_portrait

WITHOUT_EXAMPLE: Final = frozenset(
    {"application/pdf", "application/zip", "image/jpeg", "image/webp", "text/html", "video/x-matroska"}
)
"""Media types of answers that are files, or pages of hundreds of kilobytes."""
FILE: Final = "(the bytes of the file)"
METRICS_SHOWN: Final = ("deepfakestream_jobs_accepted",)
"""Beginnings of the metrics in the example, of many more."""
PATIENCE_S: Final = 120.0
BEFORE_LIVE: Final = 4
"""Segments of a second in the playlist at first; readers begin three before its end."""
QUIET_S: Final = 4.0
STORAGE: Final = {
    "URL": "s3://media",
    "ENDPOINT_URL": "https://storage.example",
    "PUBLIC_ENDPOINT_URL": "https://storage.example",
    "REGION": "eu-central-1",
    "ACCESS_KEY_ID": "key",
    "SECRET_ACCESS_KEY": "secret",
}
"""Storage in S3, which an embedded stack does not have; a presigned address needs no connection to it."""

Kept = dict[str, dict[str, dict[str, Any]]]
"""Operation → ``request`` or status → media type → name of the example → value."""


@dataclass
class Record:
    """What was recorded."""

    operations: dict[str, Kept] = field(default_factory=dict)
    webhooks: dict[str, Any] = field(default_factory=dict)
    """Type of event → body."""
    problems: dict[str, Any] = field(default_factory=dict)
    """Status → a refusal that stands for all with that status."""

    def to_json(self) -> dict[str, Any]:
        """Return it as ``api/examples.json`` has it."""
        return {"operations": self.operations, "webhooks": self.webhooks, "problems": self.problems}


class _Recorder:
    """Sends requests with the key of an owner of its own, and keeps what was sent and answered."""

    def __init__(self, http: httpx.Client) -> None:
        self.http, self.record = http, Record()

    def ask(self, operation: str, path: str, *, method: str = "GET", name: str = "recorded", **given: Any) -> Any:
        """Send a request, keep it and its answer as the example *name* of *operation*, and return the answer."""
        answer = self.http.request(method, path, **given)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        if "json" in given:
            self.keep(operation, "request", "application/json", name, given["json"])
        elif "files" in given:
            self.keep(operation, "request", "multipart/form-data", name, {"file": FILE, **given["data"]})
        if answer.status_code == httpx.codes.NO_CONTENT:
            return None
        return self.keep_answer(operation, answer.status_code, answer.headers["Content-Type"], name, answer.text)

    def post(self, operation: str, path: str, **given: Any) -> Any:
        """``ask`` with POST."""
        return self.ask(operation, path, method="POST", **given)

    def keep_answer(self, operation: str, status: int, content_type: str, name: str, text: str) -> Any:
        """Keep an answer, and return it."""
        media_type = content_type.partition(";")[0]
        value = json.loads(text) if media_type.endswith("json") else text
        self.keep(operation, str(status), media_type, name, value)
        return value

    def keep(self, operation: str, part: str, media_type: str, name: str, value: Any) -> None:
        """Keep *value* as an example, unless there is one of that name."""
        kept = self.record.operations.setdefault(operation, {}).setdefault(part, {}).setdefault(media_type, {})
        kept.setdefault(name, value)


def record_service(stack: EmbeddedStack, folder: Path) -> Record:
    """
    Ask every operation of *stack* that answers with text, and receive every webhook.

    Args:
        folder: An empty folder for media.
    """
    with (
        _with_storage_in_s3(stack) as app,
        running_receiver() as receiver,
        httpx.Client(base_url=stack.url, headers=_new_key(app), trust_env=False, timeout=PATIENCE_S) as http,
    ):
        recorder = _Recorder(http)
        portrait = make_clip(
            folder / "portrait.mp4", fps=2.0, seconds=2.0, size=(640, 360), faces=(swapped_portrait(),)
        )
        _record_upload(recorder, app, http.headers["Authorization"])
        # First, since it waits for workers that have just started; streams would drop segments.
        job_id = _record_job(recorder, receiver, portrait)
        _record_streams(recorder, receiver, portrait, folder)
        _record_rescoring(recorder, job_id)
        _record_batch(recorder, receiver)
        _record_cancelling(recorder)
        _record_service_itself(recorder)
        for request in receiver.requests:
            if request.method == "POST":
                body = json.loads(request.body)
                recorder.record.webhooks.setdefault(body["type"], body)
    return recorder.record


@contextlib.contextmanager
def _with_storage_in_s3(stack: EmbeddedStack) -> Iterator[OpenAPI]:
    """Give an application beside those of *stack*, with its database and queues, whose storage is said to be in S3."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment_of(stack).items():
            if name.startswith("DEEPFAKESTREAM_"):
                patch.setenv(name, value)
        for name, value in STORAGE.items():
            patch.setenv(f"DEEPFAKESTREAM_STORAGE__{name}", value)
        app = create_app(load_settings(APISettings))
    services = app.extensions["deepfakestream"]
    try:
        yield app
    finally:
        services.listener.close()
        services.sessions.engine.dispose()


def _new_key(app: OpenAPI) -> dict[str, str]:
    """Return headers with a key of an owner who has nothing yet."""
    owner = f"newsroom-{time.time_ns()}"
    with app.extensions["deepfakestream"].sessions.transaction() as session:
        made = create_key(session, owner=owner, name="desk", scopes=["jobs:write", "jobs:read"])
    return {"Authorization": f"Bearer {made.secret}"}


def _record_upload(recorder: _Recorder, app: OpenAPI, authorization: str) -> None:
    body = {"size_bytes": 734003200}
    answer = app.test_client().post("/v1/uploads", json=body, headers={"Authorization": authorization})
    assert answer.status_code == httpx.codes.CREATED, answer.text
    recorder.keep("beginUpload", "request", "application/json", "recorded", body)
    recorder.keep_answer("beginUpload", answer.status_code, answer.content_type, "recorded", answer.text)


def _record_job(recorder: _Recorder, receiver: Receiver, portrait: Path) -> str:
    receiver.files["/picture.jpg"] = noise_picture()
    body = {"url": f"{receiver.url}/picture.jpg", "sample_fps": 2.0, "metadata": {"case": 6}}
    first = recorder.post("submitJob", "/v1/jobs", name="url", json=body)
    # The workers of a stack that has just started take some time for their first job.
    _until(lambda: recorder.http.get(f"/v1/jobs/{first['id']}").json()["status"] == "succeeded")
    options = {
        "segment_seconds": 1.0,
        "metadata": '{"case": 7}',
        "webhook_url": f"{receiver.url}/hook",
        "explain": True,
    }
    given = {
        "data": options,
        "headers": {"Idempotency-Key": "case-7", "Prefer": "wait=60"},
        "files": {"file": ("clip.mp4", portrait.read_bytes())},
    }
    # The second request is a repetition of the first, by its key.
    job, repeated = (recorder.post("submitJob", "/v1/jobs", **given) for _ in range(2))
    assert (job["id"], job["status"]) == (repeated["id"], "succeeded"), job
    job_id = job["id"]
    path = f"/v1/jobs/{job_id}"
    # At once, before it has been made.
    recorder.post("explainJob", f"{path}/explanations")
    recorder.ask("listSegments", f"{path}/segments", name="full")
    recorder.ask("listSegments", f"{path}/segments?view=summary", name="summary")
    recorder.post("shareReport", f"{path}/shares", json={"valid_s": 86400})
    recorder.ask("listShares", f"{path}/shares")
    _until(lambda: recorder.http.get(f"{path}/deliveries").json()["items"][0]["status"] == "succeeded")
    recorder.ask("listDeliveries", f"{path}/deliveries")
    recorder.post("redeliver", f"{path}/deliveries/1/redeliver")
    _until(lambda: recorder.http.get(f"{path}/explanations").json()["status"] == "succeeded")
    recorder.ask("getExplanation", f"{path}/explanations")
    recorder.ask("getJob", path)
    review = {"finding": "confirmed_fake", "note": "The mouth does not match the sound."}
    recorder.ask("reviewJob", f"{path}/review", method="PUT", json=review)
    return str(job_id)


def _record_rescoring(recorder: _Recorder, job_id: str) -> None:
    path, wait = f"/v1/jobs/{job_id}/rescore", {"Prefer": "wait=60"}
    again = {"segment_seconds": 2.0, "metadata": {"case": 7, "run": 2}, "explain": False}
    key = {"Idempotency-Key": "case-7-again"}
    recorder.post("rescoreJob", path, json=again, headers=key)
    rescored = recorder.post("rescoreJob", path, json=again, headers={**key, **wait})
    # The scores are known by now, and the job has ended in the first answer.
    recorder.post("rescoreJob", path, json={**again, "reuse": True}, headers=wait)
    recorder.ask("diffJobs", f"/v1/jobs/{job_id}/diff/{rescored['id']}")
    recorder.ask("listJobs", "/v1/jobs?limit=1")


def _record_batch(recorder: _Recorder, receiver: Receiver) -> None:
    items = [
        {"url": f"{receiver.url}/picture.jpg", "metadata": {"case": 1}},
        {"url": f"{receiver.url}/absent.mp4"},
        {"url": f"{receiver.url}/picture.jpg", "model": "other"},
    ]
    body = {"items": items, "sample_fps": 2.0, "webhook_url": f"{receiver.url}/hook", "metadata": {"desk": "news"}}
    path = f"/v1/batches/{recorder.post('submitBatch', '/v1/batches', json=body)['id']}"
    _until(lambda: recorder.http.get(path).json()["ended_at"])
    recorder.ask("getBatch", path)
    recorder.ask("listBatches", "/v1/batches?limit=1")
    recorder.ask("getBatchResults", f"{path}/results.csv")
    recorder.post("cancelBatch", f"{path}/cancel")
    _until(lambda: any(b'"batch.ended"' in request.body for request in receiver.requests))


def _record_cancelling(recorder: _Recorder) -> None:
    # A server that accepts the connection and says nothing, so that the job does not end by itself.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/clip.mp4"
        job = recorder.http.post("/v1/jobs", json={"url": url}).json()
        recorder.post("cancelJob", f"/v1/jobs/{job['id']}/cancel")


def _record_streams(recorder: _Recorder, receiver: Receiver, portrait: Path, folder: Path) -> None:
    clip, source_folder = folder / "live.ts", folder / "source"
    source_folder.mkdir()
    run(
        "-stream_loop",
        "9",
        "-i",
        str(portrait),
        "-c:v",
        "libx264",
        "-preset",
        "ultrafast",
        "-r",
        "25",
        "-g",
        "25",
        str(clip),
    )
    source = Playlist(clip, source_folder)
    source.publish(BEFORE_LIVE)
    with serving(source, source_folder) as url:
        body = {
            "url": url,
            "secret": {"username": "viewer", "password": "…"},
            "segment_seconds": 1.0,
            "duration_limit_s": 600.0,
            "alert_threshold": 0.5,
            "record": "suspicious",
            "last_faces": True,
            "webhook_url": f"{receiver.url}/hook",
            "metadata": {"room": 7},
        }
        stream_id = recorder.post("beginStream", "/v1/streams", name="url", json=body)["id"]
        path = f"/v1/streams/{stream_id}"

        published_at = time.monotonic()

        def is_alerting() -> bool:
            nonlocal published_at
            found = recorder.http.get(path, params={"after": 0}).json()
            judged = sum(event["kind"] == "segment" for event in found["events"])
            is_read = source.published < judged + BEFORE_LIVE - 1
            # A source that adds nothing for some seconds would be away.
            if source.published < source.parts and (is_read or time.monotonic() - published_at > QUIET_S):
                source.publish()
                published_at = time.monotonic()
            return any(person["is_alerting"] for person in found["people"])

        _until(is_alerting, every_s=0.3)
        recorder.ask("getStream", f"{path}?after=0")
        recorder.ask("listRecordings", f"{path}/recordings")
        source.finish()
        with recorder.http.stream("GET", f"{path}/events") as answer:
            events = _parse_events(answer.iter_lines())
    for event in events:
        if "event" in event:
            recorder.keep("followStream", "200", "text/event-stream", event["event"], event)
    push = recorder.post("beginStream", "/v1/streams", name="push", json={"push": "rtmp", "duration_limit_s": 3600.0})
    recorder.ask("listStreams", "/v1/streams")
    recorder.post("stopStream", f"/v1/streams/{push['id']}/stop")
    _until(lambda: any(b'"stream.ended"' in request.body for request in receiver.requests))


def _parse_events(lines: Iterator[str]) -> list[dict[str, str]]:
    """Return the fields of each of the server-sent events in *lines*."""
    events: list[dict[str, str]] = [{}]
    for line in lines:
        name, _, value = line.partition(": ")
        if not line:
            events.append({})
        elif name:
            events[-1][name] = value
    return events


def _record_service_itself(recorder: _Recorder) -> None:
    recorder.ask("getUsage", "/v1/usage")
    recorder.ask("listModels", "/v1/models")
    recorder.ask("getEvidenceKey", "/v1/evidence-key")
    recorder.ask("livez", "/livez")
    recorder.ask("readyz", "/readyz")
    recorder.ask("metrics", "/metrics")
    for refused in (
        recorder.http.get("/v1/jobs", headers={"Authorization": "Bearer dfs_unknown"}),
        recorder.http.get(f"/v1/jobs/{uuid.uuid4()}"),
        recorder.http.post("/v1/jobs?fps=2", json={"url": "https://media.example/clip.mp4"}),
    ):
        assert refused.is_client_error, refused.text
        recorder.record.problems[str(refused.status_code)] = refused.json()


def _until(is_so: Callable[[], object], every_s: float = 0.1) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline, "it did not become so"
        time.sleep(every_s)
