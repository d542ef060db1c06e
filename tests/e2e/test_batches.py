"""A batch end to end: its files are fetched and scored, and its receiver is called."""

import time

import httpx
from deepfakestream import verify_webhook

from tests.clips import noise_picture
from tests.receiver import running_receiver
from tests.webhooks import check_webhook


def test_a_batch_is_scored_and_its_end_is_signed(stack):
    key, secret = stack.api_key_file.read_text().strip(), stack.webhook_secret_file.read_text().strip()
    headers = {"Authorization": f"Bearer {key}"}
    with running_receiver() as server, httpx.Client(base_url=stack.url, headers=headers, trust_env=False) as http:
        server.files["/picture"] = noise_picture()
        items = [{"url": f"{server.url}/{name}"} for name in ("picture", "absent")]
        made = http.post("/v1/batches", json={"items": items, "webhook_url": f"{server.url}/hook"})
        assert made.status_code == 202, made.text
        deadline = time.monotonic() + 60
        while not (hooks := [one for one in server.requests if one.path == "/hook"]) and time.monotonic() < deadline:
            time.sleep(0.05)
        [hook] = hooks
        event = verify_webhook(hook.headers, hook.body, secret)
        batch = http.get(made.headers["Location"]).json()
        assert check_webhook(http.get("/openapi.json").json(), hook) == "batch.ended"
    assert (event["type"], event["timestamp"]) == ("batch.ended", batch["ended_at"])
    assert event["data"] == {name: batch[name] for name in batch if name not in ("items", "next_cursor")}
    assert (batch["counts"]["succeeded"], batch["counts"]["failed"]) == (1, 1)
    assert batch["items"][1]["error"]["code"] == "source_refused"
