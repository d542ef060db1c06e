"""Local copies of stored objects: fetched once, kept while in use, erased soon after."""

import fcntl
import os
import stat
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from shared.errors import ObjectMissingError, StorageError
from shared.storage.copies import LocalCopies, copies_folder

ROOT = Path(__file__).resolve().parents[4]


class Source:
    """A source of objects of ten bytes that records fetches."""

    def __init__(self):
        self.fetched = []

    def use(self, copies, key):
        def fetch(file):
            self.fetched.append(key)
            file.write(key.encode().ljust(10))

        return copies.get(key, lambda: 10, fetch)


@pytest.fixture
def source():
    return Source()


def copies_in(folder):
    return sorted(path.read_bytes().decode().strip() for path in folder.glob("*.copy"))


def age(folder, seconds):
    for path in folder.iterdir():
        used = path.stat().st_mtime - seconds
        os.utime(path, (used, used))


def test_concurrent_users_of_a_copy_fetch_it_once(tmp_path):
    begun, together = threading.Barrier(8), threading.Barrier(8)
    fetched, used = [], []

    def fetch(file):
        fetched.append(file)
        time.sleep(0.2)
        file.write(b"x")

    def use_copy():
        begun.wait()
        # Each thread has its own LocalCopies of the same folder, as processes do.
        with LocalCopies(tmp_path, 100, 60).get("a", lambda: 1, fetch) as path:
            # No thread releases the copy before all have it.
            together.wait(timeout=30)
            used.append(path.read_bytes())

    threads = [threading.Thread(target=use_copy) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(fetched), used) == (1, [b"x"] * 8)


def test_an_unused_copy_is_erased_after_the_linger_time_and_not_before(tmp_path, source):
    copies = LocalCopies(tmp_path, 100, 60)
    with source.use(copies, "a"):
        age(tmp_path, 100)
        copies.sweep()
        assert copies_in(tmp_path) == ["a"]
    copies.sweep()
    assert copies_in(tmp_path) == ["a"]
    age(tmp_path, 100)
    copies.sweep()
    assert list(tmp_path.iterdir()) == []


def test_copies_of_dead_processes_are_erased_even_if_none_is_needed(tmp_path, source):
    with source.use(LocalCopies(tmp_path, 100, 3600), "a"):
        pass
    LocalCopies(tmp_path, 100, 0.2)
    deadline = time.monotonic() + 30
    while list(tmp_path.iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_least_recently_used_copies_are_erased_first(tmp_path, source):
    copies = LocalCopies(tmp_path, 25, 3600)
    for key in ("a", "b"):
        with source.use(copies, key):
            pass
        age(tmp_path, 10)
    with source.use(copies, "a"), source.use(copies, "c"):
        assert copies_in(tmp_path) == ["a", "c"]
    assert source.fetched == ["a", "b", "c"]


def test_copies_in_use_may_exceed_the_size_limit(tmp_path, source):
    copies = LocalCopies(tmp_path, 5, 60)
    with source.use(copies, "a"), source.use(copies, "b"):
        assert copies_in(tmp_path) == ["a", "b"]


def test_a_forgotten_copy_is_erased_at_once_unless_it_is_in_use(tmp_path, source):
    copies = LocalCopies(tmp_path, 100, 60)
    with source.use(copies, "a"):
        copies.forget("a")
        assert copies_in(tmp_path) == ["a"]
    copies.forget("a")
    copies.forget("never seen")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_fetch_leaves_nothing_and_can_be_repeated(tmp_path, source):
    copies = LocalCopies(tmp_path, 100, 60)

    def fail(file):
        file.write(b"half")
        raise ObjectMissingError("gone")

    with pytest.raises(ObjectMissingError), copies.get("a", lambda: 10, fail):
        pass
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]
    with source.use(copies, "a") as path:
        assert path.read_bytes().startswith(b"a")


def test_a_killed_process_releases_its_copy(tmp_path):
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from shared.storage.copies import LocalCopies\n"
        "with LocalCopies(Path(sys.argv[1]), 100, 60).get('a', lambda: 1, lambda file: file.write(b'a')):\n"
        "    print(flush=True)\n"
        "    time.sleep(100)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, tmp_path], cwd=ROOT, stdout=subprocess.PIPE) as user:
        user.stdout.readline()
        copies = LocalCopies(tmp_path, 100, 60)
        copies.forget("a")
        assert copies_in(tmp_path) == ["a"]
        user.kill()
    copies.forget("a")
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_killed_processes_are_erased(tmp_path):
    (tmp_path / "x.part").write_bytes(b"half")
    (tmp_path / "y.lock").write_bytes(b"")
    assert not LocalCopies(tmp_path, 100, 60).sweep()
    assert list(tmp_path.iterdir()) == []


def test_a_copy_that_is_being_fetched_is_not_a_leftover(tmp_path):
    copies, parts = LocalCopies(tmp_path, 100, 60), []

    def fetch(file):
        file.write(b"a")
        assert LocalCopies(tmp_path, 100, 60).sweep()
        parts.append(len(list(tmp_path.glob("*.part"))) == 1)

    with copies.get("a", lambda: 1, fetch):
        assert parts == [True]


def use_of(folder):
    return LocalCopies(folder, 100, 60).get("a", lambda: 1, lambda file: file.write(b"a"))


def test_copies_are_accessible_only_to_this_user(tmp_path):
    before = os.umask(0)
    try:
        with LocalCopies(tmp_path / "new", 100, 60).get("a", lambda: 1, lambda file: file.write(b"a")) as path:
            modes = {stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "new").iterdir()}
            assert (stat.S_IMODE(path.parent.stat().st_mode), modes) == (0o700, {0o600})
    finally:
        os.umask(before)


def of_another_user(folder):
    if os.geteuid() != 0:
        return Path("/usr")  # Root's.
    folder.mkdir()
    os.chown(folder, 12345, 12345)
    return folder


def link(folder):
    (folder.parent / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(folder.parent / "elsewhere")
    return folder


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        pytest.param(of_another_user, "belongs to another user", id="of another user"),
        pytest.param(link, "symbolic link", id="a link"),
    ],
)
def test_a_folder_of_another_user_is_refused(tmp_path, make, reason):
    """The name is predictable: another user may have made the folder first, to read or replace files."""
    folder = make(tmp_path / "copies")
    before = sorted(folder.iterdir())
    with pytest.raises(StorageError, match=reason), use_of(folder):
        pass
    LocalCopies(folder, 100, 60).forget("a")
    with pytest.raises(StorageError):
        LocalCopies(folder, 100, 60).sweep()
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize(
    "mode", [0o775, 0o777, 0o2770, 0o1700], ids=["umask 002", "open to all", "fsGroup", "half closed"]
)
@pytest.mark.parametrize("use", ["get", "forget", "sweep"])
def test_an_open_folder_is_emptied_and_closed_to_others(tmp_path, source, mode, use):
    """An earlier release or an orchestrator may have left the folder open, so that its files are not trusted."""
    folder = tmp_path / "copies"
    copies = LocalCopies(folder, 100, 60)
    with source.use(copies, "a") as path:
        pass
    path.write_text("exchanged")
    (folder / "planted.copy").mkdir()
    (folder / "planted.lock").symlink_to(tmp_path / "elsewhere")
    (folder / "notes.txt").write_text("an operator's")
    folder.chmod(mode)
    if use == "get":
        with source.use(copies, "a") as path:
            assert path.read_bytes().startswith(b"a")
        assert source.fetched == ["a", "a"]
        copies.forget("a")
    elif use == "forget":
        copies.forget("another")
    else:
        copies.sweep()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
    assert not (tmp_path / "elsewhere").exists()


def test_concurrent_processes_empty_an_open_folder_once(tmp_path):
    """A late process must not erase copies that another has fetched since."""
    folder, begun, together, used = tmp_path / "copies", threading.Barrier(8), threading.Barrier(8), []
    folder.mkdir()
    folder.chmod(0o777)
    (folder / "old.copy").write_text("exchanged")

    def use_copy(key):
        begun.wait()
        with LocalCopies(folder, 100, 60).get(key, lambda: 1, lambda file: file.write(b"x")) as path:
            together.wait(timeout=30)
            used.append(path.read_bytes())

    threads = [threading.Thread(target=use_copy, args=[str(number)]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert used == [b"x"] * 8
    assert copies_in(folder) == ["x"] * 8


def test_waiting_for_a_locked_folder_times_out(tmp_path, monkeypatch):
    monkeypatch.setattr("shared.storage.folders.LOCK_TIMEOUT_S", 0.05)
    tmp_path.chmod(0o770)
    held = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(StorageError), use_of(tmp_path):
            pass
    finally:
        os.close(held)
    with use_of(tmp_path):
        pass


def test_a_file_in_place_of_the_folder_is_a_storage_error(tmp_path):
    (tmp_path / "copies").write_text("")
    with pytest.raises(StorageError), use_of(tmp_path / "copies"):
        pass


def test_a_configured_folder_is_used_if_owned_and_otherwise_gets_a_subfolder(tmp_path, monkeypatch):
    """A volume of an orchestrator belongs to root and is writable by all."""
    own = f"deepfakestream-{os.geteuid()}"
    assert copies_folder(tmp_path) == tmp_path
    assert copies_folder(tmp_path / "new") == tmp_path / "new"
    tmp_path.chmod(0o775)
    assert copies_folder(tmp_path) == tmp_path
    other = of_another_user(tmp_path / "volume")
    assert copies_folder(other) == other / own
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert copies_folder(None) == tmp_path / own


@pytest.mark.parametrize("mode", [0o777, 0o1777], ids=["open to all", "as /tmp is"])
def test_a_world_writable_configured_folder_keeps_its_mode(tmp_path, mode):
    """Root owns /tmp itself."""
    tmp_path.chmod(mode)
    with use_of(copies_folder(tmp_path)) as path:
        assert path.parent == tmp_path / f"deepfakestream-{os.geteuid()}"
    assert stat.S_IMODE(tmp_path.stat().st_mode) == mode


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
def test_a_full_disk_is_a_storage_error_and_leaves_no_copy(tmp_path):
    def fetch(file):
        with Path("/dev/full").open("wb") as full:
            os.dup2(full.fileno(), file.fileno())
        file.write(b"x" * 100)

    with pytest.raises(StorageError, match="no copy"), LocalCopies(tmp_path, 100, 60).get("a", lambda: 100, fetch):
        pass
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]


def test_an_error_of_the_user_of_a_copy_is_passed_on(tmp_path):
    with pytest.raises(FileNotFoundError), use_of(tmp_path):
        raise FileNotFoundError


@pytest.mark.parametrize("error", [None, RuntimeError], ids=["used", "failed"])
def test_an_unused_copy_is_erased_without_another_call(tmp_path, error):
    with suppress(RuntimeError), LocalCopies(tmp_path, 100, 0.2).get("a", lambda: 1, lambda file: file.write(b"a")):
        if error:
            raise error
    deadline = time.monotonic() + 30
    while list(tmp_path.iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
