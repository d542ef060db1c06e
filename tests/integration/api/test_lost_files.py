"""Files and rows stay consistent when either is lost."""

import uuid

from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from shared.jobs.queries import get_job
from shared.media.removals import remove_files
from shared.models import Job, Media, Removal
from tests.clips import noise_picture
from tests.integration.rows import lose_commits


def test_a_lost_file_is_stored_again(make_api):
    api = make_api()
    headers = api.key("owner")[0]
    picture = noise_picture(1)
    assert api.submit(headers, picture).status_code == 202
    [file] = api.files()
    assert api.submit(headers, picture).status_code == 202
    assert api.files() == [file]
    file.unlink()
    job = api.submit(headers, picture)
    [again] = api.files()
    assert again != file
    assert again.read_bytes() == picture
    with api.sessions.transaction() as session:
        assert get_job(session, uuid.UUID(job.json["id"])).media.storage_key == f"media/{again.name}"


def test_a_job_whose_commit_was_not_confirmed_keeps_its_file(make_api, monkeypatch):
    api = make_api()
    headers = api.key("owner")[0]
    engine = api.app.extensions["deepfakestream"].sessions.engine
    with monkeypatch.context() as patched:
        lost = lose_commits(patched, engine, of="insert into jobs")
        answer = api.submit(headers, noise_picture(1))
        assert (answer.status_code, "may have been accepted" in answer.json["detail"]) == (503, True)
        assert lost == [True]
    with api.sessions.transaction() as session:
        [media] = session.scalars(select(Media))
        assert session.scalar(select(Job.status)) == "queued"
        assert [f"media/{file.name}" for file in api.files()] == [media.storage_key]


def test_a_job_that_cannot_have_been_committed_leaves_no_file(make_api, monkeypatch):
    """The connection is lost before the commit, so that no row refers to the file."""
    api = make_api()
    headers = api.key("owner")[0]

    def fail(*_):
        raise OperationalError("INSERT", {}, Exception("server closed the connection"))

    with monkeypatch.context() as patched:
        patched.setattr("api.submission.create_job", fail)
        assert api.submit(headers, noise_picture(1)).status_code == 503
    assert api.files() == []


def test_a_removal_that_cannot_be_recorded_affects_no_other_file(make_api, monkeypatch):
    api = make_api()
    headers = api.key("owner")[0]
    picture = noise_picture(1)
    assert api.submit(headers, picture).status_code == 202

    def fail_to_record(_sessions, storage, keys, **given):
        class Away:
            def transaction(self):
                raise OperationalError("BEGIN", {}, Exception("the database restarts"))

        return remove_files(Away(), storage, keys, **given)

    monkeypatch.setattr("shared.effects.remove_files", fail_to_record)
    assert api.submit(headers, picture).status_code == 202
    with api.sessions.transaction() as session:
        [media] = session.scalars(select(Media))
        [pending] = session.scalars(select(Removal.storage_key))
        assert [f"media/{file.name}" for file in api.files()] == [media.storage_key] != [pending]
