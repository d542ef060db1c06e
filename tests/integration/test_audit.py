"""The audit log in a real database: what is recorded, and that it cannot be changed."""

import json
import subprocess
import sys
from typing import Any

import pytest
from sqlalchemy import delete, select, text, update
from sqlalchemy.exc import DBAPIError

from api.keys import create_key, revoke_key
from shared.audit import OPERATOR, Actor, expire_events, list_events, record_event
from shared.config import Jobs
from shared.models import APIKey, AuditEvent, Job, Media
from tests.inside import environment_of
from tests.integration.rows import add_job
from worker.tasks.expiry import expire


def actions(sessions, owner):
    with sessions.transaction() as session:
        return [(event.action, event.actor) for event in list_events(session, owner=owner)]


def test_creation_and_revocation_of_keys_are_recorded_once_without_secrets(sessions):
    with sessions.transaction() as session:
        made = create_key(session, owner="audited", name="newsroom", scopes=["jobs:read"])
    for _ in range(2):
        with sessions.transaction() as session:
            assert revoke_key(session, made.row.id)
    assert actions(sessions, "audited") == [("key.created", OPERATOR), ("key.revoked", OPERATOR)]
    with sessions.transaction() as session:
        for event in list_events(session, owner="audited"):
            assert event.detail["key_id"] == str(made.row.id)
            assert made.secret not in json.dumps(event.detail)
            assert made.row.webhook_secret not in json.dumps(event.detail)


def test_a_rolled_back_transaction_records_nothing(sessions):
    def begin_and_fail():
        with sessions.transaction() as session:
            create_key(session, owner="undone", name="never", scopes=[])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        begin_and_fail()
    assert actions(sessions, "undone") == []


@pytest.mark.parametrize(
    "change",
    [
        update(AuditEvent).values(owner="somebody else"),
        delete(AuditEvent),
        text("truncate audit_events"),
        text("delete from audit_events where at < now() + interval '1 day'"),
    ],
    ids=["update", "delete", "truncate", "plain delete"],
)
def test_the_database_refuses_to_change_events(sessions, change):
    with sessions.transaction() as session:
        record_event(session, "job.submitted", owner="kept", actor=Actor("test"))
    with pytest.raises(DBAPIError, match="neither changed nor removed"), sessions.transaction() as session:
        session.execute(change)
    assert ("job.submitted", "test") in actions(sessions, "kept")


def test_retention_removes_only_old_events(sessions):
    with sessions.transaction() as session:
        record_event(session, "job.submitted", owner="retained", actor=Actor("new"))
        at: Any = session.scalar(text("select now() - interval '3 days'"))
        session.add(AuditEvent(action="job.submitted", owner="retained", actor="old", detail={}, at=at))
    with sessions.transaction() as session:
        assert expire_events(session, 2) == 1
        # The permission to remove events has ended.
        with pytest.raises(DBAPIError, match="neither changed nor removed"):
            session.execute(delete(AuditEvent))
        session.rollback()
    with sessions.transaction() as session:
        assert expire_events(session, 2) == 1
    assert actions(sessions, "retained") == [("job.submitted", "new")]


def test_expiry_is_recorded(sessions):
    with sessions.transaction() as session:
        job = add_job(session)
        owner, job_id = job.owner, job.id
    with sessions.transaction() as session:
        ended = text("now() - interval '2 days'")
        session.execute(update(Job).where(Job.id == job_id).values(status="cancelled", finished_at=ended))
        session.execute(update(Media).where(Media.owner == owner).values(expires_at=ended))
    expire(sessions, Jobs(result_retention_days=1))
    assert sorted(actions(sessions, owner)) == [("job.expired", "service"), ("media.expired", "service")]


def test_events_outlive_their_key(sessions):
    with sessions.transaction() as session:
        made = create_key(session, owner="gone", name="short-lived", scopes=[])
    with sessions.transaction() as session:
        session.delete(session.scalars(select(APIKey).where(APIKey.id == made.row.id)).one())
    assert actions(sessions, "gone") == [("key.created", OPERATOR)]


def test_an_operator_can_print_the_log(stack, client, clip):
    job = client.submit(clip)
    client.delete(job.id)
    arguments = [sys.executable, "-m", "api.audit", "--job", job.id]
    environment = environment_of(stack)
    done = subprocess.run(arguments, env=environment, cwd=stack.state, capture_output=True, text=True, check=True)
    submitted, erased = (json.loads(line) for line in done.stdout.splitlines())
    assert (submitted["action"], erased["action"]) == ("job.submitted", "job.erased")
    for event in (submitted, erased):
        assert (event["owner"], event["actor"], event["address"]) == ("local", "embedded", "127.0.0.1")
        assert event["request_id"]
    assert set(submitted["detail"]) == {"sha256"}
    assert stack.api_key_file.read_text().strip() not in done.stdout
