"""Both clients of the SDK, by the same tests, against the running service."""

import contextlib
import hashlib
import io
from datetime import timedelta

import pytest
from deepfakestream import NotFoundError
from deepfakestream.verification import verify_bundle

from tests.clients import BOTH_CLIENTS, CLIENT_IDS
from tests.clips import make_clip, noise_picture, run
from tests.live import Playlist, serving
from tests.receiver import running_receiver
from tests.unit.worker.explain.conftest import swapped_portrait


@pytest.fixture(scope="module", params=BOTH_CLIENTS, ids=CLIENT_IDS)
def client(request, stack):
    """Each of the clients, which finds the stack by its state folder alone."""
    with request.param(state=stack.state) as connected:
        yield connected


@pytest.fixture(scope="module")
def portrait(tmp_path_factory):
    path = tmp_path_factory.mktemp("portrait") / "one.mp4"
    return make_clip(path, fps=2.0, seconds=2.0, size=(640, 360), faces=(swapped_portrait(),))


@pytest.fixture(scope="module")
def finished(client, portrait):
    """A job of the portrait that has ended, with an explanation."""
    job = client.submit(portrait, metadata={"case": 7}, segment_seconds=1.0, explain=True, reuse=False)
    states = list(client.progress(job.id, timeout_s=120, poll_s=0.1))
    assert [state.is_final for state in states] == [False] * (len(states) - 1) + [True]
    assert states[-1].status == "succeeded"
    return states[-1]


def test_a_finished_job_is_read_in_every_form(client, finished):
    assert (finished.metadata, finished.segments_total, finished.fraction) == ({"case": 7}, 2, 1.0)
    waited, got = client.wait(finished.id, timeout_s=10), client.get(finished.id, wait_s=1.0)
    assert (waited.segments, waited.people, waited.verdict) == (got.segments, got.people, got.verdict)
    segments = list(client.segments(finished.id))
    assert [segment.index for segment in segments] == [0, 1]
    assert all(segment.people[0].faces for segment in segments)
    assert next(iter(client.list(status="succeeded"))).id == finished.id
    assert finished.model.name in {model["name"] for model in client.models()}
    assert client.deliveries(finished.id) == ()


def test_what_is_handed_on_of_a_job(client, finished, portrait, tmp_path):
    assert client.review(finished.id, "confirmed_fake", "as seen").finding == "confirmed_fake"
    assert client.get(finished.id).review.note == "as seen"
    client.withdraw_review(finished.id)
    link = client.share(finished.id, valid_s=3600)
    assert link.expires_at - link.created_at == timedelta(hours=1)
    assert [each.id for each in client.shares(finished.id)] == [link.id]
    client.revoke_share(finished.id, link.id)
    assert client.shares(finished.id) == ()
    assert client.report(finished.id, tmp_path / "report.html").read_bytes().startswith(b"<!doctype html>")
    assert client.report(finished.id, tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
    found = verify_bundle(client.evidence(finished.id, tmp_path / "bundle.zip"), media=portrait)
    assert found.passed, found.checks
    assert client.evidence_key()["public_key"]
    assert {path.name for path in tmp_path.iterdir()} == {"report.html", "report.pdf", "bundle.zip"}


def test_faces_are_explained(client, finished):
    made = client.wait_for_explanation(finished.id, timeout_s=120)
    assert (made.status, client.explain(finished.id).raw) == ("succeeded", made.raw)
    image = made.images[0]
    assert hashlib.sha256(client.explanation_image(finished.id, image.name)).hexdigest() == image.sha256


def test_stored_media_is_scored_again_compared_and_erased(client, finished):
    again = client.wait(client.rescore(finished.id, reuse=False).id, timeout_s=120)
    assert (again.parent_id, again.fake_score) == (finished.id, finished.fake_score)
    assert client.diff(finished.id, again.id)["score_change"] == 0.0
    client.delete(again.id)
    with pytest.raises(NotFoundError):
        client.get(again.id)


def test_each_kind_of_source_gives_the_same_media(client):
    content = noise_picture(3)
    with running_receiver() as receiver:
        receiver.files["/a.jpg"] = content
        sources = (content, io.BytesIO(content), f"{receiver.url}/a.jpg")
        jobs = [client.wait(client.submit(source).id, timeout_s=120) for source in sources]
    assert {job.raw["media"]["sha256"] for job in jobs} == {hashlib.sha256(content).hexdigest()}


def test_a_repeated_submission_under_one_key_makes_one_job(client):
    key = f"once-{id(client)}"
    first, second = (client.submit(noise_picture(4), idempotency_key=key) for _ in range(2))
    assert first.id == second.id
    client.delete(first.id)


def test_a_stream_is_watched_to_its_end(client, portrait, tmp_path):
    clip, folder = tmp_path / "live.ts", tmp_path / "source"
    folder.mkdir()
    run("-i", str(portrait), "-c:v", "libx264", "-r", "25", "-g", "25", str(clip))
    source = Playlist(clip, folder)
    source.publish(source.parts)
    source.finish()
    with serving(source, folder) as url:
        stream = client.begin_stream(url, segment_seconds=1.0, duration_limit_s=60)
        events = list(client.watch(stream.id))
        # Reading on from an event gives those after it.
        with contextlib.closing(client.watch(stream.id, after=events[-2].seq)) as rest:
            assert list(rest) == events[-1:]
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert events[-1].kind == "ended"
    assert client.stream(stream.id).is_final
    assert client.stop_stream(stream.id).is_final
    assert stream.id in {each.id for each in client.streams(limit=3)}
    client.delete_stream(stream.id)
    with pytest.raises(NotFoundError):
        client.stream(stream.id)
