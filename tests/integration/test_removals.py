"""Files that no row needs are removed in the end, even after failures between commit and removal."""

from datetime import timedelta

import pytest
from sqlalchemy import func, select, update

from shared.config import Broker, Jobs, StorageSettings
from shared.errors import StorageError
from shared.jobs.ending import cancel_job, delete_job
from shared.jobs.leases import RetryPolicy
from shared.jobs.queries import lock_job
from shared.media.removals import remove_files
from shared.models import Media, Removal
from shared.queues import Sender, make_celery
from shared.storage import FileStorage
from tests.integration.rows import add_job
from worker.config import WorkerSettings
from worker.tasks.context import Context
from worker.tasks.upkeep import tidy


class Storage(FileStorage):
    """Storage whose removals can be made to fail."""

    def __init__(self, folder):
        super().__init__(folder.as_uri())
        self.is_away = False
        self.asked = 0

    def delete(self, key):
        self.asked += 1
        if self.is_away:
            raise StorageError("away")
        super().delete(key)


@pytest.fixture
def storage(tmp_path):
    return Storage(tmp_path)


@pytest.fixture
def context(engine, sessions, storage, tmp_path):
    settings = WorkerSettings(
        database={"url": engine.url.render_as_string(hide_password=False)},
        broker=Broker(url="memory://"),
        storage=StorageSettings(url=tmp_path.as_uri()),
        webhooks={},
    )
    return Context(settings, sessions, storage, Sender(make_celery(settings.broker, Jobs())), RetryPolicy(3, 1.0))


def stored_job(sessions, storage):
    """Create a job with its file; return id and storage key."""
    with sessions.transaction() as session:
        job = add_job(session)
        job_id, key = job.id, job.media.storage_key
    upload = storage.create(key)
    upload.write(b"file")
    upload.commit()
    return job_id, key


def files(storage):
    return {key for key, _ in storage.list("media")}


def pending(sessions):
    with sessions.transaction() as session:
        return set(session.scalars(select(Removal.storage_key)))


def test_files_of_a_process_that_dies_after_the_commit_are_removed(sessions, storage, context):
    job_id, key = stored_job(sessions, storage)
    with sessions.transaction() as session:
        delete_job(session, lock_job(session, job_id))
    assert (files(storage), key in pending(sessions)) == ({key}, True)
    tidy(context)
    assert (files(storage), key in pending(sessions)) == (set(), False)


def test_failed_removals_are_repeated_when_storage_is_back(sessions, storage, context):
    job_id, key = stored_job(sessions, storage)
    with sessions.transaction() as session:
        delete_job(session, lock_job(session, job_id))
    storage.is_away = True
    assert remove_files(sessions, storage, [key]) == 0
    tidy(context)
    assert (files(storage), key in pending(sessions)) == ({key}, True)
    storage.is_away = False
    tidy(context)
    assert (files(storage), key in pending(sessions)) == (set(), False)


def test_the_object_of_an_interrupted_check_is_removed_as_an_orphan(storage, context, monkeypatch):
    storage.is_away = True
    with pytest.raises(StorageError):
        storage.check()
    storage.is_away = False
    tidy(context)
    assert len(list(storage.list("probe"))) == 1
    monkeypatch.setattr("worker.tasks.upkeep.ORPHAN_AGE", -timedelta(days=1))
    tidy(context)
    assert list(storage.list("probe")) == []


def test_removal_stops_after_a_few_failures(sessions, storage):
    storage.is_away = True
    remove_files(sessions, storage, [f"media/{number}" for number in range(100)])
    assert storage.asked == 5


def test_one_run_of_tidy_erases_everything_that_has_expired(sessions, storage, context, monkeypatch):
    monkeypatch.setattr("worker.tasks.expiry.MEDIA_BATCH", 2)
    monkeypatch.setattr("worker.tasks.upkeep.BATCH", 2)
    keys = set()
    for _ in range(5):
        job_id, key = stored_job(sessions, storage)
        with sessions.transaction() as session:
            cancel_job(session, lock_job(session, job_id))
            past = func.now() - timedelta(days=1)
            session.execute(update(Media).where(Media.storage_key == key).values(expires_at=past))
        keys.add(key)
    assert files(storage) == keys
    tidy(context)
    assert (files(storage), pending(sessions) & keys) == (set(), set())
