"""
Storage in S3, or in a server that speaks as S3 does.

A body goes up in parts while it arrives and is an object only once it is whole. Whatever needs a file on the disk gets
a copy, one for all processes of a machine; see ``shared.storage.copies``.
"""

import io
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from copy import copy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Final
from urllib.parse import urlsplit

from botocore.exceptions import ClientError

from shared.config import StorageSettings
from shared.errors import StorageError
from shared.storage.client import S3Client, error_code, object_size, open_session, s3_errors, was_retried
from shared.storage.copies import LocalCopies, copies_folder
from shared.storage.protocol import (
    BLOCK_BYTES,
    INCOMING_PREFIX,
    MEDIA_PREFIX,
    PROBE_PREFIX,
    CountedUpload,
    PresignedUpload,
    Upload,
    check_by_writing,
    check_key,
)

CALL_TIMEOUT_S: Final = 120.0
"""Of a call, all attempts together."""
CHECK_TIMEOUT_S: Final = 5.0
"""Of a call that finds out whether the server is there."""
PART_BYTES: Final = 8 * 1024 * 1024
"""Of an upload in parts: S3 takes 10,000 of 5 MiB or more. Each upload holds two in memory at most."""
COPIED_PART_BYTES: Final = 256 * 1024 * 1024
"""Larger objects are copied in parts: S3 copies 5 GiB at a time at most, and an answer must not take too long."""
UNFINISHED_DAYS: Final = 1
"""After this long the bucket itself drops the parts of an upload that was never finished."""
INCOMING_DAYS: Final = 8
"""After this long it drops a direct upload that no job was made of: a day more than an address can be good."""
READ_ERROR: Final = "the stored file cannot be read"


class S3Storage:
    """Objects below one prefix of a bucket."""

    def __init__(self, settings: StorageSettings) -> None:
        address = urlsplit(settings.url)
        self._bucket, self._prefix = address.netloc, address.path.strip("/")
        self._server = settings.endpoint_url or ""
        self._encryption = _encryption(settings)
        session = open_session(settings)
        self._client = S3Client(session, settings.endpoint_url, timeout_s=CALL_TIMEOUT_S)
        self._check_client = S3Client(session, settings.endpoint_url, timeout_s=CHECK_TIMEOUT_S, attempts=1)
        self._signer: S3Client | None = None
        if settings.public_endpoint_url is not None:
            # Signing sends nothing: it needs the address by which the sender will come, not ours.
            self._signer = S3Client(session, settings.public_endpoint_url, timeout_s=CALL_TIMEOUT_S)
        elif settings.endpoint_url is None:
            self._signer = self._client
        self._copies = LocalCopies(copies_folder(settings.cache_dir), settings.cache_bytes, settings.cache_linger_s)

    def create(self, key: str) -> Upload:
        """Begin to write the object *key*."""
        return _S3Upload(self._client, self._object(key), self._encryption)

    def open(self, key: str) -> BinaryIO:
        """Open for reading, seekable; what is not read is not fetched, but for a block ahead."""
        return io.BufferedReader(_S3Reader(self._client, self._object(key)), BLOCK_BYTES)

    def local_path(self, key: str) -> AbstractContextManager[Path]:
        """A copy on this machine."""

        def fetch(file: BinaryIO) -> None:
            with _S3Reader(self._client, self._object(key)) as stream:
                while block := stream.read(PART_BYTES):
                    file.write(block)

        return self._copies.get(self._address(key), lambda: self.size(key), fetch)

    def copy(self, source: str, target: str) -> None:
        """Make *target* a copy of *source*; the server does it."""
        source_object, target_object = self._object(source), self._object(target)
        with s3_errors("the stored file could not be copied"):
            found = self._client.call("head_object", **source_object)
            size_bytes = object_size(found)
            # What is overwritten meanwhile is not mixed.
            given = {"CopySource": source_object, "CopySourceIfMatch": found["ETag"]}
            if size_bytes <= COPIED_PART_BYTES:
                self._client.call("copy_object", **target_object, **given, **self._encryption)
                return
            parts = _Parts(self._client, target_object, self._encryption)
            try:
                for first in range(0, size_bytes, COPIED_PART_BYTES):
                    last = min(first + COPIED_PART_BYTES, size_bytes) - 1
                    parts.copy(**given, CopySourceRange=f"bytes={first}-{last}")
                parts.complete(size_bytes)
            except BaseException:
                parts.abort()
                raise

    def size(self, key: str) -> int:
        """Bytes of the object."""
        with s3_errors(READ_ERROR):
            return object_size(self._client.call("head_object", **self._object(key)))

    def presign_upload(self, key: str, size_bytes: int, lifetime_s: int) -> PresignedUpload | None:
        """
        Sign a PUT of exactly *size_bytes* bytes; the length is signed, so no other is taken.

        None where the server is not Amazon's own, and ``public_endpoint_url`` does not say how senders reach it.
        """
        if self._signer is None:
            return None
        with s3_errors("storage does not accept new files"):
            url = self._signer.presign(
                "put_object", lifetime_s=lifetime_s, **self._object(key), ContentLength=size_bytes, **self._encryption
            )
        return PresignedUpload(url, {"Content-Length": str(size_bytes), **_encryption_headers(self._encryption)})

    def delete(self, key: str) -> None:
        """Remove the object, and any copy of it on this machine."""
        self._copies.forget(self._address(key))
        with s3_errors("the stored file could not be removed"):
            # S3 removes what is not there without complaint.
            self._client.call("delete_object", **self._object(key))

    def list(self, prefix: str, *, not_before: datetime | None = None) -> Iterator[tuple[str, datetime]]:
        """
        Key and time of last change of every object below *prefix*, in order.

        Unfinished uploads are the bucket's to drop: ``set_lifecycle`` tells it to. With *not_before* only names that
        tell a time since then are asked for, as names that are UUIDv7 do.
        """
        for time_prefix in [""] if not_before is None else _uuid7_prefixes(not_before, datetime.now(UTC)):
            asked = {"Bucket": self._bucket, "Prefix": f"{self._key(prefix)}/{time_prefix}"}
            while True:
                with s3_errors("storage cannot be listed"):
                    page = self._client.call("list_objects_v2", **asked)
                    listed = [
                        (found["Key"].removeprefix(self._prefix).lstrip("/"), found["LastModified"])
                        for found in page.get("Contents", ())
                    ]
                    token = page["NextContinuationToken"] if page.get("IsTruncated") else None
                    if token is not None and token == asked.get("ContinuationToken"):
                        raise ValueError("a page that leads on to itself")
                yield from listed
                if token is None:
                    break
                asked["ContinuationToken"] = token

    def ping(self) -> None:
        """Ask for the bucket's head: the server answers, has the bucket and accepts the key; nothing is written."""
        with s3_errors("storage does not answer"):
            self._check_client.call("head_bucket", Bucket=self._bucket)

    def check(self) -> None:
        """Write, read and remove a small object; a server that takes seconds for it counts as away."""
        impatient = copy(self)
        impatient._client = self._check_client  # noqa: SLF001 - of its own kind
        check_by_writing(impatient)

    def make_bucket(self) -> bool:
        """Make the bucket unless it is there; whether it was made."""
        place: dict[str, Any] = {}
        # Amazon's first region is the one that must not be named.
        if self._client.region not in (None, "us-east-1", "aws-global"):
            place["CreateBucketConfiguration"] = {"LocationConstraint": self._client.region}
        with s3_errors("the bucket could not be made"):
            try:
                self._client.call("head_bucket", Bucket=self._bucket)
            except ClientError as error:
                if error_code(error) != "404":
                    raise
                self._client.call("create_bucket", Bucket=self._bucket, **place)
                return True
        return False

    def set_lifecycle(self, days: int) -> None:
        """
        Let the bucket remove media older than *days*, what was uploaded for no job, and parts of unfinished uploads.

        A second net below ``tidy``, for the day that it does not run. Other rules of the bucket are replaced. Where the
        bucket keeps versions, those that were removed or replaced go after a day.
        """
        rules = [
            {
                "ID": f"deepfakestream-{prefix}",
                "Status": "Enabled",
                "Filter": {"Prefix": f"{self._key(prefix)}/"},
                "Expiration": {"Days": expire_days},
                "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": UNFINISHED_DAYS},
                "NoncurrentVersionExpiration": {"NoncurrentDays": 1},
            }
            for prefix, expire_days in ((MEDIA_PREFIX, days), (INCOMING_PREFIX, INCOMING_DAYS), (PROBE_PREFIX, 1))
        ]
        with s3_errors("the bucket's lifecycle could not be set"):
            self._client.call(
                "put_bucket_lifecycle_configuration", Bucket=self._bucket, LifecycleConfiguration={"Rules": rules}
            )

    def lifecycle(self) -> tuple[dict[str, Any], ...]:
        """The bucket's rules, as S3 gives them."""
        with s3_errors("the bucket's lifecycle cannot be read"):
            answer = self._client.call("get_bucket_lifecycle_configuration", Bucket=self._bucket)
        return tuple(answer.get("Rules", []))

    def _key(self, key: str) -> str:
        return f"{self._prefix}/{check_key(key)}".lstrip("/")

    def _address(self, key: str) -> str:
        """What tells the object from those of other buckets, of which copies may be in the same folder."""
        return f"{self._server}/{self._bucket}/{self._key(key)}"

    def _object(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._key(key)}


class _S3Reader(io.RawIOBase):
    """An object, of which each read fetches what it asks for. Its failures are StorageErrors."""

    def __init__(self, client: S3Client, place: dict[str, str]) -> None:
        super().__init__()
        self._client, self._place, self._position = client, place, 0
        with s3_errors(READ_ERROR):
            found = client.call("head_object", **place)
            self._size = object_size(found)
            # All reads are of the same content, or fail.
            self._etag: str = found["ETag"]

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise StorageError(READ_ERROR)
        self._position = start + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), self._size - self._position)
        if wanted <= 0:
            return 0
        span = f"bytes={self._position}-{self._position + wanted - 1}"
        with s3_errors(READ_ERROR):
            buffer[:wanted] = self._client.read(wanted, **self._place, Range=span, IfMatch=self._etag)
        self._position += wanted
        return wanted

    def readall(self) -> bytes:
        # That of the library asks for 8 KiB at a time.
        return b"".join(iter(lambda: self.read(PART_BYTES) or b"", b""))


class _Parts:
    """An upload in parts, by the calls that S3 has for it."""

    def __init__(self, client: S3Client, place: dict[str, str], encryption: dict[str, str]) -> None:
        begun = client.call("create_multipart_upload", **place, **encryption)
        self._client, self._place = client, place
        self._upload = {**place, "UploadId": begun["UploadId"]}
        self._etags: list[str] = []

    def send(self, body: bytes) -> None:
        """Add a part."""
        part = self._client.call("upload_part", **self._upload, PartNumber=len(self._etags) + 1, Body=body)
        self._etags.append(part["ETag"])

    def copy(self, **source: Any) -> None:
        """Add a part of another object."""
        part = self._client.call("upload_part_copy", **self._upload, PartNumber=len(self._etags) + 1, **source)
        self._etags.append(part["CopyPartResult"]["ETag"])

    def complete(self, size_bytes: int) -> None:
        """Make all parts one object, of *size_bytes* bytes."""
        parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(self._etags, 1)]
        try:
            self._client.call("complete_multipart_upload", **self._upload, MultipartUpload={"Parts": parts})
        except ClientError as error:
            # Where the first answer was lost, the upload has ended, and the object is there.
            is_repetition = error_code(error) == "NoSuchUpload" and was_retried(error)
            if not (is_repetition and self._has_object(size_bytes)):
                raise

    def _has_object(self, size_bytes: int) -> bool:
        try:
            return object_size(self._client.call("head_object", **self._place)) == size_bytes
        except ClientError:
            return False

    def abort(self) -> None:
        """Drop the parts."""
        # It is called where something has failed already, and that error is the one to report; the bucket drops the
        # parts in a day.
        with suppress(StorageError), s3_errors("parts were not dropped"):
            self._client.call("abort_multipart_upload", **self._upload)


class _S3Upload(CountedUpload):
    """Parts that become an object at the end; a small one is sent whole then."""

    def __init__(self, client: S3Client, place: dict[str, str], encryption: dict[str, str]) -> None:
        super().__init__()
        self._client, self._place, self._encryption = client, place, encryption
        self._waiting = bytearray()
        self._parts: _Parts | None = None

    def write(self, data: bytes) -> int:
        """Append *data*."""
        self._waiting += data
        with s3_errors("storage could not be written"):
            while len(self._waiting) >= PART_BYTES:
                if self._parts is None:
                    self._parts = _Parts(self._client, self._place, self._encryption)
                with memoryview(self._waiting) as waiting:
                    part = bytes(waiting[:PART_BYTES])
                del self._waiting[:PART_BYTES]
                self._parts.send(part)
        return self._count(data)

    def commit(self) -> str:
        """Send what is left and make it an object."""
        with s3_errors("storage could not finish the file"):
            if self._parts is None:
                self._client.call("put_object", **self._place, **self._encryption, Body=bytes(self._waiting))
            else:
                if self._waiting:
                    self._parts.send(bytes(self._waiting))
                self._parts.complete(self.size_bytes)
        self._done = True
        return self._digest.hexdigest()

    def abort(self) -> None:
        """Drop the parts."""
        if not self._done and self._parts is not None:
            self._parts.abort()
        self._done = True


def _uuid7_prefixes(first: datetime, last: datetime) -> list[str]:
    """
    What UUIDv7 names of these times begin with, six digits each.

    They begin with the milliseconds since 1970 in twelve hexadecimal digits, so that six stand for 4.7 hours.
    """
    low, high = (int(moment.timestamp() * 1000) >> 24 for moment in (first, last))
    return [f"{number:06x}" for number in range(low, high + 1)]


def _encryption(settings: StorageSettings) -> dict[str, str]:
    if settings.server_side_encryption is None:
        return {}
    chosen: dict[str, str] = {"ServerSideEncryption": settings.server_side_encryption}
    if settings.kms_key_id is not None:
        chosen["SSEKMSKeyId"] = settings.kms_key_id
    return chosen


def _encryption_headers(encryption: dict[str, str]) -> dict[str, str]:
    names = {
        "ServerSideEncryption": "x-amz-server-side-encryption",
        "SSEKMSKeyId": "x-amz-server-side-encryption-aws-kms-key-id",
    }
    return {names[name]: value for name, value in encryption.items()}
