"""The protocol of storage, and code that all implementations share."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Final, Protocol

import uuid6

from shared.errors import StorageError

BLOCK_BYTES: Final = 1024 * 1024
MEDIA_PREFIX: Final = "media"
EXPLANATION_PREFIX: Final = "explanations"
"""Prefix of the images of explanations; see ``shared.jobs.explanations``."""
INCOMING_PREFIX: Final = "incoming"
"""Prefix of direct uploads; see ``shared.media.direct_uploads``."""
LIVE_PREFIX: Final = "live"
"""Prefix of pieces of live streams; see ``shared.streams``."""
PROBE_PREFIX: Final = "probe"
"""Prefix of the small objects that ``check`` writes and removes."""
UNFINISHED_SUFFIX: Final = ".part"
"""End of the names of unfinished uploads, where ``list`` yields them."""


class Upload(Protocol):
    """An object being written. Readers cannot see it before ``commit``."""

    size_bytes: int

    def write(self, data: bytes) -> int:
        """Append *data*. Raises StorageError."""

    def commit(self) -> str:
        """Make the object visible and durable, and return its SHA-256 in hexadecimal. Raises StorageError."""

    def abort(self) -> None:
        """Discard the upload. It does nothing after ``commit`` or when repeated, and never raises StorageError."""


class CountedUpload:
    """Base class of uploads: it counts and hashes the written bytes, and remembers whether the upload is done."""

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
    """A presigned request: one PUT of one object, without credentials of storage."""

    url: str
    headers: Mapping[str, str]
    """Headers that must be sent exactly like this, since they are signed."""


class Storage(Protocol):
    """
    A store of objects under keys such as ``media/0198…``.

    Every method, and every read, seek and close of a file from ``open``, raises StorageError on failure, and never an
    error of the underlying library or system.
    """

    def create(self, key: str) -> Upload:
        """
        Begin to write the object *key*.

        Several uploads of one key can be under way: they do not mix, and the object is that of the last ``commit``.
        After a ``commit`` that fails there may be none.
        """

    def open(self, key: str) -> BinaryIO:
        """Open the object for reading; the file is seekable. Raises ObjectMissingError."""

    def local_path(self, key: str) -> AbstractContextManager[Path]:
        """Return the object as a local file while the context lasts. Raises ObjectMissingError."""

    def copy(self, source: str, target: str) -> None:
        """Copy *source* to *target* atomically. Raises ObjectMissingError."""

    def size(self, key: str) -> int:
        """Return the size of the object in bytes. Raises ObjectMissingError."""

    def presign_upload(self, key: str, size_bytes: int, lifetime_s: int) -> PresignedUpload | None:
        """
        Presign a PUT of exactly *size_bytes* bytes to *key*, valid for *lifetime_s* seconds.

        Returns:
            The request; None if clients cannot reach storage, so that the api has to take the file.
        """

    def delete(self, key: str) -> None:
        """Remove the object, or an unfinished upload by its name from ``list``. A missing one is not an error."""

    def list(self, prefix: str, *, not_before: datetime | None = None) -> Iterator[tuple[str, datetime]]:
        """
        Yield key and modification time of every object below *prefix*.

        On a disk unfinished uploads are among them, under names of their own that end with ``UNFINISHED_SUFFIX``.

        Args:
            not_before: Objects older than this may be left out, to save requests.
        """

    def ping(self) -> None:
        """
        Raise StorageError unless storage is available. It takes a few milliseconds.

        Nothing is written if storage is intact.
        """

    def check(self) -> None:
        """Raise StorageError unless objects can be written, read and removed."""


def check_key(key: str) -> str:
    """Return *key* if it stays below the root. Raises StorageError."""
    if not key or key.startswith("/") or ".." in key.split("/"):
        raise StorageError("not a storage key")
    return key


def check_by_writing(
    create: Callable[[str], Upload], open_object: Callable[[str], BinaryIO], delete: Callable[[str], None]
) -> None:
    """
    Write, read and remove a small object by the given methods of a storage.

    Raises:
        StorageError: One of them failed, or the content differs.
    """
    # The name is a UUIDv7 as in uploads, so that ``tidy`` finds the object of a check that was interrupted.
    key = f"{PROBE_PREFIX}/{uuid6.uuid7()}"
    upload = create(key)
    try:
        upload.write(b"ok")
        upload.commit()
    finally:
        upload.abort()
    try:
        with open_object(key) as stream:
            if stream.read() != b"ok":
                raise StorageError("storage returned other bytes than were written")
    finally:
        delete(key)


@contextmanager
def storage_errors(sentence: str) -> Iterator[None]:
    """Translate OSError into StorageError with *sentence*; the original is its cause."""
    try:
        yield
    except OSError as error:
        raise StorageError(sentence) from error
