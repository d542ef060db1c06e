"""
Storage in S3 or a compatible server.

An upload is sent in parts while it arrives, and becomes an object only when it is complete. Code that needs a local
file gets a copy, which all processes of a machine share; see ``shared.storage.copies``.
"""

import io
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime
from functools import partial
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
    EXPLANATION_PREFIX,
    INCOMING_PREFIX,
    LIVE_PREFIX,
    MEDIA_PREFIX,
    PROBE_PREFIX,
    CountedUpload,
    PresignedUpload,
    Upload,
    check_by_writing,
    check_key,
)

CALL_TIMEOUT_S: Final = 120.0
"""Timeout of a call including its retries."""
CHECK_TIMEOUT_S: Final = 5.0
"""Timeout of a call that checks whether the server is available."""
PART_BYTES: Final = 8 * 1024 * 1024
"""Size of an uploaded part; S3 allows 10,000 parts of 5 MiB or more. An upload holds at most two in memory."""
COPIED_PART_BYTES: Final = 256 * 1024 * 1024
"""Larger objects are copied in parts of this size, so that no call takes too long; S3 allows at most 5 GiB."""
UNFINISHED_DAYS: Final = 1
"""The bucket removes parts of unfinished uploads after this time."""
INCOMING_DAYS: Final = 8
"""The bucket removes unclaimed direct uploads after this time, a day more than an address can be valid."""
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
            # Presigning needs the address that clients use; it sends no request.
            self._signer = S3Client(session, settings.public_endpoint_url, timeout_s=CALL_TIMEOUT_S)
        elif settings.endpoint_url is None:
            self._signer = self._client
        self._copies = LocalCopies(copies_folder(settings.cache_dir), settings.cache_bytes, settings.cache_linger_s)

    def create(self, key: str) -> Upload:
        """Begin to write the object *key*."""
        return self._create(self._client, key)

    def open(self, key: str) -> BinaryIO:
        """Open the object for reading. It is fetched in blocks as it is read; the file is seekable."""
        return self._open(self._client, key)

    def local_path(self, key: str) -> AbstractContextManager[Path]:
        """Return a local copy of the object."""

        def fetch(file: BinaryIO) -> None:
            with _S3Reader(self._client, self._object(key)) as stream:
                while block := stream.read(PART_BYTES):
                    file.write(block)

        return self._copies.get(self._address(key), lambda: self.size(key), fetch)

    def copy(self, source: str, target: str) -> None:
        """Copy *source* to *target* on the server."""
        source_object, target_object = self._object(source), self._object(target)
        with s3_errors("the stored file could not be copied"):
            found = self._client.call("head_object", **source_object)
            size_bytes = object_size(found)
            # The copy fails if the source is overwritten meanwhile.
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
        """Return the size of the object in bytes."""
        with s3_errors(READ_ERROR):
            return object_size(self._client.call("head_object", **self._object(key)))

    def presign_upload(self, key: str, size_bytes: int, lifetime_s: int) -> PresignedUpload | None:
        """
        Presign a PUT of exactly *size_bytes* bytes; the signature includes the length.

        Returns:
            The request; None if the server is not Amazon's and ``public_endpoint_url`` is not set.
        """
        if self._signer is None:
            return None
        with s3_errors("storage does not accept new files"):
            url = self._signer.presign(
                "put_object", lifetime_s=lifetime_s, **self._object(key), ContentLength=size_bytes, **self._encryption
            )
        return PresignedUpload(url, {"Content-Length": str(size_bytes), **_encryption_headers(self._encryption)})

    def delete(self, key: str) -> None:
        """Remove the object and its local copy."""
        self._copies.forget(self._address(key))
        self._delete(self._client, key)

    def list(self, prefix: str, *, not_before: datetime | None = None) -> Iterator[tuple[str, datetime]]:
        """
        Yield key and modification time of every object below *prefix*, in order.

        The bucket itself removes unfinished uploads; see ``set_lifecycle``. With *not_before* only names with a later
        time are listed: names are UUIDv7, which begin with their time.
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
                        raise ValueError("the continuation token repeats")
                yield from listed
                if token is None:
                    break
                asked["ContinuationToken"] = token

    def ping(self) -> None:
        """Check that the server answers, has the bucket and accepts the credentials. Nothing is written."""
        with s3_errors("storage does not answer"):
            self._check_client.call("head_bucket", Bucket=self._bucket)

    def check(self) -> None:
        """Write, read and remove a small object, with a short timeout and without retries."""
        client = self._check_client
        check_by_writing(partial(self._create, client), partial(self._open, client), partial(self._delete, client))

    def make_bucket(self) -> bool:
        """Create the bucket if it does not exist. Return whether it was created."""
        place: dict[str, Any] = {}
        # S3 rejects its default region as a location constraint.
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
        Set rules by which the bucket removes media older than *days*, unclaimed uploads and unfinished parts.

        They are a fallback in case ``tidy`` does not run. They replace the other rules of the bucket. In a bucket with
        versioning, old versions are removed after a day.
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
            for prefix, expire_days in (
                (MEDIA_PREFIX, days),
                (EXPLANATION_PREFIX, days),
                (LIVE_PREFIX, days),
                (INCOMING_PREFIX, INCOMING_DAYS),
                (PROBE_PREFIX, 1),
            )
        ]
        with s3_errors("the bucket's lifecycle could not be set"):
            self._client.call(
                "put_bucket_lifecycle_configuration", Bucket=self._bucket, LifecycleConfiguration={"Rules": rules}
            )

    def lifecycle(self) -> tuple[dict[str, Any], ...]:
        """Return the bucket's lifecycle rules, as S3 gives them."""
        with s3_errors("the bucket's lifecycle cannot be read"):
            answer = self._client.call("get_bucket_lifecycle_configuration", Bucket=self._bucket)
        return tuple(answer.get("Rules", []))

    def _create(self, client: S3Client, key: str) -> Upload:
        return _S3Upload(client, self._object(key), self._encryption)

    def _open(self, client: S3Client, key: str) -> BinaryIO:
        return io.BufferedReader(_S3Reader(client, self._object(key)), BLOCK_BYTES)

    def _delete(self, client: S3Client, key: str) -> None:
        with s3_errors("the stored file could not be removed"):
            # S3 does not report a missing object as an error.
            client.call("delete_object", **self._object(key))

    def _key(self, key: str) -> str:
        return f"{self._prefix}/{check_key(key)}".lstrip("/")

    def _address(self, key: str) -> str:
        """Return a name of the object that is unique among buckets, since their copies may be in the same folder."""
        return f"{self._server}/{self._bucket}/{self._key(key)}"

    def _object(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._key(key)}


class _S3Reader(io.RawIOBase):
    """A file whose reads fetch ranges of an object. It raises StorageError on failure."""

    def __init__(self, client: S3Client, place: dict[str, str]) -> None:
        super().__init__()
        self._client, self._place, self._position = client, place, 0
        with s3_errors(READ_ERROR):
            found = client.call("head_object", **place)
            self._size = object_size(found)
            # Reads fail if the object changes.
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
        # The implementation of the base class would fetch 8 KiB at a time.
        return b"".join(iter(lambda: self.read(PART_BYTES) or b"", b""))


class _Parts:
    """A multipart upload."""

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
        """Add a part by copying from another object."""
        part = self._client.call("upload_part_copy", **self._upload, PartNumber=len(self._etags) + 1, **source)
        self._etags.append(part["CopyPartResult"]["ETag"])

    def complete(self, size_bytes: int) -> None:
        """Complete the upload: all parts become one object of *size_bytes* bytes."""
        parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(self._etags, 1)]
        try:
            self._client.call("complete_multipart_upload", **self._upload, MultipartUpload={"Parts": parts})
        except ClientError as error:
            # If the response to an earlier attempt was lost, the upload is complete and the object exists.
            is_repetition = error_code(error) == "NoSuchUpload" and was_retried(error)
            if not (is_repetition and self._has_object(size_bytes)):
                raise

    def _has_object(self, size_bytes: int) -> bool:
        try:
            return object_size(self._client.call("head_object", **self._place)) == size_bytes
        except ClientError:
            return False

    def abort(self) -> None:
        """Discard the parts."""
        # An earlier error is the one to report. The bucket removes the parts in a day.
        with suppress(StorageError), s3_errors("parts were not dropped"):
            self._client.call("abort_multipart_upload", **self._upload)


class _S3Upload(CountedUpload):
    """An upload in parts, or in one request if it is small."""

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
        """Send the remaining bytes and complete the object."""
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
        """Discard the parts."""
        if not self._done and self._parts is not None:
            self._parts.abort()
        self._done = True


def _uuid7_prefixes(first: datetime, last: datetime) -> list[str]:
    """
    Return the prefixes of UUIDv7 names from *first* to *last*, six hexadecimal digits each.

    A UUIDv7 begins with twelve hexadecimal digits of milliseconds since 1970, so that six digits cover 4.7 hours.
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
