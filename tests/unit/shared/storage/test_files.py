"""Storage on a disk, where it differs from S3: owners, modes, power cuts, and failures within a file."""

import errno
import os
import stat
from contextlib import contextmanager
from pathlib import Path

import pytest

from shared.config import StorageSettings
from shared.errors import ObjectMissingError, StorageError
from shared.storage import open_storage

MEMORY = Path("/proc/self/mem")


@pytest.fixture
def storage(tmp_path):
    return open_storage(StorageSettings(url=f"file://{tmp_path}/a/b"))


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "a" / "b"


@contextmanager
def open_to_all():
    """Set a umask that removes no permissions."""
    before = os.umask(0)
    try:
        yield
    finally:
        os.umask(before)


def put(storage, key):
    upload = storage.create(key)
    upload.write(b"abc")
    upload.commit()


def test_files_and_folders_are_created_private(tmp_path):
    with open_to_all():
        storage = open_storage(StorageSettings(url=f"file://{tmp_path}/a/b"))
        upload = storage.create("media/x")
        (part,) = (tmp_path / "a" / "b" / "media").iterdir()
        assert stat.S_IMODE(part.stat().st_mode) == 0o600
        upload.commit()
    assert stat.S_IMODE((tmp_path / "a/b/media/x").stat().st_mode) == 0o600
    for made in ("a", "a/b", "a/b/media"):
        assert stat.S_IMODE((tmp_path / made).stat().st_mode) == 0o700


def test_an_existing_folder_keeps_its_mode(tmp_path):
    tmp_path.chmod(0o750)
    put(open_storage(StorageSettings(url=f"file://{tmp_path}")), "media/x")
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o750


@pytest.fixture
def synced(monkeypatch):
    """Record synced paths in order, and the names in a folder at that time."""
    events, fsync = [], os.fsync

    def spy(file):
        path = Path(f"/proc/self/fd/{file}").readlink()
        events.append((path, sorted(child.name for child in path.iterdir()) if path.is_dir() else None))
        fsync(file)

    monkeypatch.setattr(os, "fsync", spy)
    return events


def test_content_name_and_folders_of_a_committed_file_are_synced(tmp_path, synced, monkeypatch):
    monkeypatch.setattr("shared.storage.files.secrets.token_hex", lambda _: "00")
    put(open_storage(StorageSettings(url=f"file://{tmp_path}/a")), "media/x")
    media = tmp_path / "a" / "media"
    assert synced == [
        (tmp_path, ["a"]),
        (tmp_path / "a", ["media"]),
        (media / "x.00.part", None),
        (media, ["x"]),
    ]


def test_a_file_whose_name_cannot_be_synced_is_removed(storage, folder, monkeypatch):
    upload, fsync = storage.create("media/x"), os.fsync

    def fail(file):
        if Path(f"/proc/self/fd/{file}").readlink().is_dir():
            raise OSError(errno.EIO, "the disk failed")
        fsync(file)

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageError):
        upload.commit()
    upload.abort()
    assert list((folder / "media").iterdir()) == []


def test_an_unfinished_file_is_listed_and_removed_by_a_name_of_its_own(storage, folder):
    put(storage, "media/x")
    upload = storage.create("media/x")
    (unfinished,) = {key for key, _ in storage.list("media")} - {"media/x"}
    assert unfinished.startswith("media/x.")
    storage.delete(unfinished)
    upload.abort()
    assert [path.name for path in (folder / "media").iterdir()] == ["x"]


def test_a_removal_is_synced(storage, folder, synced):
    put(storage, "media/x")
    synced.clear()
    storage.delete("media/x")
    assert synced == [(folder / "media", [])]
    storage.delete("media/x")
    assert len(synced) == 1


@pytest.mark.skipif(not MEMORY.exists(), reason="this system has no file that opens and cannot be read")
@pytest.mark.parametrize(
    "use",
    [
        lambda stream: stream.read(10),
        lambda stream: stream.read(),
        lambda stream: stream.readinto(bytearray(10)),
        lambda stream: stream.readline(),
        lambda stream: stream.seek(-1),
    ],
    ids=["read", "read all", "readinto", "readline", "seek"],
)
def test_a_disk_that_fails_after_the_file_was_opened_is_a_storage_error(storage, folder, use):
    (folder / "media").mkdir()
    # This file can be opened, but its beginning cannot be read.
    (folder / "media" / "x").symlink_to(MEMORY)
    with storage.open("media/x") as stream, pytest.raises(StorageError, match="cannot be read"):
        use(stream)


def test_a_file_that_cannot_be_closed_is_a_storage_error(storage):
    put(storage, "media/x")
    stream = storage.open("media/x")
    os.close(stream.fileno())
    with pytest.raises(StorageError):
        stream.close()


def test_a_failing_stat_is_a_storage_error(storage, folder):
    (folder / "media").symlink_to("media")
    for ask in (storage.size, storage.open, lambda key: storage.local_path(key).__enter__(), storage.delete):
        with pytest.raises(StorageError) as failure:
            ask("media/x")
        assert not isinstance(failure.value, ObjectMissingError)
    with pytest.raises(StorageError):
        list(storage.list("media"))


def test_a_copy_of_a_missing_file_leaves_nothing(storage, folder):
    with pytest.raises(ObjectMissingError):
        storage.copy("incoming/none", "media/x")
    assert list(folder.iterdir()) == []


def test_files_that_disappear_during_a_listing_are_left_out(storage):
    for name in "abc":
        put(storage, f"media/{name}/x")
    found = storage.list("media")
    first, _ = next(found)
    for name in "abc":
        storage.delete(f"media/{name}/x")
    assert first not in [key for key, _ in found]


def test_ping_writes_nothing(storage, folder):
    before = folder.stat().st_mtime_ns
    storage.ping()
    assert (list(folder.iterdir()), folder.stat().st_mtime_ns) == ([], before)


def test_ping_makes_a_folder_that_could_not_be_made_at_the_start(storage, folder):
    """A volume may be mounted later. An api that is not ready receives no upload that would make the folder."""
    folder.rmdir()
    folder.parent.rmdir()
    folder.parent.write_text("not mounted yet")
    with pytest.raises(StorageError):
        storage.ping()
    folder.parent.unlink()
    storage.ping()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_ping_fails_if_a_file_is_in_place_of_the_folder(storage, folder):
    folder.rmdir()
    folder.write_text("")
    with pytest.raises(StorageError):
        storage.ping()


@pytest.mark.skipif(not Path("/sys/kernel").exists(), reason="this system has no file system that nobody can write")
def test_ping_fails_if_the_folder_is_not_writable():
    """A disk may become read-only after a failure; even root cannot write to it."""
    with pytest.raises(StorageError):
        open_storage(StorageSettings(url="file:///proc/self")).ping()
