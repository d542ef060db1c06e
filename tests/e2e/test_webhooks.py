"""Webhooks end to end: what is delivered is what the OpenAPI document says, and only what was asked for."""

import json
import time

import httpx
import jsonschema_rs
import pytest
from deepfakestream import InvalidRequestError

from tests.clips import noise_picture
from tests.receiver import Received, running_receiver
from tests.webhooks import check_webhook


@pytest.fixture(scope="module")
def document(stack):
    return httpx.get(f"{stack.url}/openapi.json", trust_env=False).json()


def bodies(receiver, count):
    """Return the first *count* webhooks."""
    deadline = time.monotonic() + 60
    while len(found := [one for one in receiver.requests if one.path == "/hook"]) < count:
        assert time.monotonic() < deadline, receiver.requests
        time.sleep(0.05)
    return found


def test_the_ends_of_jobs_are_delivered_as_described_if_they_were_chosen(client, clip, document):
    with running_receiver() as receiver:
        given = {"webhook_url": f"{receiver.url}/hook"}
        made = [
            client.submit(noise_picture(), metadata={"case": [7, None]}, **given),
            client.submit(url=f"{receiver.url}/absent", **given),
            client.submit(url=f"{receiver.url}/absent", webhook_events=["job.failed"], **given),
            client.submit(noise_picture(), webhook_events=["job.failed", "job.cancelled"], **given),
            client.cancel(client.submit(clip, sample_fps=30.0, segment_seconds=1.0, **given).id),
        ]
        ends = [client.wait(job.id, timeout_s=60).status for job in made]
        assert ends == ["succeeded", "failed", "failed", "succeeded", "cancelled"]
        hooks = bodies(receiver, 4)
        assert sorted(check_webhook(document, one) for one in hooks) == [
            *("job.cancelled", "job.failed", "job.failed", "job.succeeded"),
        ]
        assert {json.loads(one.body)["data"]["id"] for one in hooks} == {job.id for job in made} - {made[3].id}
        assert client.deliveries(made[3].id) == ()
    with pytest.raises(InvalidRequestError, match=r"'job\.done' is no event that is sent here; name job\.succeeded"):
        client.submit(clip, webhook_url="https://receiver.example/", webhook_events=["job.done"])


def test_a_body_that_is_not_described_is_noticed(document):
    described = {"type": "stream.alert", "timestamp": "2026-01-02T03:04:05Z"}
    alert = {"stream_id": "01a20d78-a9e9-755a-a1ee-3373ca532026", "seq": 1, "created_at": described["timestamp"]}
    alert |= {"metadata": {}, "action": "raised", "person": 0, "time_s": 4.0, "start_s": 2.0, "fake_score": 0.9}
    alert |= {"faces": 3, "limit": 0.8}
    headers = {"content-type": "application/json", "webhook-id": "m", "webhook-timestamp": "1"}
    headers["webhook-signature"] = "v1,aGFzaA=="

    def check(data, **changes):
        body = json.dumps(described | {"data": data}).encode()
        check_webhook(document, Received("POST", "/", headers | changes, body))

    check(alert)
    for wrong in (alert | {"more": 1}, alert | {"action": "said"}, {**alert, "faces": None}, alert | {"limit": 2}, {}):
        with pytest.raises(jsonschema_rs.ValidationError):
            check(wrong)
    with pytest.raises(jsonschema_rs.ValidationError):
        check(alert, **{"webhook-timestamp": "now"})
