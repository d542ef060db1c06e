"""Storage on a disk: one file for each object, which this user alone may read."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from shared.errors import ObjectMissingError, StorageError
from shared.storage.folders import make_private, open_private, sync_folder
from shared.storage.protocol import (
    BLOCK_BYTES,
    CountedUpload,
    PresignedUpload,
    Upload,
    check_by_writing,
    check_key,
    storage_errors,
)

READ_ERROR = "the stored file cannot be read"


class FileStorage:
    """
    Files below one folder, which is made if it is missing.

    Args:
        url: ``file:///folder``; what follows ``file://`` is taken as it is, without percent-decoding.
    """

    def __init__(self, url: str) -> None:
        self._root = Path(url.removeprefix("file://")).expanduser().absolute()
        # If it cannot be made now, ``ping`` and every upload try again, and say so.
        with suppress(OSError):
            make_private(self._root)

    def create(self, key: str) -> Upload:
        """Begin to write the object *key*."""
        return _FileUpload(self._path(key))

    def open(self, key: str) -> BinaryIO:
        """Open for reading, seekable."""
        with _translate_read_errors():
            return io.BufferedReader(_StoredFile(self._path(key)))

    @contextmanager
    def local_path(self, key: str) -> Iterator[Path]:
        """The file itself."""
        path = self._path(key)
        with _translate_read_errors():
            path.stat()
        yield path

    def copy(self, source: str, target: str) -> None:
        """Make *target* a copy of *source*."""
        with self.open(source) as stream:
            upload = self.create(target)
            try:
                while block := stream.read(BLOCK_BYTES):
                    upload.write(block)
                upload.commit()
            finally:
                upload.abort()

    def size(self, key: str) -> int:
        """Bytes of the object."""
        with _translate_read_errors():
            return self._path(key).stat().st_size

    def presign_upload(self, key: str, size_bytes: int, lifetime_s: int) -> PresignedUpload | None:
        """None: a folder takes no requests."""
        del key, size_bytes, lifetime_s
        return None

    def delete(self, key: str) -> None:
        """Remove the object and any unfinished upload of it."""
        path, removed = self._path(key), False
        with storage_errors("the stored file could not be removed"):
            for name in (path, _part_path(path)):
                with suppress(FileNotFoundError):
                    name.unlink()
                    removed = True
            if removed:
                # Otherwise a power cut could bring back what was erased.
                sync_folder(path.parent)

    def list(self, prefix: str, *, not_before: datetime | None = None) -> Iterator[tuple[str, datetime]]:
        """Key and time of last change of every object and unfinished upload below *prefix*, however old."""
        del not_before
        with storage_errors("storage cannot be listed"):
            for path, changed in _walk_files(self._path(prefix)):
                yield str(path.relative_to(self._root)), datetime.fromtimestamp(changed, UTC)

    def ping(self) -> None:
        """
        Raise StorageError unless the folder is there, may be written and has space.

        Nothing is written, but that a missing folder is made: an api that is not ready gets no upload that would.
        """
        with storage_errors("the folder of storage does not answer"):
            if not self._root.is_dir():
                make_private(self._root)
            found = os.statvfs(self._root)
        if found.f_flag & os.ST_RDONLY:
            raise StorageError("the file system of storage is read-only")
        if not os.access(self._root, os.R_OK | os.W_OK | os.X_OK):
            raise StorageError("the folder of storage may not be read and written")
        # Some file systems in user space count no blocks at all.
        if found.f_blocks and not found.f_bavail:
            raise StorageError("the file system of storage is full")

    def check(self) -> None:
        """Write, read and remove a small object."""
        check_by_writing(self)

    def _path(self, key: str) -> Path:
        return self._root / check_key(key)


class _StoredFile(io.FileIO):
    """A file for reading whose failures are StorageErrors: a disk may fail at any read, not only at the first."""

    def readinto(self, buffer: Any) -> int:
        with storage_errors(READ_ERROR):
            return super().readinto(buffer)

    def readall(self) -> bytes:
        with storage_errors(READ_ERROR):
            return super().readall()

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        with storage_errors(READ_ERROR):
            return super().seek(offset, whence)

    def tell(self) -> int:
        with storage_errors(READ_ERROR):
            return super().tell()

    def close(self) -> None:
        with storage_errors(READ_ERROR):
            super().close()


class _FileUpload(CountedUpload):
    """Writes beside the final name and renames: readers see all of it or nothing."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        with storage_errors("storage does not accept new files"):
            make_private(path.parent)
            # By the mode of the file as it is made: a later change of it would leave a moment for others.
            self._file = open(_part_path(path), "wb", opener=open_private)  # noqa: SIM115 - closed by commit or abort

    def write(self, data: bytes) -> int:
        """Append *data*."""
        with storage_errors("storage could not be written"):
            self._file.write(data)
        return self._count(data)

    def commit(self) -> str:
        """Flush to the disk, then give the file its name, and make that durable, too."""
        with storage_errors("storage could not finish the file"):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            _part_path(self._path).rename(self._path)
            try:
                sync_folder(self._path.parent)
            except OSError:
                # It exists for readers already, and its sender is told that it does not.
                with suppress(OSError):
                    self._path.unlink()
                raise
        self._done = True
        return self._digest.hexdigest()

    def abort(self) -> None:
        """Remove the part."""
        if self._done:
            return
        self._done = True
        # It is called where something has failed already, and that error is the one to report; a part that cannot be
        # removed now is found by tidying up.
        with suppress(OSError):
            # On a full disk closing fails as writing did.
            self._file.close()
        with suppress(OSError):
            _part_path(self._path).unlink()


def _part_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _walk_files(folder: Path) -> Iterator[tuple[Path, float]]:
    """Every file below *folder* and its time of last change; what goes meanwhile is left out."""
    try:
        entries = os.scandir(folder)
    except FileNotFoundError:
        return
    with entries:
        for entry in entries:
            path = folder / entry.name
            if entry.is_dir(follow_symlinks=False):
                yield from _walk_files(path)
                continue
            with suppress(FileNotFoundError):
                yield path, entry.stat(follow_symlinks=False).st_mtime


@contextmanager
def _translate_read_errors() -> Iterator[None]:
    """Raise ObjectMissingError where there is no file, and StorageError where it cannot be read."""
    try:
        yield
    except FileNotFoundError as error:
        raise ObjectMissingError("the stored file is gone") from error
    except OSError as error:
        raise StorageError(READ_ERROR) from error
