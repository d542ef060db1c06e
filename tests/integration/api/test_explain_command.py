"""``deepfakestream explain`` and the SDK against the API itself, behind a real HTTP server."""

import threading
import time
import uuid
from datetime import timedelta

import pytest
from click.testing import CliRunner
from deepfakestream import Client
from deepfakestream.cli import main
from deepfakestream.errors import NotFoundError
from sqlalchemy import update
from werkzeug.serving import make_server

from api.admission import EXPLAIN_AGAIN_AFTER_S
from shared.jobs.ending import cancel_job
from shared.jobs.explanations import fail_explanation, find_explanation, new_images_key, store_images
from shared.jobs.leases import Step, acquire
from shared.jobs.queries import lock_job
from shared.jobs.results import record_explanation
from shared.models import Job, Media
from shared.states import JobStatus
from shared.storage import FileStorage
from tests.clips import noise_picture
from tests.integration.api.finished import finish_job
from tests.unit.client.explained import explained_person, names_of

PERSON = explained_person()
IMAGES = {name: f"image {name}".encode() for name in names_of(PERSON)}
MODEL = {"name": "swap-lite2", "version": "1.0.0", "weights_sha256": "1" * 64}


@pytest.fixture
def key(api):
    headers, _ = api.key("owner")
    return headers["Authorization"].removeprefix("Bearer ")


@pytest.fixture
def url(api):
    """Serve the api on a free loopback port."""
    server = make_server("127.0.0.1", 0, api.app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def client(url, key):
    with Client(url, key) as connected:
        yield connected


@pytest.fixture
def explain(url, key):
    """Run the command ``explain`` in this process."""

    def run(*arguments):
        given = ["--url", url, "--api-key", key, "explain", *map(str, arguments)]
        return CliRunner().invoke(main, given)

    return run


def submit(client, tmp_path, **options):
    path = tmp_path / "a.jpg"
    path.write_bytes(noise_picture(1))
    return client.submit(path, **options).id


def make_explanation(api, job_id):
    """Store images and record an explanation as its step does."""
    with api.sessions.transaction() as session:
        lease = acquire(session, Step.EXPLAIN, (uuid.UUID(job_id),), 60.0, max_attempts=2)
    image_key = new_images_key()
    places = store_images(FileStorage(api.storage.as_uri()), image_key, IMAGES)
    result = {"note": "How to read it.", "model": MODEL, "people": [PERSON], "images": places}
    with api.sessions.transaction() as session:
        record_explanation(session, lease, result, image_key)


def erase_media(api, job_id):
    """Erase the media of a job and the images made of it, as their expiry does."""
    with api.sessions.transaction() as session:
        job = session.get(Job, uuid.UUID(job_id))
        session.execute(update(Media).where(Media.id == job.media_id).values(storage_key=None))
        if (found := find_explanation(session, job.id)) is not None:
            found.storage_key = None


def test_an_explanation_is_printed_and_its_images_are_written(api, client, explain, tmp_path):
    job_id = submit(client, tmp_path, explain=True)
    assert client.get(job_id).explanation.status == client.explanation(job_id).status == "pending"
    finish_job(api, job_id)
    make_explanation(api, job_id)
    done = explain(job_id, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert "person 0: face at 1:01.50, score 0.9300\n" in done.stdout
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == IMAGES
    assert client.wait_for_explanation(job_id, timeout_s=5).raw == client.explain(job_id).raw


def test_what_was_not_requested_is_requested_and_awaited(api, client, explain, tmp_path):
    job_id = submit(client, tmp_path)
    finish_job(api, job_id)
    with pytest.raises(NotFoundError, match="no explanation of this job was requested"):
        client.explanation(job_id)
    done = explain(job_id, "--timeout", "0.1")
    assert done.exit_code == 1
    assert done.stderr == f"Error: the explanation of job {job_id} was not made within 0.1 s; it goes on\n"
    assert client.explanation(job_id).status == "pending"


@pytest.mark.parametrize("status", [JobStatus.QUEUED, JobStatus.RUNNING])
def test_a_job_that_has_not_ended_has_nothing_to_explain_yet(api, client, explain, tmp_path, status):
    job_id = submit(client, tmp_path)
    with api.sessions.transaction() as session:
        session.execute(update(Job).values(status=status))
    done = explain(job_id)
    assert done.exit_code == 1
    assert done.stderr == f"Error: job {job_id} has no result to explain: its status is {status} (job_not_final)\n"


@pytest.mark.parametrize("requested", [True, False])
def test_a_cancelled_job_is_not_explained(client, explain, tmp_path, requested):
    job_id = submit(client, tmp_path, explain=requested)
    client.cancel(job_id)
    done = explain(job_id)
    assert done.exit_code == 1
    said = f"Error: job {job_id} has no result to explain: its status is cancelled (job_already_final)\n"
    assert done.stderr == said


def test_a_job_that_is_cancelled_while_one_waits_ends_the_wait(api, client, tmp_path):
    job_id = submit(client, tmp_path, explain=True)
    cancelled = threading.Timer(0.1, cancel, (api, job_id))
    cancelled.start()
    with pytest.raises(NotFoundError):
        client.wait_for_explanation(job_id, timeout_s=10, poll_s=0.02)
    cancelled.join()


def cancel(api, job_id):
    with api.sessions.transaction() as session:
        cancel_job(session, lock_job(session, uuid.UUID(job_id)))


def test_media_that_was_erased_cannot_be_explained(api, client, explain, tmp_path):
    job_id = submit(client, tmp_path)
    finish_job(api, job_id)
    erase_media(api, job_id)
    done = explain(job_id)
    assert done.exit_code == 1
    assert "is not stored, so it cannot be explained (media_missing)" in done.stderr


def test_numbers_outlive_media_and_images_are_missed(api, client, explain, tmp_path):
    job_id = submit(client, tmp_path, explain=True)
    finish_job(api, job_id)
    make_explanation(api, job_id)
    erase_media(api, job_id)
    assert explain(job_id).exit_code == 0
    done = explain(job_id, "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert "person 0: face at" in done.stdout
    assert "the images were erased with the media" in done.stderr
    assert not (tmp_path / "out").exists()
    with pytest.raises(NotFoundError) as raised:
        client.explanation_image(job_id, "person-0-map.webp")
    assert raised.value.code == "media_missing"


def test_one_that_failed_is_tried_again_after_a_minute(api, client, explain, tmp_path):
    job_id = submit(client, tmp_path, explain=True)
    finish_job(api, job_id)
    with api.sessions.transaction() as session:
        fail_explanation(find_explanation(session, uuid.UUID(job_id)), "decode_failed", "it cannot be decoded")
    assert client.explanation(job_id).error.code == "decode_failed"
    began = time.monotonic()
    refused = explain(job_id, "--timeout", "0.1")
    assert refused.exit_code == 1
    assert f"{EXPLAIN_AGAIN_AFTER_S} s after its failure (rate_limited)" in refused.stderr, refused.stderr
    assert time.monotonic() - began < EXPLAIN_AGAIN_AFTER_S / 2, "it waited for the minute to pass"
    with api.sessions.transaction() as session:
        find_explanation(session, uuid.UUID(job_id)).finished_at -= timedelta(seconds=EXPLAIN_AGAIN_AFTER_S + 1)
    assert "not made within" in explain(job_id, "--timeout", "0.1").stderr
    assert client.explanation(job_id).status == "pending"


def test_a_stranger_learns_nothing(api, client, url, tmp_path):
    job_id = submit(client, tmp_path, explain=True)
    stranger = api.key("stranger")[0]["Authorization"].removeprefix("Bearer ")
    done = CliRunner().invoke(main, ["--url", url, "--api-key", stranger, "explain", job_id])
    assert done.exit_code == 1
    assert done.stderr == f"Error: there is no job {job_id} (not_found)\n"
