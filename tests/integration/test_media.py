"""Repeated content: which of two stored files is kept."""

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func

from api.reuse import find_reusable_job
from shared.db import after_commit
from shared.jobs.ending import cancel_job, delete_job
from shared.jobs.queries import lock_job
from shared.media.files import StoredFile, attach_media, media_transaction, new_storage_key
from shared.models import Media
from shared.storage import FileStorage
from tests.integration.rows import add_job, recorded_statements


def key_of_age(age):
    """Return a storage key that was made *age* ago."""
    milliseconds = int((datetime.now(UTC) - age).timestamp() * 1000)
    return f"media/{uuid.UUID(int=milliseconds << 80 | 7 << 76 | 2 << 62)}"


@pytest.mark.parametrize(("age_days", "is_in_use", "which"), [(1, False, "old"), (31, False, "new"), (31, True, "old")])
def test_a_file_older_than_the_retention_is_replaced_by_its_repetition(sessions, age_days, is_in_use, which):
    old, new = key_of_age(timedelta(days=age_days)), new_storage_key()
    with sessions.transaction() as session:
        job = add_job(session)
        media = session.get_one(Media, job.media_id)
        media.storage_key = old
        if not is_in_use:
            cancel_job(session, lock_job(session, job.id))
        file = StoredFile(new, media.sha256, 1)
        again = attach_media(session, file, owner=media.owner, retention_days=30)
        assert again.id == media.id
        removals = list(after_commit(session).removals)
        assert {"old": (old, [new]), "new": (new, [old])}[which] == (again.storage_key, removals)


def test_content_whose_last_job_is_being_erased_is_stored_again(sessions):
    with sessions.transaction() as session:
        job = add_job(session)
        job_id, owner, sha256 = job.id, job.owner, job.media.sha256
    is_deleted, may_commit = threading.Event(), threading.Event()

    def erase():
        with sessions.transaction() as session:
            delete_job(session, lock_job(session, job_id))
            is_deleted.set()
            may_commit.wait(10)

    key = new_storage_key()
    with ThreadPoolExecutor() as threads:
        erasing = threads.submit(erase)
        is_deleted.wait(10)
        # By then the other transaction is most likely waiting for the row.
        timer = threading.Timer(0.5, may_commit.set)
        timer.start()
        with sessions.transaction() as session:
            media = attach_media(session, StoredFile(key, sha256, 1), owner=owner, retention_days=1)
            assert (media.storage_key, list(after_commit(session).removals)) == (key, [])
        erasing.result()


def test_reuse_does_not_wait_for_a_result_that_is_being_erased(sessions):
    """The erasing transaction waits for the media, which the new job has locked."""
    with sessions.transaction() as session:
        job = add_job(session)
        job.status, job.finished_at, job.model_description = "succeeded", func.now(), {"name": "any"}
        job_id, media_id, owner, sha256 = job.id, job.media_id, job.owner, job.media.sha256
    is_locked, may_go_on = threading.Event(), threading.Event()

    def erase():
        with sessions.transaction() as session:
            found = lock_job(session, job_id)
            is_locked.set()
            may_go_on.wait(10)
            delete_job(session, found)

    with ThreadPoolExecutor() as threads:
        erasing = threads.submit(erase)
        is_locked.wait(10)
        with sessions.transaction() as session:
            attach_media(session, StoredFile(new_storage_key(), sha256, 1), owner=owner, retention_days=1)
            may_go_on.set()
            new = add_job(session, owner=owner)
            new.media_id = media_id
            session.flush()
            assert find_reusable_job(session, new, {"name": "any"}) is None
        erasing.result()


@pytest.mark.parametrize(("reasons", "is_taken"), [([], False), (["truncated"], True)])
def test_a_result_that_ignored_truncation_is_not_reused(sessions, reasons, is_taken):
    """An older release called such files real."""
    with sessions.transaction() as session:
        job = add_job(session)
        job.status, job.finished_at, job.model_description = "succeeded", func.now(), {"name": "any"}
        job.reasons = reasons
        session.get_one(Media, job.media_id).facts = {"truncated": True}
        new = add_job(session, owner=job.owner)
        new.media_id = job.media_id
        session.flush()
        found = find_reusable_job(session, new, {"name": "any"})
        assert (found is not None) == is_taken


def attach(sessions, folder, file):
    """Attach *file* as a request does; return the storage key and the expiry of its row."""
    storage = FileStorage(f"file://{folder}")
    with media_transaction(sessions, storage, file, owner=f"owner-{file.sha256}", retention_days=1) as (_, media):
        return media.storage_key, media.expires_at


def test_new_content_is_attached_by_one_statement(sessions, tmp_path):
    """Most files are new: nothing is asked about a row that cannot exist, and storage is not asked either."""
    file = StoredFile(new_storage_key(), uuid.uuid4().hex * 2, 1)
    with recorded_statements(sessions.engine) as statements:
        key, expires_at = attach(sessions, tmp_path, file)
    assert key == file.storage_key
    assert expires_at > datetime.now(UTC) + timedelta(hours=23)
    assert [statement.split()[0] for statement in statements] == ["INSERT"]


def test_content_whose_file_was_lost_gets_the_new_file(sessions, tmp_path):
    sha256 = uuid.uuid4().hex * 2
    lost, new = StoredFile(new_storage_key(), sha256, 1), StoredFile(new_storage_key(), sha256, 1)
    assert [attach(sessions, tmp_path, file)[0] for file in (lost, new)] == [lost.storage_key, new.storage_key]
