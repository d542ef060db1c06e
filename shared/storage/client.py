"""Calls to S3 with boto3, each with a timeout for the whole call."""

import io
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    IncompleteReadError,
    ReadTimeoutError,
    ResponseStreamingError,
)
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from shared.config import StorageSettings
from shared.errors import ObjectMissingError, StorageError

CONNECT_TIMEOUT_S: Final = 10
"""Timeout of connecting, and of sending one block of a body."""
READ_TIMEOUT_S: Final = 30
"""The longest time without a byte of the response."""
ATTEMPTS: Final = 3
MAX_CALLS: Final = 64
"""The most concurrent calls of a client; further ones wait. Calls that timed out count until their thread ends."""
NOT_FOUND_CODES: Final = {"404", "NoSuchKey", "NotFound"}

Answer = TypeVar("Answer")


def open_session(settings: StorageSettings) -> Session:
    """
    Open a boto3 session with the credentials of *settings*, or otherwise those of the platform, and the region.

    A session must not be shared between threads, other than its clients: create all clients in one thread.
    """
    secret = settings.secret_access_key
    return Session(
        aws_access_key_id=settings.access_key_id,
        aws_secret_access_key=secret.get_secret_value() if secret else None,
        region_name=settings.region,
    )


class S3Client:
    """
    A client of one S3 server, for all threads of a process.

    Socket timeouts do not limit the total time of a response that arrives byte by byte. So each call runs in a thread
    of its own, which the caller abandons at the timeout.

    Args:
        session: A session from ``open_session``.
        endpoint_url: The server's address; Amazon's if None.
        timeout_s: The longest time of a call including its retries.
        attempts: The most attempts of a call that fails with a transient error.
    """

    def __init__(
        self, session: Session, endpoint_url: str | None, *, timeout_s: float, attempts: int = ATTEMPTS
    ) -> None:
        self._client: Any = session.client(
            "s3",
            endpoint_url=endpoint_url,
            config=Config(
                connect_timeout=min(CONNECT_TIMEOUT_S, timeout_s),
                read_timeout=min(READ_TIMEOUT_S, timeout_s),
                retries={"mode": "standard", "total_max_attempts": attempts},
                tcp_keepalive=True,
                max_pool_connections=MAX_CALLS,
                signature_version="s3v4",
                # The bucket's name is part of the host only at Amazon.
                s3={"addressing_style": "path" if endpoint_url else "auto"},
                # Other servers may not support the newer checksums.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )
        self._timeout_s = timeout_s
        self._attempts = attempts
        self._slots = threading.BoundedSemaphore(MAX_CALLS)

    @property
    def region(self) -> str | None:
        """The region of the bucket, by the settings or the platform."""
        region: str | None = self._client.meta.region_name
        return region

    def call(self, operation: str, **parameters: Any) -> dict[str, Any]:
        """
        Call an operation by its boto3 name and return the response.

        A ``Body`` is given as ``bytes``.

        Raises:
            Exception: One of those that ``s3_errors`` translates.
        """
        if "Body" in parameters:
            # The body is sent in blocks, so that the socket timeout applies to each block.
            parameters["Body"] = io.BytesIO(parameters["Body"])
        answer: dict[str, Any] = self._call_with_timeout(lambda: getattr(self._client, operation)(**parameters))
        return answer

    def read(self, size_bytes: int, **parameters: Any) -> bytes:
        """
        Call ``get_object`` and return the body, which must be *size_bytes* bytes long.

        Raises:
            Exception: One of those that ``s3_errors`` translates.
        """

        def read() -> bytes:
            answer = self._client.get_object(**parameters)
            if answer["ContentLength"] != size_bytes:
                answer["Body"].close()
                raise OSError(f"{size_bytes} bytes were requested and {answer['ContentLength']} received")
            body: bytes = answer["Body"].read()
            return body

        def read_with_retries() -> bytes:
            # boto3 retries failures before the body, but not those within it.
            for _ in range(self._attempts - 1):
                try:
                    return read()
                except (ReadTimeoutError, ResponseStreamingError, IncompleteReadError):
                    continue
            return read()

        return self._call_with_timeout(read_with_retries)

    def presign(self, operation: str, *, lifetime_s: int, **parameters: Any) -> str:
        """
        Presign an address that allows *operation* with *parameters* without credentials for *lifetime_s* seconds.

        Raises:
            Exception: One of those that ``s3_errors`` translates.
        """
        # Nothing is sent to S3, but credentials may have to be requested from the platform.
        return self._call_with_timeout(
            lambda: str(self._client.generate_presigned_url(operation, Params=parameters, ExpiresIn=lifetime_s))
        )

    def _call_with_timeout(self, call: Callable[[], Answer]) -> Answer:
        deadline = time.monotonic() + self._timeout_s
        if not self._slots.acquire(timeout=self._timeout_s):
            raise TimeoutError(f"all {MAX_CALLS} call slots are taken")
        outcome: Future[Answer] = Future()

        def work() -> None:
            try:
                outcome.set_result(call())
            except BaseException as error:  # noqa: BLE001 - passed on to the caller's thread
                outcome.set_exception(error)
            finally:
                self._slots.release()

        try:
            # An executor would wait for its threads when the process ends.
            threading.Thread(target=work, name="s3-call", daemon=True).start()
        except RuntimeError as error:
            self._slots.release()
            raise OSError("cannot start a thread") from error
        return outcome.result(deadline - time.monotonic())


@contextmanager
def s3_errors(sentence: str) -> Iterator[None]:
    """
    Translate errors of S3 into StorageError with *sentence*; the original, which may name hosts and buckets, is its
    cause.

    Raises:
        StorageError: The call failed.
        ObjectMissingError: The object does not exist.
    """
    try:
        yield
    except ClientError as error:
        if error_code(error) in NOT_FOUND_CODES:
            raise ObjectMissingError("the stored file is gone") from error
        raise StorageError(sentence) from error
    except (OSError, BotoCoreError, ResponseParserError, HTTPError) as error:
        raise StorageError(sentence) from error
    except (KeyError, ValueError, TypeError) as error:
        # The response lacks a field or has an invalid number or date, which neither the library nor its callers check.
        raise StorageError(sentence) from error


def error_code(error: ClientError) -> str:
    """Return S3's error code, or the HTTP status such as ``404`` if the response has no body."""
    return str(error.response.get("Error", {}).get("Code"))


def was_retried(error: ClientError) -> bool:
    """Return whether the call was retried, so that an earlier attempt may have succeeded."""
    attempts: int = error.response.get("ResponseMetadata", {}).get("RetryAttempts", 0)
    return attempts > 0


def object_size(answer: dict[str, Any]) -> int:
    """
    Return the size in bytes of the object that a response describes.

    Raises:
        Exception: The size is missing or invalid; ``s3_errors`` translates the error.
    """
    size: int = answer["ContentLength"]
    if size < 0:
        raise ValueError(f"an object of {size} bytes")
    return size
