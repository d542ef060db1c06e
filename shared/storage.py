"""Where uploads are kept: a small protocol, what opens one, and files on a disk."""

import hashlib
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

import fsspec

from shared.config import ConfigurationError, StorageSettings
from shared.errors import ObjectMissingError, StorageError

BLOCK_BYTES = 1024 * 1024
MEDIA_PREFIX = "media"
INCOMING_PREFIX = "incoming"
"""Where direct uploads arrive; see ``shared.media.direct``."""
PROBE_PREFIX = "probe"


class Upload(Protocol):
    """An object being written. It does not exist for readers before ``commit``."""

    size_bytes: int

    def write(self, data: bytes) -> int:
        """Append *data*."""

    def commit(self) -> str:
        """Make the object exist, durably, and return its SHA-256 in hexadecimal."""

    def abort(self) -> None:
        """Forget it; safe to call twice and after ``commit``, where it does nothing."""


class CountedUpload:
    """What every upload keeps: digest and size of what was written, and whether it is over."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._done = False
        self.size_bytes = 0

    def _count(self, data: bytes) -> int:
        self._digest.update(data)
        self.size_bytes += len(data)
        return len(data)


@dataclass(frozen=True, slots=True)
class SignedUpload:
    """A request that somebody without a key to storage may make: one PUT of one object."""

    url: str
    headers: Mapping[str, str]
    """To be sent exactly so; they are signed."""


class Storage(Protocol):
    """Objects under keys such as ``media/0198…``."""

    def create(self, key: str) -> Upload:
        """Begin to write the object *key*."""

    def open(self, key: str) -> BinaryIO:
        """Open for reading, seekable. Raises ObjectMissingError."""

    def local_path(self, key: str) -> AbstractContextManager[Path]:
        """The object as a file on this machine while the context lasts. Raises ObjectMissingError."""

    def copy(self, source: str, target: str) -> None:
        """Make *target* a copy of *source*, all of it or nothing. Raises ObjectMissingError."""

    def size(self, key: str) -> int:
        """Bytes of the object. Raises ObjectMissingError."""

    def sign_upload(self, key: str, size_bytes: int, lasts_s: int) -> SignedUpload | None:
        """Allow whoever is told to put *size_bytes* bytes under *key*; None where storage takes no requests itself."""

    def delete(self, key: str) -> None:
        """Remove it; fine if it is not there."""

    def list(self, prefix: str, *, not_before: datetime | None = None) -> Iterator[tuple[str, datetime]]:
        """
        Key and time of last change of every object and unfinished upload below *prefix*.

        Args:
            not_before: Older ones may be left out, as they are where asking for all would take thousands of requests.
        """

    def check(self) -> None:
        """Raise StorageError unless objects can be written, read and removed."""


def open_storage(settings: StorageSettings) -> Storage:
    """The storage that *settings* name. Call it after a fork: connections do not survive one."""
    if settings.is_s3:
        # Only who keeps files in S3 needs its library.
        try:
            from shared.s3 import S3Storage
        except ModuleNotFoundError as error:
            raise ConfigurationError("storage.url is in S3, and the extra 's3' is not installed") from error

        return S3Storage(settings)
    return FileStorage(settings.url)


class FileStorage:
    """Files below one folder."""

    def __init__(self, url: str) -> None:
        # Listings must be fresh: other processes write here too.
        self._filesystem, self._root = fsspec.core.url_to_fs(url, use_listings_cache=False)

    def create(self, key: str) -> Upload:
        """Begin to write the object *key*."""
        return _FileUpload(self._filesystem, self._path(key))

    def open(self, key: str) -> BinaryIO:
        """Open for reading, seekable."""
        try:
            return cast("BinaryIO", self._filesystem.open(self._path(key), "rb"))
        except FileNotFoundError as error:
            raise ObjectMissingError("the stored file is gone") from error
        except OSError as error:
            raise StorageError("the stored file cannot be read") from error

    @contextmanager
    def local_path(self, key: str) -> Iterator[Path]:
        """The file itself."""
        path = Path(self._path(key))
        if not path.exists():
            raise ObjectMissingError("the stored file is gone")
        yield path

    def copy(self, source: str, target: str) -> None:
        """Make *target* a copy of *source*."""
        upload = self.create(target)
        try:
            with self.open(source) as stream:
                while block := stream.read(BLOCK_BYTES):
                    upload.write(block)
            upload.commit()
        finally:
            upload.abort()

    def size(self, key: str) -> int:
        """Bytes of the object."""
        try:
            return int(self._filesystem.size(self._path(key)))
        except FileNotFoundError as error:
            raise ObjectMissingError("the stored file is gone") from error
        except OSError as error:
            raise StorageError("the stored file cannot be read") from error

    def sign_upload(self, key: str, size_bytes: int, lasts_s: int) -> SignedUpload | None:
        """None: a folder takes no requests."""
        del key, size_bytes, lasts_s
        return None

    def delete(self, key: str) -> None:
        """Remove the object and any unfinished upload of it."""
        for path in (self._path(key), f"{self._path(key)}.part"):
            try:
                self._filesystem.rm_file(path)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise StorageError("the stored file could not be removed") from error

    def list(self, prefix: str, *, not_before: datetime | None = None) -> Iterator[tuple[str, datetime]]:
        """Key and time of last change of every object and unfinished upload below *prefix*, however old."""
        del not_before
        for path, info in self._filesystem.find(self._path(prefix), detail=True).items():
            yield path[len(self._root) :].lstrip("/"), datetime.fromtimestamp(info["mtime"], UTC)

    def check(self) -> None:
        """Write, read and remove a small object."""
        check_by_writing(self)

    def _path(self, key: str) -> str:
        return f"{self._root.rstrip('/')}/{checked_key(key)}"


class _FileUpload(CountedUpload):
    """Writes beside the final name and renames: readers see all of it or nothing."""

    def __init__(self, filesystem: Any, path: str) -> None:
        super().__init__()
        self._filesystem = filesystem
        self._path = path
        self._part = f"{path}.part"
        try:
            filesystem.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH120 - fsspec paths are strings
            self._file = filesystem.open(self._part, "wb")
        except OSError as error:
            raise StorageError("storage does not accept new files") from error

    def write(self, data: bytes) -> int:
        """Append *data*."""
        try:
            self._file.write(data)
        except OSError as error:
            raise StorageError("storage could not be written") from error
        return self._count(data)

    def commit(self) -> str:
        """Flush to the disk, then give the file its name."""
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._filesystem.mv(self._part, self._path)
        except OSError as error:
            raise StorageError("storage could not finish the file") from error
        self._done = True
        return self._digest.hexdigest()

    def abort(self) -> None:
        """Remove the part."""
        if self._done:
            return
        self._done = True
        # It is called where something has failed already, which is what is to be told; a part that cannot be removed
        # now is found by whoever tidies up.
        with suppress(OSError):
            # On a full disk closing fails as writing did.
            self._file.close()
        with suppress(OSError):
            self._filesystem.rm_file(self._part)


def checked_key(key: str) -> str:
    """The key itself, if it stays below the root. Raises StorageError."""
    if not key or key.startswith("/") or ".." in key.split("/"):
        raise StorageError("not a storage key")
    return key


def check_by_writing(storage: Storage) -> None:
    """Write, read and remove a small object. Raises StorageError."""
    key = f"{PROBE_PREFIX}/{uuid.uuid4()}"
    upload = storage.create(key)
    try:
        upload.write(b"ok")
        upload.commit()
    finally:
        upload.abort()
    try:
        with storage.open(key) as stream:
            if stream.read() != b"ok":
                raise StorageError("what was stored is not what can be read")
    finally:
        storage.delete(key)
