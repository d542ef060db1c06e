"""
Copies on this machine of objects that are kept elsewhere.

Every segment of a video is decoded from the same file, so a machine fetches it once for all its processes. What holds a
copy is a lock on a file beside it, which the kernel drops with the process that held it. A copy stays for a little
while after its last use, and is then erased: what a sender has erased must not live on here.
"""

import fcntl
import hashlib
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from shared.observability import get_logger

log = get_logger(__name__)

MEETING_S = 0.01
"""Who met somebody that was about to look tries again after it; that one can fetch meanwhile."""


class _HeldError(Exception):
    """Somebody else holds the lock."""


class LocalCopies:
    """
    A folder of copies, shared by the processes of one machine.

    Args:
        folder: Where they lie; below the system's temporary folder if None.
        max_bytes: Of all copies that nobody uses at the moment; the least recently used go first.
        linger_s: Seconds that a copy is kept after its last use.
    """

    def __init__(self, folder: Path | None, max_bytes: int, linger_s: float) -> None:
        self._folder = folder or Path(tempfile.gettempdir()) / f"deepfakestream-{os.getuid()}"
        self._max_bytes = max_bytes
        self._linger_s = linger_s
        self._sweeping = threading.Lock()
        self._next_sweep: threading.Timer | None = None
        if self._folder.exists():
            # What a process left that has died goes even if this one never needs a copy.
            self._sweep_later()

    @contextmanager
    def get(self, key: str, size: Callable[[], int], fetch: Callable[[Path], None]) -> Iterator[Path]:
        """The copy of *key*, fetched by *fetch* if it is not here; it stays while the context lasts."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._folder / _name(key)
        while True:
            with _lock(path, fcntl.LOCK_SH):
                if path.exists():
                    try:
                        yield path
                    finally:
                        with suppress(FileNotFoundError):
                            os.utime(path)
                    break
            # One process fetches, the others wait for it where they ask to share. Nobody waits here: that would be
            # until all who use what is fetched meanwhile are done with it.
            try:
                with _lock(path, fcntl.LOCK_EX | fcntl.LOCK_NB):
                    if not path.exists():
                        self._fetch(path, size(), fetch)
            except _HeldError:
                time.sleep(MEETING_S)
        self._sweep_later()

    def forget(self, key: str) -> None:
        """Erase the copy, unless it is in use: then it goes when it has lingered."""
        path = self._folder / _name(key)
        if path.exists():
            _erase(path)

    def sweep(self) -> bool:
        """Erase copies past their time; whether any are left."""
        left = self._erase_idle(lambda age_s, _total: age_s >= self._linger_s)
        return self._erase_leftovers() or bool(left)

    def _fetch(self, path: Path, size_bytes: int, fetch: Callable[[Path], None]) -> None:
        room = self._max_bytes - size_bytes
        self._erase_idle(lambda age_s, total: age_s >= self._linger_s or total > room)
        part = path.with_suffix(".part")
        try:
            fetch(part)
            part.rename(path)
        finally:
            part.unlink(missing_ok=True)

    def _erase_idle(self, is_due: Callable[[float, int], bool]) -> int:
        """Erase, the least recently used first, what is due by its age and by the bytes of all; bytes that are left."""
        known = []
        for path in self._folder.glob("*.copy") if self._folder.exists() else ():
            with suppress(FileNotFoundError):
                found = path.stat()
                known.append((found.st_mtime, found.st_size, path))
        total = sum(size for _, size, _ in known)
        for used_at, size, path in sorted(known):
            if is_due(time.time() - used_at, total) and _erase(path):
                total -= size
        return total

    def _erase_leftovers(self) -> bool:
        """
        Erase parts of a process that was killed while it fetched, and locks of what was never fetched.

        Returns:
            Whether something is being fetched.
        """
        is_fetching = False
        for leftover in (*self._folder.glob("*.part"), *self._folder.glob("*.lock")):
            copy = leftover.with_suffix(".copy")
            if copy.exists():
                continue
            try:
                # Whoever fetches holds the lock: a part that nobody holds is nobody's.
                with _lock(copy, fcntl.LOCK_EX | fcntl.LOCK_NB):
                    if not copy.exists():
                        copy.with_suffix(".part").unlink(missing_ok=True)
                        copy.with_suffix(".lock").unlink(missing_ok=True)
            except _HeldError:
                is_fetching = True
        return is_fetching

    def _sweep_later(self) -> None:
        with self._sweeping:
            if self._next_sweep is None:
                self._next_sweep = threading.Timer(self._linger_s + 1, self._sweep_now)
                self._next_sweep.daemon = True
                self._next_sweep.start()

    def _sweep_now(self) -> None:
        with self._sweeping:
            self._next_sweep = None
        try:
            is_more = self.sweep()
        except OSError:
            log.warning("copies not swept", exc_info=True)
            is_more = True
        if is_more:
            self._sweep_later()


def _name(key: str) -> str:
    return f"{hashlib.sha256(key.encode()).hexdigest()[:40]}.copy"


@contextmanager
def _lock(path: Path, kind: int) -> Iterator[None]:
    """Hold the lock of the copy at *path*. Raises _HeldError if *kind* says not to wait and somebody holds it."""
    name = path.with_suffix(".lock")
    while True:
        lock = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(lock, kind)
            except BlockingIOError as error:
                raise _HeldError from error
            # Whoever erased a copy took its lock's file away, too; a lock on that would guard nothing.
            if _is_at(name, lock):
                yield
                return
        finally:
            os.close(lock)


def _is_at(path: Path, file: int) -> bool:
    try:
        return path.stat().st_ino == os.fstat(file).st_ino
    except FileNotFoundError:
        return False


def _erase(path: Path) -> bool:
    """Erase the copy if nobody uses it; whether it is gone."""
    try:
        with _lock(path, fcntl.LOCK_EX | fcntl.LOCK_NB):
            path.unlink(missing_ok=True)
            path.with_suffix(".lock").unlink(missing_ok=True)
    except _HeldError:
        return False
    return True
