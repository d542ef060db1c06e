"""Copies of stored objects on this machine: fetched once, kept while used, gone soon after."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from shared.errors import ObjectMissingError
from shared.storage.copies import LocalCopies

ROOT = Path(__file__).resolve().parents[4]


class Source:
    """Objects of ten bytes, and how often each was fetched."""

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


def test_many_who_want_the_same_at_once_fetch_it_once(tmp_path):
    begun, together = threading.Barrier(8), threading.Barrier(8)
    fetched, used = [], []

    def fetch(file):
        fetched.append(file)
        time.sleep(0.2)
        file.write(b"x")

    def want():
        begun.wait()
        # As processes do, each has a view of its own of the same folder.
        with LocalCopies(tmp_path, 100, 60).get("a", lambda: 1, fetch) as path:
            # Nobody is done with it before all have it.
            together.wait(timeout=30)
            used.append(path.read_bytes())

    threads = [threading.Thread(target=want) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(fetched), used) == (1, [b"x"] * 8)


def test_what_nobody_uses_goes_after_its_time_and_not_before(tmp_path, source):
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


def test_it_goes_by_itself(tmp_path, source):
    with source.use(LocalCopies(tmp_path, 100, 0.2), "a"):
        pass
    deadline = time.monotonic() + 30
    while list(tmp_path.iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_what_a_process_left_that_died_goes_though_the_next_one_needs_none(tmp_path, source):
    with source.use(LocalCopies(tmp_path, 100, 3600), "a"):
        pass
    LocalCopies(tmp_path, 100, 0.2)
    deadline = time.monotonic() + 30
    while list(tmp_path.iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_least_recently_used_make_room(tmp_path, source):
    copies = LocalCopies(tmp_path, 25, 3600)
    for key in ("a", "b"):
        with source.use(copies, key):
            pass
        age(tmp_path, 10)
    with source.use(copies, "a"), source.use(copies, "c"):
        assert copies_in(tmp_path) == ["a", "c"]
    assert source.fetched == ["a", "b", "c"]


def test_more_than_fits_is_still_fetched_for_who_works_on_it(tmp_path, source):
    copies = LocalCopies(tmp_path, 5, 60)
    with source.use(copies, "a"), source.use(copies, "b"):
        assert copies_in(tmp_path) == ["a", "b"]


def test_what_is_forgotten_is_gone_at_once_unless_it_is_in_use(tmp_path, source):
    copies = LocalCopies(tmp_path, 100, 60)
    with source.use(copies, "a"):
        copies.forget("a")
        assert copies_in(tmp_path) == ["a"]
    copies.forget("a")
    copies.forget("never seen")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_fetch_leaves_nothing_and_the_next_one_is_made(tmp_path, source):
    copies = LocalCopies(tmp_path, 100, 60)

    def fail(file):
        file.write(b"half")
        raise ObjectMissingError("gone")

    with pytest.raises(ObjectMissingError), copies.get("a", lambda: 10, fail):
        pass
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]
    with source.use(copies, "a") as path:
        assert path.read_bytes().startswith(b"a")


def test_what_a_killed_process_held_is_free(tmp_path):
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


def test_leftovers_of_killed_processes_go(tmp_path):
    (tmp_path / "x.part").write_bytes(b"half")
    (tmp_path / "y.lock").write_bytes(b"")
    assert not LocalCopies(tmp_path, 100, 60).sweep()
    assert list(tmp_path.iterdir()) == []


def test_what_is_being_fetched_is_no_leftover(tmp_path):
    copies, parts = LocalCopies(tmp_path, 100, 60), []

    def fetch(file):
        file.write(b"a")
        assert LocalCopies(tmp_path, 100, 60).sweep()
        parts.append(len(list(tmp_path.glob("*.part"))) == 1)

    with copies.get("a", lambda: 1, fetch):
        assert parts == [True]
