import threading
import uuid
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from sqlalchemy import func, inspect, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import undefer

from shared.db import SessionFactory, after_commit
from shared.documents.jobs import JobDocument
from shared.errors import DecodeError, JobCancelledError, NotMediaError
from shared.jobs.creation import create_job
from shared.jobs.deliveries import list_deliveries
from shared.jobs.ending import Outcome, cancel_job, delete_job, end_job, forget_looks
from shared.jobs.leases import Lease, RetryPolicy, Step, release, renew
from shared.jobs.leases import acquire as lease_step
from shared.jobs.queries import get_job, get_segments, lock_job
from shared.jobs.results import record_plan, record_segment
from shared.jobs.segments import NO_SEGMENTS
from shared.manifests import DEFAULT_CHECKPOINT, PACKAGED_MODELS_DIR, find_manifest
from shared.media.direct_uploads import incoming_key
from shared.models import Delivery, Job, Media, Segment
from shared.queues import FINISH
from shared.states import JobStatus
from tests.integration.rows import add_job, new_job_of, recorded_statements

POLICY = RetryPolicy(max_attempts=3, backoff_s=0.0)
RESULT = {"fake_score": 0.25, "reasons": [], "people": []}


def planned_job(sessions: SessionFactory, segments: int = 2, webhook_url: str | None = None) -> uuid.UUID:
    with sessions.transaction() as session:
        job_id = add_job(session, webhook_url=webhook_url).id
    with sessions.transaction() as session:
        lease = lease_step(session, Step.INGEST, (job_id,), 30, max_attempts=9)
        assert lease is not None
        plan = [(index, 5.0 * index, 5.0 * index + 5) for index in range(segments)]
        record_plan(session, lease, {"kind": "video"}, plan)
    return job_id


def lease(sessions: SessionFactory, job_id: uuid.UUID, index: int, lease_s: float = 30) -> Lease:
    with sessions.transaction() as session:
        held = lease_step(session, Step.SCORE, (job_id, index), lease_s, max_attempts=9)
    assert held is not None
    return held


def test_a_step_is_leased_to_one_worker_at_a_time(sessions):
    job_id = planned_job(sessions)
    lease(sessions, job_id, 0)
    with sessions.transaction() as session:
        assert lease_step(session, Step.SCORE, (job_id, 0), 30, max_attempts=9) is None
        assert lease_step(session, Step.INGEST, (job_id,), 30, max_attempts=9) is None


def test_an_expired_lease_passes_on_and_its_first_holder_cannot_record(sessions):
    job_id = planned_job(sessions)
    first = lease(sessions, job_id, 0, lease_s=-1)
    second = lease(sessions, job_id, 0)
    assert second.attempt == 2
    with sessions.transaction() as session, pytest.raises(JobCancelledError):
        record_segment(session, first, fake_score=0.9, result=RESULT)
    with sessions.transaction() as session:
        assert not renew(session, first, 30)
        assert renew(session, second, 30)
        record_segment(session, second, fake_score=0.25, result=RESULT)
    with sessions.transaction() as session:
        assert [segment.fake_score for segment in get_segments(session, job_id)] == [0.25, None]


def test_exactly_one_of_several_concurrent_workers_ends_the_last_segment(sessions):
    job_id = planned_job(sessions, segments=8)
    leases = [lease(sessions, job_id, index) for index in range(8)]
    barrier = threading.Barrier(8)
    seen = []

    def record(held: Lease) -> None:
        barrier.wait()
        with sessions.transaction() as session:
            record_segment(session, held, fake_score=0.5, result=RESULT)
            seen.append([message.task for message in after_commit(session).messages])

    threads = [threading.Thread(target=record, args=(held,)) for held in leases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen) == [[]] * 7 + [[FINISH]]


def test_a_segment_is_recorded_once(sessions):
    job_id = planned_job(sessions, segments=1)
    held = lease(sessions, job_id, 0)
    with sessions.transaction() as session:
        record_segment(session, held, fake_score=None, result=RESULT)
        assert [message.task for message in after_commit(session).messages] == [FINISH]
    with sessions.transaction() as session, pytest.raises(JobCancelledError):
        record_segment(session, held, fake_score=0.5, result=RESULT)
    with sessions.transaction() as session:
        assert get_segments(session, job_id)[0].status == "unscorable"


def test_a_retryable_error_is_retried_until_attempts_are_used_up(sessions):
    job_id = planned_job(sessions, segments=1)
    statuses = []
    for _ in range(3):
        held = lease(sessions, job_id, 0)
        with sessions.transaction() as session:
            release(session, held, DecodeError("segment 0: the decoder crashed"), POLICY)
            can_finish = [message.task for message in after_commit(session).messages] == [FINISH]
        with sessions.transaction() as session:
            statuses.append((get_segments(session, job_id)[0].status, can_finish))
    assert statuses == [("pending", False), ("pending", False), ("failed", True)]
    with sessions.transaction() as session:
        segment = get_segments(session, job_id)[0]
        assert (segment.error_code, segment.error_detail) == (
            "decode_failed",
            "segment 0: the decoder crashed",
        )


def test_a_final_error_of_ingest_fails_the_job_and_schedules_its_webhook(sessions):
    with sessions.transaction() as session:
        job_id = add_job(session, webhook_url="https://receiver.example/hook").id
        held = lease_step(session, Step.INGEST, (job_id,), 30, max_attempts=9)
        release(session, held, NotMediaError("the file is neither"), POLICY)
        [message] = after_commit(session).messages
    with sessions.transaction() as session:
        job = get_job(session, job_id)
        assert (job.status, job.error_code) == ("failed", "not_media")
        (delivery,) = list_deliveries(session, job_id)
        assert (dict(message.ids), delivery.event) == ({"delivery_id": delivery.id}, "job.failed")


def test_a_cancelled_job_cannot_finish_or_be_worked_on(sessions):
    job_id = planned_job(sessions)
    held = lease(sessions, job_id, 0)
    with sessions.transaction() as session:
        cancel_job(session, lock_job(session, job_id))
    with sessions.transaction() as session:
        segments = get_segments(session, job_id)
        assert [(segment.status, segment.lease_token) for segment in segments] == [("pending", None)] * 2
        assert not renew(session, held, 30)
        assert lease_step(session, Step.SCORE, (job_id, 1), 30, max_attempts=9) is None
        with pytest.raises(JobCancelledError):
            record_segment(session, held, fake_score=0.5, result=RESULT)
        with pytest.raises(ValueError, match="cannot go from cancelled to succeeded"):
            end_job(session, lock_job(session, job_id), JobStatus.SUCCEEDED)


READ = [{"state": state} for state in ("none", "valid", "untrusted", "invalid")]
UNREAD = [{"state": "unreadable", "reason": "crashed"}, {"state": "not_checked", "reason": "library"}]


def plan_with(sessions, job_id, provenance):
    with sessions.transaction() as session:
        held = lease_step(session, Step.INGEST, (job_id,), 30, max_attempts=9)
    with sessions.transaction() as session:
        record_plan(session, held, {"kind": "image"}, [(0, 0.0, 1.0)], provenance=provenance)


@pytest.mark.parametrize("before", [None, *READ, *UNREAD], ids=str)
def test_only_credentials_that_were_read_replace_others(sessions, before):
    for found in (*READ, *UNREAD):
        with sessions.transaction() as session:
            job = add_job(session)
            job_id, media_id = job.id, job.media_id
            session.execute(update(Media).where(Media.id == media_id).values(provenance=before))
        plan_with(sessions, job_id, found)
        with sessions.transaction() as session:
            kept = session.get_one(Media, media_id).provenance
        assert kept == (before if before and found in UNREAD else found)


def test_credentials_that_another_job_reads_meanwhile_are_kept(sessions):
    """Both begin while the media has none. One reads them, and the other, which waits for the media, does not."""
    with sessions.transaction() as session:
        job = add_job(session)
        job_id, media_id = job.id, job.media_id
    waiting = threading.Thread(target=plan_with, args=(sessions, job_id, UNREAD[0]))
    with sessions.transaction() as session:
        session.execute(update(Media).where(Media.id == media_id).values(provenance=READ[1]))
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive(), "the plan waits for the lock of the media"
    waiting.join(10)
    with sessions.transaction() as session:
        assert session.get_one(Media, media_id).provenance == READ[1]


@pytest.mark.parametrize("step", ["plan", "erase"])
def test_a_submission_with_the_same_content_and_key_does_not_deadlock(sessions, step):
    """The submission locks the media, and its insert waits for the job with the same key, which is being changed."""
    with sessions.transaction() as session:
        job = add_job(session)
        job.idempotency_key = "key"
        job_id, media_id = job.id, job.media_id
        copied = {name: getattr(job, name) for name in ("owner", "api_key_id", "model", "request_sha256")}
    with sessions.transaction() as session:
        held = lease_step(session, Step.INGEST, (job_id,), 30, max_attempts=9)

    def change():
        with sessions.transaction() as session:
            if step == "plan":
                record_plan(session, held, {"kind": "video"}, [(0, 0.0, 5.0)])
            else:
                delete_job(session, lock_job(session, job_id))

    changing = threading.Thread(target=change)
    with sessions.transaction() as session:
        session.get_one(Media, media_id, with_for_update=True)
        changing.start()
        changing.join(0.3)
        assert changing.is_alive(), "the change waits for the lock of the media"
        with pytest.raises(IntegrityError), session.begin_nested():
            session.add(Job(**copied, idempotency_key="key", media_id=media_id, sample_fps=2.0, segment_seconds=5.0))
    changing.join(10)
    with sessions.transaction() as session:
        job = get_job(session, job_id)
        assert job is None if step == "erase" else job.segments_total == 1


def test_no_segment_is_leased_while_its_job_is_being_ended(sessions):
    """Such a lease would never be released, since segments of ended jobs are ignored."""
    job_id = planned_job(sessions)
    leased = []

    def begin():
        with sessions.transaction() as session:
            leased.append(lease_step(session, Step.SCORE, (job_id, 0), 30, max_attempts=9))

    with sessions.transaction() as session:
        cancel_job(session, lock_job(session, job_id))
        beginning = threading.Thread(target=begin)
        beginning.start()
        beginning.join(0.3)
        assert beginning.is_alive(), "acquire waits for the lock of the job"
    beginning.join(10)
    assert leased == [None]
    with sessions.transaction() as session:
        assert [segment.lease_token for segment in get_segments(session, job_id)] == [None, None]


def test_an_ended_job_keeps_its_outcome(sessions):
    job_id = planned_job(sessions, segments=1)
    held = lease(sessions, job_id, 0)
    with sessions.transaction() as session:
        record_segment(session, held, fake_score=0.25, result=RESULT)
    outcome = Outcome(0.25, 0.25, "inconclusive", ["untrained_model"], {"name": "swap-lite0"})
    with sessions.transaction() as session:
        end_job(session, lock_job(session, job_id), JobStatus.SUCCEEDED, outcome=outcome)
    with sessions.transaction() as session:
        job = get_job(session, job_id)
        assert (job.status, job.fake_score, job.verdict) == ("succeeded", 0.25, "inconclusive")


@pytest.mark.parametrize("how", ["ended", "ended by a release that knows no looks"])
def test_looks_are_forgotten_when_a_job_ends(sessions, how):
    job_id = planned_job(sessions, segments=1)
    held = lease(sessions, job_id, 0)
    with sessions.transaction() as session:
        record_segment(session, held, fake_score=0.5, result=RESULT, looks=["AA=="])
    with sessions.transaction() as session:
        forget_looks(session)
        assert session.get_one(Segment, (job_id, 0)).looks == ["AA=="], "the job still needs them"
    with sessions.transaction() as session:
        if how == "ended":
            end_job(session, session.get_one(Job, job_id, with_for_update=True), JobStatus.CANCELLED)
        else:
            session.execute(update(Job).where(Job.id == job_id).values(status="cancelled", finished_at=func.now()))
            forget_looks(session)
    with sessions.transaction() as session:
        left = select(Segment.index).where(Segment.job_id == job_id, Segment.looks.is_not(None))
        assert session.scalars(left).all() == []


def test_a_deleted_job_leaves_a_bare_tombstone(sessions):
    job_id = planned_job(sessions, webhook_url="https://receiver.example/hook")
    with sessions.transaction() as session:
        media_id = session.scalar(select(Job.media_id).where(Job.id == job_id))
        delete_job(session, lock_job(session, job_id))
        assert len(after_commit(session).removals) == 1
    with sessions.transaction() as session:
        assert get_job(session, job_id) is None
        assert session.get(Media, media_id) is None
        assert session.scalar(select(func.count()).select_from(Segment).where(Segment.job_id == job_id)) == 0
        assert session.scalar(select(func.count()).select_from(Delivery).where(Delivery.job_id == job_id)) == 0
        tombstone = session.get_one(Job, job_id)
        assert (tombstone.client_metadata, tombstone.webhook_url, tombstone.verdict) == ({}, None, None)


KEPT_COLUMNS = {
    *("id", "owner", "api_key_id", "status", "model", "sample_fps", "segment_seconds", "request_sha256"),
    *("segments_total", "segments_done", "attempts", "sent_at", "send_after"),
    *("created_at", "started_at", "finished_at", "deleted_at"),
}
"""Columns of a deleted job that stay: who, when and how much, and nothing of the sender's or of the result."""


def test_every_other_column_is_cleared_by_a_deletion(sessions):
    job_id = planned_job(sessions)
    values = {uuid.UUID: uuid.uuid4(), str: "real", float: 0.5, dict: {"a": 1}, list: ["a"]}
    columns = {column.key: column.columns[0] for column in inspect(Job).column_attrs if column.key not in KEPT_COLUMNS}
    with sessions.transaction() as session:
        job = lock_job(session, job_id)
        for name in columns.keys() - {"media_id"}:
            if (kind := columns[name].type.python_type) in values:
                setattr(job, name, values[kind])
        job.source_key = incoming_key(uuid.uuid4())
        session.flush()
        delete_job(session, job)
    with sessions.transaction() as session:
        tombstone = session.get_one(Job, job_id, options=[undefer(Job.manifest)])
        assert {name: value for name in columns if (value := getattr(tombstone, name))} == {}


def test_media_that_another_job_uses_survives_a_deletion(sessions):
    job_id = planned_job(sessions)
    with sessions.transaction() as session:
        job = get_job(session, job_id)
        other = add_job(session, owner=job.owner)
        other.media_id = job.media_id
        session.flush()
        delete_job(session, lock_job(session, job_id))
        assert not after_commit(session).removals
        other_id = other.id
    with sessions.transaction() as session:
        delete_job(session, lock_job(session, other_id))
        assert after_commit(session).removals


def test_the_database_refuses_a_score_outside_its_range(sessions):
    job_id = planned_job(sessions, segments=1)
    with pytest.raises(Exception, match="ck_segments_fake_score"), sessions.transaction() as session:
        session.execute(update(Segment).where(Segment.job_id == job_id).values(status="scored", fake_score=1.5))


def test_the_database_refuses_a_scored_segment_without_a_score(sessions):
    job_id = planned_job(sessions, segments=1)
    with pytest.raises(Exception, match="scored_has_score"), sessions.transaction() as session:
        session.execute(text("update segments set status = 'scored' where job_id = :job_id"), {"job_id": job_id})


@pytest.mark.parametrize("key", [None, "a-key"], ids=["without-key", "with-key"])
def test_a_new_job_is_described_without_a_query(sessions, key):
    with sessions.transaction() as session:
        manifest = find_manifest(PACKAGED_MODELS_DIR, DEFAULT_CHECKPOINT)
        new = replace(new_job_of(session, manifest), idempotency_key=key)
        with recorded_statements(sessions.engine) as statements:
            job, is_new = create_job(session, new)
            document = JobDocument.from_job(job, NO_SEGMENTS)
        assert is_new
        assert document.created_at <= datetime.now(UTC)
        around = [] if key is None else ["SAVEPOINT", "RELEASE"]
        assert sorted(statement.split()[0] for statement in statements) == sorted(["INSERT", *around])
