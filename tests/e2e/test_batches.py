"""A batch end to end: fetched and scored, its receiver called; by both clients and by the command line; and usage."""

import csv
import io
import time
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from deepfakestream import InvalidRequestError, NotFoundError, Submission, verify_webhook
from deepfakestream.transport import Transport

from tests.clients import BOTH_CLIENTS, CLIENT_IDS
from tests.clips import noise_picture
from tests.e2e.test_command_line import deepfakestream
from tests.receiver import running_receiver
from tests.webhooks import check_webhook


@pytest.fixture
def pictures():
    """A server with a picture at each address below; anything else is not found there."""
    with running_receiver() as server:
        server.files |= {f"/{number}.jpg": noise_picture(number) for number in range(2)}
        yield server


@pytest.fixture(params=BOTH_CLIENTS, ids=CLIENT_IDS)
def client_of_either_kind(request, stack):
    with request.param(state=stack.state) as connected:
        yield connected


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


def test_both_clients_submit_read_and_erase_a_batch_and_usage_counts_it(client_of_either_kind, pictures):
    client, before = client_of_either_kind, client_of_either_kind.usage().total
    items = [
        Submission(
            f"{pictures.url}/0.jpg",
            metadata={"case": 7},
            webhook_url=f"{pictures.url}/hook",
            webhook_events=["job.failed"],
        ),
        Submission(f"{pictures.url}/1.jpg", model="nope"),
        f"{pictures.url}/absent.jpg",
    ]
    receiver = {"webhook_url": f"{pictures.url}/hook", "webhook_events": ["batch.ended"]}
    made = client.submit_batch(items, metadata={"desk": "news"}, sample_fps=1.0, **receiver)
    assert made.webhook_events == ("batch.ended",)
    assert (made.metadata, made.counts.refused, made.items[1].error.code) == ({"desk": "news"}, 1, "unknown_model")
    states = list(client.batch_progress(made.id, timeout_s=60, poll_s=0.1))
    assert [state.is_final for state in states] == [False] * (len(states) - 1) + [True]
    ended = client.wait_for_batch(made.id, timeout_s=10)
    assert (ended.counts.succeeded, ended.counts.failed, ended.counts.ended) == (1, 1, 3)
    assert (ended.items[0].metadata, ended.verdicts) == ({"case": 7}, {ended.items[0].verdict: 1})
    assert [job.id for job in client.batch_jobs(made.id)] == [ended.items[0].job_id, ended.items[2].job_id]
    rows = list(csv.DictReader(io.StringIO(client.batch_csv(made.id))))
    assert [row["error_code"] for row in rows] == ["", "unknown_model", "source_refused"]
    found = client.usage(datetime.now(UTC).date() - timedelta(days=1))
    assert found.total.jobs >= before.jobs + 2
    assert (found.total.media, found.total.bytes) > (before.media, before.bytes)
    assert found.items[-1].key_name
    assert client.cancel_batch(made.id).counts == ended.counts
    client.delete_batch(made.id)
    with pytest.raises(NotFoundError):
        client.batch(made.id)


def test_files_in_a_batch_are_scored_and_their_tokens_are_in_no_log(client_of_either_kind, stack, monkeypatch):
    tokens, put = [], Transport.put

    async def remember(self, upload, *given):
        tokens.append(upload["url"].partition("token=")[2])
        return await put(self, upload, *given)

    monkeypatch.setattr(Transport, "put", remember)
    made = client_of_either_kind.submit_batch([noise_picture(1), client_of_either_kind.upload(noise_picture(2))])
    ended = client_of_either_kind.wait_for_batch(made.id, timeout_s=60)
    assert [item.status for item in ended.items] == ["succeeded", "succeeded"]
    assert {len(token) for token in tokens} == {43}
    logs = "".join(path.read_text() for path in stack.state.glob("logs/*"))
    assert "/v1/uploads/<string:upload_id>/content" in logs
    assert not [token for token in tokens if token in logs]


def test_a_batch_of_which_nothing_is_accepted_is_an_error(client_of_either_kind):
    with pytest.raises(InvalidRequestError) as raised:
        client_of_either_kind.submit_batch([Submission("https://a.example/", model="nope")])
    assert [name for name, _ in raised.value.errors] == ["items.0"]


def test_the_command_line_submits_the_pictures_of_a_folder(stack, tmp_path):
    for number in range(2):
        (tmp_path / f"{number}.jpg").write_bytes(noise_picture(number))
    done = deepfakestream("batch", "submit", str(tmp_path), state=stack.state)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith(str(tmp_path))] == [str(tmp_path / f"{n}.jpg") for n in range(2)]
    assert lines[-1].startswith("2 files in ")
    assert not list(stack.state.glob("storage/incoming/*"))


def test_the_command_line_submits_and_shows_a_batch_and_usage(stack, pictures):
    addresses = [f"{pictures.url}/{name}.jpg" for name in ("0", "1", "absent")]
    done = deepfakestream("batch", "submit", *addresses, state=stack.state)
    assert done.returncode == 1, done.stderr
    batch_id = done.stderr.splitlines()[0].removeprefix("batch ")
    assert [line for line in done.stdout.splitlines() if line in addresses] == addresses
    assert "source_refused" in done.stdout
    assert "3 files in " in done.stdout.splitlines()[-1]
    assert "1 failed" in done.stdout.splitlines()[-1]
    shown = deepfakestream("batch", "show", "--csv", batch_id, state=stack.state)
    rows = list(csv.DictReader(io.StringIO(shown.stdout)))
    assert [row["file"] for row in rows] == ["0.jpg", "1.jpg", "absent.jpg"]
    assert [row["status"] for row in rows] == ["succeeded", "succeeded", "failed"]
    table = deepfakestream("usage", state=stack.state).stdout.splitlines()
    # Which further columns there are depends on the width.
    assert table[0].split()[:2] == ["day", "key"]
    assert int(table[-1].split()[1]) >= 3, "the jobs of the batch"
