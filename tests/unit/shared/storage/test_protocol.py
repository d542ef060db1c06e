import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from shared.config import StorageSettings
from shared.errors import ObjectMissingError, StorageError
from shared.storage import open_storage


@pytest.fixture(params=["file", pytest.param("s3", marks=pytest.mark.merge)])
def storage(request, tmp_path):
    """Return storage on a local disk, and on a real S3 server."""
    if request.param == "file":
        return open_storage(StorageSettings(url=f"file://{tmp_path}/s"))
    return open_storage(request.getfixturevalue("s3_settings"))


def put(storage, key, content):
    upload = storage.create(key)
    upload.write(content[:3])
    upload.write(content[3:])
    return upload.commit()


def test_a_committed_object_exists_with_its_digest(storage):
    assert put(storage, "media/a", b"abcdef") == hashlib.sha256(b"abcdef").hexdigest()
    with storage.open("media/a") as stream:
        assert stream.read() == b"abcdef"
        stream.seek(2)
        assert stream.read(2) == b"cd"
    with storage.local_path("media/a") as path:
        assert path.read_bytes() == b"abcdef"


def test_an_object_that_is_not_committed_does_not_exist(storage):
    upload = storage.create("media/a")
    upload.write(b"abc")
    with pytest.raises(ObjectMissingError):
        storage.open("media/a")
    upload.abort()
    upload.abort()
    assert list(storage.list("media")) == []


def test_aborting_after_a_commit_changes_nothing(storage):
    upload = storage.create("media/a")
    upload.write(b"abc")
    upload.commit()
    upload.abort()
    assert [key for key, _ in storage.list("media")] == ["media/a"]


def test_a_deleted_object_is_gone_and_deleting_twice_is_harmless(storage):
    put(storage, "media/a", b"abcdef")
    storage.delete("media/a")
    storage.delete("media/a")
    with pytest.raises(ObjectMissingError), storage.local_path("media/a"):
        pass


def test_listing_gives_keys_and_times(storage):
    put(storage, "media/a", b"abc")
    ((key, changed),) = storage.list("media")
    assert key == "media/a"
    assert abs(datetime.now(UTC) - changed) < timedelta(minutes=1)


@pytest.mark.parametrize("size", [1, 9 * 1024**2], ids=["small", "several parts"])
def test_uploads_of_one_key_at_the_same_time_do_not_mix(storage, size):
    first, second, third = (storage.create("incoming/a") for _ in range(3))
    for upload, letter in ((first, b"1"), (second, b"2"), (third, b"3"), (first, b"1"), (second, b"2")):
        upload.write(letter * size)
    second.commit()
    third.abort()
    first.commit()
    with storage.open("incoming/a") as stream:
        assert stream.read() == b"1" * size * 2
    assert [key for key, _ in storage.list("incoming")] == ["incoming/a"]


def test_sizes_and_copies(storage):
    put(storage, "incoming/a", b"abcdef")
    assert storage.size("incoming/a") == 6
    storage.copy("incoming/a", "media/a")
    put(storage, "incoming/a", b"changed")
    with storage.open("media/a") as stream:
        assert stream.read() == b"abcdef"
    for ask in (storage.size, lambda key: storage.copy(key, "media/b")):
        with pytest.raises(ObjectMissingError):
            ask("media/none")
    assert [key for key, _ in storage.list("media")] == ["media/a"]


@pytest.mark.parametrize("key", ["", "/etc/passwd", "../x", "media/../../x"])
def test_a_key_cannot_leave_the_storage(storage, key):
    with pytest.raises(StorageError):
        storage.open(key)


def test_storage_that_cannot_be_written_raises_an_error(tmp_path):
    (tmp_path / "s").write_text("a file where the folder should be")
    with pytest.raises(StorageError):
        open_storage(StorageSettings(url=f"file://{tmp_path}/s")).check()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
def test_a_full_disk_is_a_storage_error_and_leaves_nothing(tmp_path, monkeypatch):
    storage = open_storage(StorageSettings(url=f"file://{tmp_path}"))
    monkeypatch.setattr("shared.storage.files.secrets.token_hex", lambda _: "00")
    part = tmp_path / "media" / "a.00.part"
    part.parent.mkdir()
    part.symlink_to("/dev/full")
    upload = storage.create("media/a")
    upload.write(b"x" * 100)
    with pytest.raises(StorageError):
        upload.commit()
    upload.abort()
    assert list(part.parent.iterdir()) == []
