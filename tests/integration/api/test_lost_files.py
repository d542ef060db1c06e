"""A file that storage has lost is there again when its sender sends it again."""

import uuid

from shared.jobs import get_job
from tests.clips import noise_picture


def test_a_lost_file_is_stored_anew(make_api):
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
