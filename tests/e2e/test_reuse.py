"""Reuse of scores: the result is the same as if the file had been scored again, without the work."""

import pytest
from deepfakestream import Client

from tests.clips import make_clip
from tests.inside import postgres_of
from tests.integration.api.test_http import other_owner
from tests.receiver import running_receiver


@pytest.fixture(scope="module")
def own_clip(tmp_path_factory):
    return make_clip(tmp_path_factory.mktemp("reuse") / "clip.mp4", seconds=7.0, fps=9.0)


@pytest.fixture
def scored(client, own_clip):
    job = client.wait(client.submit(own_clip).id, timeout_s=60)
    assert (job.status, job.reused_from) == ("succeeded", None)
    yield job
    client.delete(job.id)


def times_begun(stack, job_id):
    """Return how often workers have started the ingest and the segments of a job."""
    with postgres_of(stack) as connection:
        query = "select attempts + (select coalesce(sum(attempts), 0) from segments where job_id = jobs.id) from jobs"
        return connection.execute(f"{query} where id = %s", (job_id,)).fetchone()[0]


def without_what_is_its_own(document):
    own = {"id", "created_at", "started_at", "finished_at", "reused_from", "metadata", "options", "poll_after_s"}
    return {name: value for name, value in document.items() if name not in own}


def test_a_repeated_request_reuses_scores_without_a_worker(client, stack, scored, own_clip):
    job = client.submit(own_clip, reuse=True, metadata={"again": 1})
    assert (job.status, job.reused_from) == ("succeeded", scored.id)
    assert without_what_is_its_own(job.raw) == without_what_is_its_own(client.get(scored.id).raw)
    assert list(client.segments(job.id)) == list(client.segments(scored.id))
    assert times_begun(stack, job.id) == 0
    assert times_begun(stack, scored.id) > 0
    client.delete(job.id)


def test_reused_scores_stay_when_their_source_is_deleted(client, own_clip):
    first = client.wait(client.submit(own_clip).id, timeout_s=60)
    second = client.submit(own_clip, reuse=True)
    client.delete(first.id)
    third = client.submit(own_clip, reuse=True)
    assert client.get(second.id).fake_score == first.fake_score
    assert len(list(client.segments(second.id))) == len(first.segments)
    # It still names the job that was scored, although that was deleted.
    assert (third.status, third.reused_from) == ("succeeded", first.id)
    for job in (second, third):
        client.delete(job.id)


@pytest.mark.parametrize("options", [{}, {"reuse": False}, {"reuse": True, "sample_fps": 1.0}], ids=str)
@pytest.mark.usefixtures("scored")
def test_other_options_are_scored_again(client, own_clip, options):
    job = client.submit(own_clip, **options)
    assert job.reused_from is None
    assert client.wait(job.id, timeout_s=60).reused_from is None
    client.delete(job.id)


@pytest.mark.usefixtures("scored")
def test_another_owner_s_scores_are_not_taken_over(stack, own_clip):
    headers, _ = other_owner(stack)
    with Client(stack.url, headers["Authorization"].removeprefix("Bearer ")) as other:
        job = other.submit(own_clip, reuse=True)
        assert (job.status, job.reused_from) == ("queued", None)
        other.delete(job.id)


def test_a_reused_job_sends_its_webhook(client, scored, own_clip):
    with running_receiver() as receiver:
        job = client.submit(own_clip, reuse=True, webhook_url=receiver.url)
        assert job.reused_from == scored.id
        for _ in range(100):
            if client.deliveries(job.id)[0].status == "succeeded":
                break
            client.get(job.id, wait_s=1)
        assert len(receiver.requests) == 1
    client.delete(job.id)


@pytest.mark.usefixtures("scored")
def test_an_idempotent_repetition_makes_no_second_job(client, own_clip):
    first = client.submit(own_clip, reuse=True, idempotency_key="reuse-1")
    again = client.submit(own_clip, reuse=True, idempotency_key="reuse-1")
    assert again.id == first.id
    assert again.raw["segments"] == first.raw["segments"]
    client.delete(first.id)
