"""Storage on a disk: one file for each object, readable only by this user."""

import io
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from shared.errors import ObjectMissingError, StorageError
from shared.storage.folders import make_private, open_private, sync_folder
from shared.storage.protocol import (
    BLOCK_BYTES,
    UNFINISHED_SUFFIX,
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
        url: ``file:///folder``; the path is not percent-decoded.
    """

    def __init__(self, url: str) -> None:
        self._root = Path(url.removeprefix("file://")).expanduser().absolute()
        # If this fails, ``ping`` and every upload try again and report the error.
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
        """Return the path of the stored file itself."""
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
        """Return the size of the object in bytes."""
        with _translate_read_errors():
            return self._path(key).stat().st_size

    def presign_upload(self, key: str, size_bytes: int, lifetime_s: int) -> PresignedUpload | None:
        """Return None, since clients cannot reach a folder."""
        del key, size_bytes, lifetime_s
        return None

    def delete(self, key: str) -> None:
        """Remove the object, or an unfinished upload by its name from ``list``."""
        path = self._path(key)
        with storage_errors("the stored file could not be removed"), suppress(FileNotFoundError):
            path.unlink()
            # Without this, a power cut could bring an erased file back.
            sync_folder(path.parent)

    def list(self, prefix: str, *, not_before: datetime | None = None) -> Iterator[tuple[str, datetime]]:
        """Yield key and modification time of every object and unfinished upload below *prefix*."""
        del not_before
        with storage_errors("storage cannot be listed"):
            for path, changed in _walk_files(self._path(prefix)):
                yield str(path.relative_to(self._root)), datetime.fromtimestamp(changed, UTC)

    def ping(self) -> None:
        """
        Raise StorageError unless the folder exists, is writable and has free space.

        A missing folder is made, since an api that is not ready receives no upload that would make it. Nothing else is
        written.
        """
        with storage_errors("the storage folder cannot be accessed"):
            if not self._root.is_dir():
                make_private(self._root)
            found = os.statvfs(self._root)
        if found.f_flag & os.ST_RDONLY:
            raise StorageError("the file system of the storage folder is read-only")
        if not os.access(self._root, os.R_OK | os.W_OK | os.X_OK):
            raise StorageError("the storage folder is not readable and writable")
        # Some file systems in user space report no blocks at all.
        if found.f_blocks and not found.f_bavail:
            raise StorageError("the file system of the storage folder is full")

    def check(self) -> None:
        """Write, read and remove a small object."""
        check_by_writing(self.create, self.open, self.delete)

    def _path(self, key: str) -> Path:
        return self._root / check_key(key)


class _StoredFile(io.FileIO):
    """A file that raises StorageError at every failing read, since a disk may fail at any time."""

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
    """
    An upload to a temporary name that is renamed at the end, so that readers see the whole file or none.

    The temporary name is its own, since direct uploads of one key can be under way at the same time.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._part = path.with_name(f"{path.name}.{secrets.token_hex(8)}{UNFINISHED_SUFFIX}")
        with storage_errors("storage does not accept new files"):
            make_private(path.parent)
            # The file is created with its final mode; changing it later would leave a gap.
            self._file = open(self._part, "wb", opener=open_private)  # noqa: SIM115 - closed by commit or abort

    def write(self, data: bytes) -> int:
        """Append *data*."""
        with storage_errors("storage could not be written"):
            self._file.write(data)
        return self._count(data)

    def commit(self) -> str:
        """Flush the file to the disk, rename it, and flush the folder."""
        with storage_errors("storage could not finish the file"):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._part.rename(self._path)
            try:
                sync_folder(self._path.parent)
            except OSError:
                # The upload is reported as failed, so the file must not exist.
                with suppress(OSError):
                    self._path.unlink()
                raise
        self._done = True
        return self._digest.hexdigest()

    def abort(self) -> None:
        """Remove the unfinished file."""
        if self._done:
            return
        self._done = True
        # An earlier error is the one to report. If the file cannot be removed now, the task ``tidy`` finds it.
        with suppress(OSError):
            # On a full disk closing can fail, too.
            self._file.close()
        with suppress(OSError):
            self._part.unlink()


def _walk_files(folder: Path) -> Iterator[tuple[Path, float]]:
    """Yield every file below *folder* and its modification time; files that disappear meanwhile are left out."""
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
    """Translate errors of reading into ObjectMissingError if the file does not exist, and otherwise StorageError."""
    try:
        yield
    except FileNotFoundError as error:
        raise ObjectMissingError("the stored file is gone") from error
    except OSError as error:
        raise StorageError(READ_ERROR) from error
