"""
Objects in S3, or in a server that speaks as S3 does, by s3fs.

A body goes up in parts while it arrives and is an object only once it is whole. Whoever needs a file on the disk gets a
copy, one for all processes of a machine; see ``shared.local_copies``.
"""

import asyncio
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from copy import copy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError
from fsspec.asyn import sync_wrapper
from s3fs import S3FileSystem

from shared.config import StorageSettings
from shared.errors import ObjectMissingError, StorageError
from shared.local_copies import LocalCopies
from shared.storage import (
    BLOCK_BYTES,
    INCOMING_PREFIX,
    MEDIA_PREFIX,
    PROBE_PREFIX,
    CountedUpload,
    SignedUpload,
    Upload,
    check_by_writing,
    checked_key,
)

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 30
CALL_LIMIT_S = 120.0
"""Of a call, all attempts together."""
CHECK_LIMIT_S = 5.0
"""Likewise, where somebody asks whether the server is there."""
PART_BYTES = 8 * 1024 * 1024
"""Of an upload in parts: S3 takes 10,000 of 5 MiB or more. Each upload holds one in memory."""
UNFINISHED_DAYS = 1
"""After this long the bucket itself drops the parts of an upload that was never finished."""
INCOMING_DAYS = 8
"""Likewise, a direct upload of which no job was made: a day more than an address can be good."""


class S3Storage:
    """
    Objects below one prefix of a bucket.

    Credentials are those of *settings*, or else what the platform gives: environment, instance role, web identity.
    """

    def __init__(self, settings: StorageSettings) -> None:
        address = urlsplit(settings.url)
        self._bucket, self._prefix = address.netloc, address.path.strip("/")
        self._encryption = _encryption(settings)
        self._filesystem = _connect(settings, settings.endpoint_url, self._encryption, CALL_LIMIT_S)
        self._impatient = _connect(settings, settings.endpoint_url, self._encryption, CHECK_LIMIT_S)
        # Signing sends nothing: it needs the address by which the sender will come, not ours.
        public = settings.public_endpoint_url
        is_amazons = settings.endpoint_url is None
        self._signer = (
            _connect(settings, public, {}, CALL_LIMIT_S) if public else self._filesystem if is_amazons else None
        )
        self._copies = LocalCopies(settings.cache_dir, settings.cache_bytes, settings.cache_linger_s)

    def create(self, key: str) -> Upload:
        """Begin to write the object *key*."""
        with _told("storage does not accept new files"):
            return _S3Upload(self._filesystem.open(self._path(key), "wb"))

    def open(self, key: str) -> BinaryIO:
        """Open for reading, seekable; what is not read is not fetched, but for a block ahead."""
        with _told("the stored file cannot be read"):
            return cast("BinaryIO", self._filesystem.open(self._path(key), "rb", block_size=BLOCK_BYTES))

    def local_path(self, key: str) -> AbstractContextManager[Path]:
        """A copy on this machine."""

        def fetch(path: Path) -> None:
            with _told("the stored file cannot be read"):
                self._filesystem.get_file(self._path(key), str(path))

        return self._copies.get(key, lambda: self.size(key), fetch)

    def copy(self, source: str, target: str) -> None:
        """Make *target* a copy of *source*; the server does it."""
        with _told("the stored file could not be copied"):
            self._filesystem.cp_file(self._path(source), self._path(target))

    def size(self, key: str) -> int:
        """Bytes of the object."""
        with _told("the stored file cannot be read"):
            return int(self._filesystem.info(self._path(key), refresh=True)["size"])

    def sign_upload(self, key: str, size_bytes: int, lasts_s: int) -> SignedUpload | None:
        """
        A PUT of exactly *size_bytes* bytes; the length is signed, so no other is taken.

        None where the server is not Amazon's own, and nobody said by which address senders reach it.
        """
        if self._signer is None:
            return None
        with _told("storage does not accept new files"):
            url = self._signer.url(
                self._path(key),
                expires=lasts_s,
                client_method="put_object",
                ContentLength=size_bytes,
                **self._encryption,
            )
        return SignedUpload(url, {"Content-Length": str(size_bytes), **_encryption_headers(self._encryption)})

    def delete(self, key: str) -> None:
        """Remove the object, and any copy of it on this machine."""
        self._copies.forget(key)
        with _told("the stored file could not be removed"):
            # S3 removes what is not there without complaint.
            self._filesystem.call_s3("delete_object", Bucket=self._bucket, Key=self._key(key))

    def list(self, prefix: str, *, not_before: datetime | None = None) -> Iterator[tuple[str, datetime]]:
        """
        Key and time of last change of every object below *prefix*, in order.

        Unfinished uploads are the bucket's to drop: ``set_lifecycle`` tells it to. With *not_before* only names that
        tell a time since then are asked for, as names that are UUIDv7 do.
        """
        root = f"{self._bucket}/{self._prefix}".rstrip("/")
        for beginning in [""] if not_before is None else _beginnings(not_before, datetime.now(UTC)):
            with _told("storage cannot be listed"):
                found = self._filesystem.find(self._path(prefix), prefix=beginning, detail=True, refresh=True)
            for path, info in found.items():
                yield path[len(root) :].lstrip("/"), info["LastModified"]

    def check(self) -> None:
        """Write, read and remove a small object; a server that takes seconds for it counts as away."""
        impatient = copy(self)
        impatient._filesystem = self._impatient  # noqa: SLF001 - of its own kind
        check_by_writing(impatient)

    def make_bucket(self) -> bool:
        """Make the bucket unless it is there; whether it was made."""
        with _told("the bucket could not be made"):
            if self._filesystem.exists(self._bucket):
                return False
            self._filesystem.mkdir(self._bucket)
        return True

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
        with _told("the bucket's lifecycle could not be set"):
            self._filesystem.call_s3(
                "put_bucket_lifecycle_configuration",
                Bucket=self._bucket,
                LifecycleConfiguration={"Rules": rules},
            )

    def lifecycle(self) -> tuple[dict[str, Any], ...]:
        """The bucket's rules, as S3 gives them."""
        with _told("the bucket's lifecycle cannot be read"):
            answer = self._filesystem.call_s3("get_bucket_lifecycle_configuration", Bucket=self._bucket)
        return tuple(answer.get("Rules", []))

    def _key(self, key: str) -> str:
        return f"{self._prefix}/{checked_key(key)}".lstrip("/")

    def _path(self, key: str) -> str:
        return f"{self._bucket}/{self._key(key)}"


class _S3Upload(CountedUpload):
    """Parts that become an object when the file is closed; a small one is sent whole then."""

    def __init__(self, file: Any) -> None:
        super().__init__()
        self._file = file

    def write(self, data: bytes) -> int:
        """Append *data*."""
        with _told("storage could not be written"):
            self._file.write(data)
        return self._count(data)

    def commit(self) -> str:
        """Send what is left and make it an object."""
        with _told("storage could not finish the file"):
            self._file.close()
        self._done = True
        return self._digest.hexdigest()

    def abort(self) -> None:
        """Drop the parts."""
        if self._done:
            return
        self._done = True
        try:
            self._file.discard()
        except (OSError, BotoCoreError):
            # Something has failed already, which is what is to be told; the bucket drops the parts in a day.
            pass
        finally:
            # Otherwise the collector of garbage closes it, which would make it an object.
            self._file.closed = True


def _beginnings(first: datetime, last: datetime) -> list[str]:
    """
    What UUIDv7 names of these times begin with, six digits each.

    They begin with the milliseconds since 1970 in twelve hexadecimal digits, so that six stand for 4.7 hours.
    """
    low, high = (int(moment.timestamp() * 1000) >> 24 for moment in (first, last))
    return [f"{number:06x}" for number in range(low, high + 1)]


class _BoundedFileSystem(S3FileSystem):  # type: ignore[misc]
    """
    Gives up a call after ``limit_s`` seconds.

    Timeouts of the connection alone do not do that: before it sends a body, the client waits for the server's leave
    without any.
    """

    limit_s = CALL_LIMIT_S
    # Of two times two attempts: the inner ones know when a server asks for patience, these when a body breaks off.
    retries = 2

    async def _call_s3(self, *arguments: Any, **options: Any) -> Any:
        return await asyncio.wait_for(super()._call_s3(*arguments, **options), self.limit_s)

    call_s3 = sync_wrapper(_call_s3)


def _connect(
    settings: StorageSettings, endpoint_url: str | None, extra: dict[str, str], limit_s: float
) -> S3FileSystem:
    secret = settings.secret_access_key
    filesystem = _BoundedFileSystem(
        key=settings.access_key_id,
        secret=secret.get_secret_value() if secret else None,
        endpoint_url=endpoint_url,
        client_kwargs={"region_name": settings.region} if settings.region else {},
        config_kwargs={
            "connect_timeout": CONNECT_TIMEOUT_S,
            "read_timeout": READ_TIMEOUT_S,
            "retries": {"mode": "standard", "total_max_attempts": 2},
            "signature_version": "s3v4",
            # By the name of the bucket in the host only where the server is Amazon's own.
            "s3": {"addressing_style": "path" if endpoint_url else "auto"},
            # Servers other than Amazon's may not know the newer checksums.
            "request_checksum_calculation": "when_required",
            "response_checksum_validation": "when_required",
        },
        s3_additional_kwargs=extra,
        default_block_size=PART_BYTES,
        # Other processes write here too.
        use_listings_cache=False,
        # An instance is this process's own.
        skip_instance_cache=True,
    )
    filesystem.limit_s = limit_s
    return filesystem


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


@contextmanager
def _told(sentence: str) -> Iterator[None]:
    """Failures of the library as ours; what it says of hosts and buckets stays in the log."""
    try:
        yield
    except FileNotFoundError as error:
        raise ObjectMissingError("the stored file is gone") from error
    except (OSError, BotoCoreError) as error:
        raise StorageError(sentence) from error
