"""
A cache of local copies of stored objects.

Every segment of a video is decoded from the same file, so a machine fetches it once for all its processes. A process
holds a copy by a lock on a file beside it, which the kernel releases when the process ends. A copy is erased a short
time after its last use, so that files that a sender has erased do not stay here.
"""

import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

from shared.errors import StorageError
from shared.observability import get_logger
from shared.storage.folders import ForeignFolderError, make_private, open_private, restrict_to_owner
from shared.storage.protocol import storage_errors

log = get_logger(__name__)

LOCK_RETRY_S: Final = 0.01
"""The wait before another attempt at a copy whose exclusive lock another process holds."""


class _LockedError(Exception):
    """The lock is held by another process or thread."""


def copies_folder(cache_dir: Path | None) -> Path:
    """
    Choose the folder for copies: *cache_dir* if it belongs to this user or does not exist yet, or else a folder in it.

    A volume that an orchestrator mounts may belong to another user and be writable by all. A folder that is writable by
    all, such as /tmp, keeps its mode even if this user owns it.

    Args:
        cache_dir: The setting; None for a folder in the system's temporary folder.
    """
    if cache_dir is not None:
        try:
            found = cache_dir.stat()
            if found.st_uid == os.geteuid() and not found.st_mode & stat.S_IWOTH:
                return cache_dir
        except OSError:
            return cache_dir
    return (cache_dir or Path(tempfile.gettempdir())) / f"deepfakestream-{os.geteuid()}"


class LocalCopies:
    """
    A folder of copies, shared by the processes of this user on one machine, and closed to other users.

    Args:
        folder: The folder; it is made if it is missing. If other users could write in it, its copies are not trusted:
            they are erased, and the folder is closed. A folder of another user is refused.
        max_bytes: The most that copies which are not in use may take; the least recently used are erased first.
        linger_s: Seconds that a copy is kept after its last use.
    """

    def __init__(self, folder: Path, max_bytes: int, linger_s: float) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._linger_s = linger_s
        self._sweeping = threading.Lock()
        self._next_sweep: threading.Timer | None = None
        with suppress(OSError):
            if self._folder.exists():
                # Erase the copies of processes that died even if this process never needs a copy.
                self._sweep_later()

    @contextmanager
    def get(self, key: str, size: Callable[[], int], fetch: Callable[[BinaryIO], None]) -> Iterator[Path]:
        """
        Return a path to the copy of *key*, which exists while the context lasts.

        Args:
            size: Returns the size of the object in bytes; called before it is fetched.
            fetch: Writes the object into the given file; called if there is no copy yet.

        Raises:
            StorageError: The folder belongs to another user, or the disk failed or is full. Errors of *size* and
                *fetch* are passed on.
        """
        path = self._folder / _copy_name(key)
        try:
            with ExitStack() as held:
                with storage_errors("no copy of the stored file could be made on this machine"):
                    make_private(self._folder)
                    self._secure_folder()
                    self._acquire(path, held, size, fetch)
                try:
                    yield path
                finally:
                    with suppress(OSError):
                        os.utime(path)
        finally:
            self._sweep_later()

    def forget(self, key: str) -> None:
        """Erase the copy now, or, if it is in use, a while after that. Raises StorageError."""
        path = self._folder / _copy_name(key)
        # A folder of another user contains no copies of this service.
        with storage_errors("the copy on this machine could not be removed"), suppress(ForeignFolderError):
            if self._folder.exists():
                restrict_to_owner(self._folder, self._erase_untrusted)
                if path.exists():
                    _erase_unused(path)

    def sweep(self) -> bool:
        """
        Erase copies that were not used for a while.

        Returns:
            Whether any copies are left or being fetched.

        Raises:
            StorageError: The folder belongs to another user.
            OSError: The disk failed.
        """
        if not self._folder.exists():
            return False
        self._secure_folder()
        left = self._erase_idle(lambda age_s, _total: age_s >= self._linger_s)
        return self._erase_leftovers() or bool(left)

    def _secure_folder(self) -> None:
        """Close the folder to other users, since its files are decoded. Raises StorageError if that is impossible."""
        try:
            restrict_to_owner(self._folder, self._erase_untrusted)
        except ForeignFolderError as error:
            log.error("folder for copies refused", folder=str(self._folder), reason=str(error))  # noqa: TRY400
            raise StorageError(
                f"the folder for copies of stored files cannot be used: {error}; change storage.cache_dir"
            ) from error

    def _erase_untrusted(self, opened: int) -> None:
        """Erase all copies, parts and locks in the opened folder, even if in use: others could have replaced them."""
        names = [name for name in os.listdir(opened) if name.endswith((".copy", ".part", ".lock"))]
        for name in names:
            if stat.S_ISDIR(os.lstat(name, dir_fd=opened).st_mode):
                shutil.rmtree(name, dir_fd=opened)
            else:
                os.unlink(name, dir_fd=opened)
        log.warning("folder for copies closed to others", folder=str(self._folder), erased=len(names))

    def _acquire(self, path: Path, held: ExitStack, size: Callable[[], int], fetch: Callable[[BinaryIO], None]) -> None:
        """Fetch the copy at *path* if it is missing, and hold a shared lock on it until *held* is closed."""
        while True:
            held.enter_context(_lock(path, fcntl.LOCK_SH))
            if path.exists():
                return
            held.close()
            # One process fetches while the others wait for the shared lock. The exclusive lock is not waited for: that
            # would last until every user of a copy fetched in the meantime is done.
            try:
                with _lock(path, fcntl.LOCK_EX | fcntl.LOCK_NB):
                    if not path.exists():
                        self._fetch(path, size(), fetch)
            except _LockedError:
                time.sleep(LOCK_RETRY_S)

    def _fetch(self, path: Path, size_bytes: int, fetch: Callable[[BinaryIO], None]) -> None:
        max_other_bytes = self._max_bytes - size_bytes
        self._erase_idle(lambda age_s, total: age_s >= self._linger_s or total > max_other_bytes)
        part = path.with_suffix(".part")
        # A part may be left from a process that was killed.
        part.unlink(missing_ok=True)
        try:
            with open(part, "xb", opener=open_private) as file:
                fetch(file)
            part.rename(path)
        finally:
            part.unlink(missing_ok=True)

    def _erase_idle(self, is_due: Callable[[float, int], bool]) -> int:
        """Erase unused copies that are due by age and total size, least recently used first. Return the bytes left."""
        known = []
        for path in self._folder.glob("*.copy"):
            with suppress(FileNotFoundError):
                found = path.stat()
                known.append((found.st_mtime, found.st_size, path))
        total = sum(size for _, size, _ in known)
        for used_at, size, path in sorted(known):
            if is_due(time.time() - used_at, total) and _erase_unused(path):
                total -= size
        return total

    def _erase_leftovers(self) -> bool:
        """
        Erase parts of processes that were killed while fetching, and locks without a copy.

        Returns:
            Whether a copy is being fetched.
        """
        is_fetching = False
        for leftover in (*self._folder.glob("*.part"), *self._folder.glob("*.lock")):
            copy = leftover.with_suffix(".copy")
            if copy.exists():
                continue
            try:
                # A process that fetches holds the lock: if it is free, the part is abandoned.
                with _lock(copy, fcntl.LOCK_EX | fcntl.LOCK_NB):
                    if not copy.exists():
                        copy.with_suffix(".part").unlink(missing_ok=True)
                        copy.with_suffix(".lock").unlink(missing_ok=True)
            except _LockedError:
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
            is_unfinished = self.sweep()
        except (OSError, StorageError):
            log.warning("copies not swept", exc_info=True)
            is_unfinished = True
        if is_unfinished:
            self._sweep_later()


def _copy_name(key: str) -> str:
    return f"{hashlib.sha256(key.encode()).hexdigest()[:40]}.copy"


@contextmanager
def _lock(path: Path, kind: int) -> Iterator[None]:
    """Hold the lock of the copy at *path*. Raises _LockedError if *kind* is non-blocking and the lock is held."""
    name = path.with_suffix(".lock")
    while True:
        lock = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(lock, kind)
            except BlockingIOError as error:
                raise _LockedError from error
            # The process that erased a copy also removed its lock file; a lock on a removed file is useless.
            if _is_same_file(name, lock):
                yield
                return
        finally:
            os.close(lock)


def _is_same_file(path: Path, file: int) -> bool:
    try:
        return path.stat().st_ino == os.fstat(file).st_ino
    except FileNotFoundError:
        return False


def _erase_unused(path: Path) -> bool:
    """Erase the copy if it is not in use. Return whether it was erased."""
    try:
        with _lock(path, fcntl.LOCK_EX | fcntl.LOCK_NB):
            path.unlink(missing_ok=True)
            path.with_suffix(".lock").unlink(missing_ok=True)
    except _LockedError:
        return False
    return True
