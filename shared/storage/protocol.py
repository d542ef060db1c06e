"""What storage offers, whatever keeps the objects, and what every kind of it shares."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Final, Protocol

import uuid6

from shared.errors import StorageError

BLOCK_BYTES: Final = 1024 * 1024
MEDIA_PREFIX: Final = "media"
INCOMING_PREFIX: Final = "incoming"
"""Where direct uploads arrive; see ``shared.media.direct_uploads``."""
PROBE_PREFIX: Final = "probe"
"""Of the small objects that ``check`` writes and removes again."""


class Upload(Protocol):
    """An object being written. It does not exist for readers before ``commit``."""

    size_bytes: int

    def write(self, data: bytes) -> int:
        """Append *data*. Raises StorageError."""

    def commit(self) -> str:
        """Make the object exist, durably, and return its SHA-256 in hexadecimal. Raises StorageError."""

    def abort(self) -> None:
        """Forget it; safe to call twice and after ``commit``, where it does nothing. Never raises StorageError."""


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
class PresignedUpload:
    """A request that somebody without a key to storage may make: one PUT of one object."""

    url: str
    headers: Mapping[str, str]
    """To be sent exactly so; they are signed."""


class Storage(Protocol):
    """
    Objects under keys such as ``media/0198…``.

    Every method, and every read, seek and close of what ``open`` returned, raises StorageError if storage does not do
    what it is asked, and never the error of the library or of the system below.
    """

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

    def presign_upload(self, key: str, size_bytes: int, lifetime_s: int) -> PresignedUpload | None:
        """
        Allow a client to put *size_bytes* bytes under *key* by itself, for *lifetime_s* seconds.

        Returns:
            None where storage takes no requests from clients.
        """

    def delete(self, key: str) -> None:
        """Remove the object, durably; fine if it is not there."""

    def list(self, prefix: str, *, not_before: datetime | None = None) -> Iterator[tuple[str, datetime]]:
        """
        Key and time of last change of every object and unfinished upload below *prefix*.

        Args:
            not_before: Older ones may be left out, as they are where asking for all would take thousands of requests.
        """

    def ping(self) -> None:
        """
        Raise StorageError unless storage answers; a few milliseconds of work.

        Nothing is written where storage is as it should be.
        """

    def check(self) -> None:
        """Raise StorageError unless objects can be written, read and removed."""


def check_key(key: str) -> str:
    """The key itself, if it stays below the root. Raises StorageError."""
    if not key or key.startswith("/") or ".." in key.split("/"):
        raise StorageError("not a storage key")
    return key


def check_by_writing(storage: Storage) -> None:
    """Write, read and remove a small object. Raises StorageError."""
    # Named as uploads are, so that tidying up finds what a check leaves that dies half-way.
    key = f"{PROBE_PREFIX}/{uuid6.uuid7()}"
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


@contextmanager
def storage_errors(sentence: str) -> Iterator[None]:
    """Raise StorageError with *sentence* in place of an error of the system; the cause stays in the log."""
    try:
        yield
    except OSError as error:
        raise StorageError(sentence) from error
