"""Calls to S3 by boto3, each of which ends after a known time."""

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
"""Also the longest that sending a block of a body may stand still."""
READ_TIMEOUT_S: Final = 30
"""The longest that an answer may stand still."""
ATTEMPTS: Final = 3
MAX_CALLS: Final = 64
"""Of a client at a time; further ones wait. Calls that were given up count until they really end."""
NOT_FOUND_CODES: Final = {"404", "NoSuchKey", "NotFound"}

Answer = TypeVar("Answer")


def open_session(settings: StorageSettings) -> Session:
    """
    Open what clients are made from: the credentials of *settings*, or else those of the platform, and the region.

    A session is not safe to share between threads, as clients are: one thread makes all clients from it.
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

    Timeouts of a connection limit how long it may stand still, not how long an answer may take that comes byte by
    byte. So each call runs in a thread of its own, which its caller leaves behind when the time is over.

    Args:
        session: Of ``open_session``.
        endpoint_url: The server's address; Amazon's own if None.
        timeout_s: The longest that a call takes, all its attempts together.
        attempts: How often a call is tried that fails for a reason that may pass.
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
                # By the name of the bucket in the host only where the server is Amazon's own.
                s3={"addressing_style": "path" if endpoint_url else "auto"},
                # Servers other than Amazon's may not know the newer checksums.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )
        self._timeout_s = timeout_s
        self._attempts = attempts
        self._slots = threading.BoundedSemaphore(MAX_CALLS)

    @property
    def region(self) -> str | None:
        """Where the bucket is, by the settings or the platform."""
        region: str | None = self._client.meta.region_name
        return region

    def call(self, operation: str, **parameters: Any) -> dict[str, Any]:
        """
        Perform an operation, named as boto3 names it, and give its answer.

        A body is given as ``bytes``.

        Raises:
            Exception: One of those that ``s3_errors`` translates.
        """
        if "Body" in parameters:
            # Sent block by block, so that the timeout is for each block and not for the whole.
            parameters["Body"] = io.BytesIO(parameters["Body"])
        answer: dict[str, Any] = self._call_with_timeout(lambda: getattr(self._client, operation)(**parameters))
        return answer

    def read(self, size_bytes: int, **parameters: Any) -> bytes:
        """
        Perform ``get_object`` and give the body, which has to be *size_bytes* bytes long.

        Raises:
            Exception: One of those that ``s3_errors`` translates.
        """

        def read() -> bytes:
            answer = self._client.get_object(**parameters)
            if answer["ContentLength"] != size_bytes:
                answer["Body"].close()
                raise OSError(f"{size_bytes} bytes were asked for and {answer['ContentLength']} came")
            body: bytes = answer["Body"].read()
            return body

        def read_with_retries() -> bytes:
            # boto3 tries again what fails before the body begins, not what breaks off within it.
            for _ in range(self._attempts - 1):
                try:
                    return read()
                except (ReadTimeoutError, ResponseStreamingError, IncompleteReadError):
                    continue
            return read()

        return self._call_with_timeout(read_with_retries)

    def presign(self, operation: str, *, lifetime_s: int, **parameters: Any) -> str:
        """
        Give an address by which anybody may perform *operation* with *parameters* for *lifetime_s* seconds.

        Raises:
            Exception: One of those that ``s3_errors`` translates.
        """
        # Nothing is sent to S3, but the platform may be asked for credentials.
        return self._call_with_timeout(
            lambda: str(self._client.generate_presigned_url(operation, Params=parameters, ExpiresIn=lifetime_s))
        )

    def _call_with_timeout(self, call: Callable[[], Answer]) -> Answer:
        deadline = time.monotonic() + self._timeout_s
        if not self._slots.acquire(timeout=self._timeout_s):
            raise TimeoutError(f"{MAX_CALLS} calls have not ended")
        outcome: Future[Answer] = Future()

        def work() -> None:
            try:
                outcome.set_result(call())
            except BaseException as error:  # noqa: BLE001 - the caller, in its own thread, decides about it
                outcome.set_exception(error)
            finally:
                self._slots.release()

        try:
            # Of no executor: those wait for their threads when the process ends.
            threading.Thread(target=work, name="s3-call", daemon=True).start()
        except RuntimeError as error:
            self._slots.release()
            raise OSError("no thread can be started") from error
        return outcome.result(deadline - time.monotonic())


@contextmanager
def s3_errors(sentence: str) -> Iterator[None]:
    """
    Raise StorageError with *sentence* where a call failed; what the library says of hosts and buckets is its cause.

    Raises:
        ObjectMissingError: There is no such object.
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
        # The answer lacks a field, or has one that is no number or no date: neither the library nor its callers look
        # before they read it.
        raise StorageError(sentence) from error


def error_code(error: ClientError) -> str:
    """What S3 calls the reason; ``404`` and the like where an answer has no body to name it."""
    return str(error.response.get("Error", {}).get("Code"))


def was_retried(error: ClientError) -> bool:
    """Whether the refusal is of a repetition, so that the server may have done before what it refuses now."""
    attempts: int = error.response.get("ResponseMetadata", {}).get("RetryAttempts", 0)
    return attempts > 0


def object_size(answer: dict[str, Any]) -> int:
    """
    Bytes of the object that an answer is about.

    Raises:
        Exception: One of those that ``s3_errors`` translates, if it does not say.
    """
    size: int = answer["ContentLength"]
    if size < 0:
        raise ValueError(f"an object of {size} bytes")
    return size
