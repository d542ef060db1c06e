"""Killed workers and a lost Redis: every job ends, exactly once, with the same result as without faults."""

import os
import signal
import time

import pytest

from tests.clips import astronaut, hopper, make_clip
from tests.inside import children_of, postgres_of, redis_of, service_of

UNTIL_SWEPT_S = 4.0
"""Longer than a lease, a sweep or the wait before a message is sent again (``tests.conftest.SHORT_LEASES``)."""


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory):
    """Make a clip whose scoring takes a few seconds, so that it can be interrupted."""
    path = tmp_path_factory.mktemp("long") / "long.mp4"
    return make_clip(path, seconds=9.0, size=(640, 360), faces=(astronaut(), hopper()))


OPTIONS = {"sample_fps": 5.0, "segment_seconds": 4.5}


@pytest.fixture(scope="module")
def undisturbed(stack, long_clip):
    from deepfakestream import Client

    with Client(stack.url, stack.api_key_file.read_text().strip()) as client:
        return result(client.wait(client.submit(long_clip, **OPTIONS).id, timeout_s=120))


def result(job):
    """Return the part of a job that must not depend on crashes."""
    return (
        job.status,
        job.verdict,
        job.fake_score,
        job.peak_score,
        [(segment.start_s, segment.end_s, segment.status, segment.fake_score) for segment in job.segments],
    )


def wait_until(check, timeout_s=30.0):
    deadline = time.monotonic() + timeout_s
    while not check():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def attempts(stack, job_id):
    with postgres_of(stack) as connection:
        rows = connection.execute("select attempts from segments where job_id = %s order by index", (job_id,))
        return [row[0] for row in rows]


def ending(connection, job_id):
    return connection.execute("select status, finished_at from jobs where id = %s", (job_id,)).fetchone()


@pytest.fixture(scope="module")
def ended(stack):
    """Collect ended jobs and their final rows; after all tests, check that these have not changed."""
    jobs = {}
    yield jobs
    time.sleep(UNTIL_SWEPT_S)
    with postgres_of(stack) as connection:
        assert {job_id: ending(connection, job_id) for job_id in jobs} == jobs


@pytest.fixture
def ended_once(stack, ended):
    """Return a function that checks that a job's row is final and not leased; the row is checked again at the end."""

    def check(job_id, expected):
        with postgres_of(stack) as connection:
            open_segments = connection.execute(
                "select count(*) from segments where job_id = %s"
                " and (status in ('pending', 'running') or lease_token is not null)",
                (job_id,),
            ).fetchone()
            ended[job_id] = ending(connection, job_id)
        assert open_segments == (0,)
        assert ended[job_id][0] == expected

    return check


def test_a_scoring_process_killed_in_the_middle_of_a_segment(client, stack, long_clip, undisturbed, ended_once):
    job = client.submit(long_clip, **OPTIONS)
    wait_until(lambda: any(segment.status == "running" for segment in client.get(job.id).segments))
    (victim,) = children_of(service_of(stack, "worker-gpu"))
    os.kill(victim, signal.SIGKILL)
    assert result(client.wait(job.id, timeout_s=120)) == undisturbed
    assert max(attempts(stack, job.id)) == 2
    ended_once(job.id, "succeeded")


def test_a_whole_worker_killed_in_the_middle_of_a_segment(client, stack, long_clip, undisturbed, ended_once):
    job = client.submit(long_clip, **OPTIONS)
    wait_until(lambda: any(segment.status == "running" for segment in client.get(job.id).segments))
    worker = service_of(stack, "worker-gpu")
    os.killpg(worker.process.pid, signal.SIGKILL)
    wait_until(worker.has_died)
    stack.restart_dead()
    assert result(client.wait(job.id, timeout_s=120)) == undisturbed
    assert max(attempts(stack, job.id)) == 2
    ended_once(job.id, "succeeded")


def test_a_worker_that_receives_sigterm_finishes_its_segment(client, stack, long_clip, undisturbed, ended_once):
    job = client.submit(long_clip, **OPTIONS)
    wait_until(lambda: any(segment.status == "running" for segment in client.get(job.id).segments))
    worker = service_of(stack, "worker-gpu")
    worker.process.terminate()
    wait_until(worker.has_died)
    stack.restart_dead()
    assert result(client.wait(job.id, timeout_s=120)) == undisturbed
    # No segment was started twice, so the test never waited for a lease to expire.
    assert set(attempts(stack, job.id)) == {1}
    ended_once(job.id, "succeeded")


def test_the_cpu_worker_killed_with_jobs_in_flight(client, stack, clip, long_clip, undisturbed):
    jobs = [client.submit(long_clip, **OPTIONS), *(client.submit(clip) for _ in range(3))]
    worker = service_of(stack, "worker-cpu")
    os.killpg(worker.process.pid, signal.SIGKILL)
    wait_until(worker.has_died)
    stack.restart_dead()
    done = [client.wait(job.id, timeout_s=120) for job in jobs]
    assert result(done[0]) == undisturbed
    assert {job.status for job in done} == {"succeeded"}
    assert len({job.fake_score for job in done[1:]}) == 1


def test_redis_flushed_with_jobs_in_flight(client, stack, long_clip, clip, undisturbed, ended_once):
    jobs = [client.submit(long_clip, **OPTIONS) for _ in range(2)]
    jobs.append(client.submit(clip))
    wait_until(lambda: any(segment.status == "running" for segment in client.get(jobs[0].id).segments))
    redis_of(stack).flushall()
    done = [client.wait(job.id, timeout_s=180) for job in jobs]
    for job in done[:2]:
        assert result(job) == undisturbed
        ended_once(job.id, "succeeded")
    assert done[2].status == "succeeded"


def test_redis_down_while_jobs_are_submitted(client, stack, clip):
    server = service_of(stack, "redis")
    server.process.kill()
    wait_until(server.has_died)
    job = client.submit(clip)
    assert job.status == "queued"
    stack.restart_dead()
    assert client.wait(job.id, timeout_s=120).status == "succeeded"


def test_a_poisonous_segment_fails_after_counted_attempts(client, stack, long_clip):
    job = client.submit(long_clip, sample_fps=10.0, segment_seconds=60.0)
    for _ in range(3):
        wait_until(lambda: client.get(job.id).is_final or client.get(job.id).segments[:1] != ())
        wait_until(lambda: any(segment.status == "running" for segment in client.get(job.id).segments), 60)
        before = attempts(stack, job.id)[0]

        def goes_on(before=before):
            return attempts(stack, job.id)[0] > before or client.get(job.id).is_final

        (victim,) = children_of(service_of(stack, "worker-gpu"))
        os.kill(victim, signal.SIGKILL)
        wait_until(goes_on, 60)
    done = client.wait(job.id, timeout_s=60)
    assert (done.status, done.error.code) == ("failed", "attempts_exhausted")
