"""Which stored copy stays when the same content is sent again."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest

from shared.jobs import cancel_job, lock_job
from shared.media import attach_media, new_storage_key
from shared.models import Media
from tests.integration.rows import add_job


def key_of_age(age):
    """A key as it was made *age* ago."""
    milliseconds = int((datetime.now(UTC) - age).timestamp() * 1000)
    return f"media/{uuid.UUID(int=milliseconds << 80 | 7 << 76 | 2 << 62)}"


@pytest.mark.parametrize(("age_days", "is_in_use", "which"), [(1, False, "old"), (31, False, "new"), (31, True, "old")])
def test_a_file_that_is_older_than_files_are_kept_gives_way_to_its_repetition(sessions, age_days, is_in_use, which):
    old, new = key_of_age(timedelta(days=age_days)), new_storage_key()
    with sessions.transaction() as session:
        job = add_job(session)
        media = session.get_one(Media, job.media_id)
        media.storage_key = old
        if not is_in_use:
            cancel_job(session, lock_job(session, job.id))
        again, surplus = attach_media(
            session, owner=media.owner, sha256=media.sha256, size_bytes=1, storage_key=new, retention_days=30
        )
        assert again.id == media.id
        assert {"old": (old, new), "new": (new, old)}[which] == (again.storage_key, surplus)
