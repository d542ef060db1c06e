"""
Request bodies, streamed to storage while they arrive, and hashed and counted on the way.

A body is a multipart form with a field ``file``, raw bytes with a media type, or JSON that names a URL or an upload.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from socket import SHUT_RDWR, socket
from threading import Timer
from typing import IO, Any

from flask import Request, Response
from flask import request as current_request
from gunicorn.http.errors import ParseException
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge

from api.errors import APIError, is_body_broken
from api.forms import read_form
from shared.containers import HEAD_BYTES, MediaLimits, check_head, check_limits, inspect_header
from shared.errors import Code, TooLargeError
from shared.media.files import StoredFile, new_storage_key
from shared.media.removals import unclaimed_file
from shared.storage import BLOCK_BYTES, Storage, Upload

MAX_JSON_BYTES = 64 * 1024
MAX_BATCH_BYTES = 1024 * 1024
MAX_DRAINED_BYTES = 16 * 1024 * 1024
DRAIN_READ_TIMEOUT_S = 1.0
DRAIN_TIMEOUT_S = 5.0
MULTIPART_OVERHEAD_BYTES = 1024 * 1024
"""Allowance for other fields and boundaries in addition to the file."""


@dataclass(slots=True)
class _Incoming:
    """A file that is being stored; it is discarded unless ``keep`` is called."""

    storage: Storage
    key: str
    upload: Upload
    max_bytes: int
    head: bytes = b""

    def write(self, data: bytes) -> int:
        if self.upload.size_bytes + len(data) > self.max_bytes:
            raise TooLargeError(f"the file is larger than the limit max_upload_bytes of {self.max_bytes} bytes")
        if len(self.head) < HEAD_BYTES:
            self.head += data[: HEAD_BYTES - len(self.head)]
            if len(self.head) == HEAD_BYTES:
                # Files that are not media are refused before the rest is read.
                check_head(self.head)
        return self.upload.write(data)

    def keep(self) -> StoredFile:
        return StoredFile(self.key, self.upload.commit(), self.upload.size_bytes)


@dataclass(slots=True)
class _Uploads:
    """The files of one request."""

    storage: Storage
    max_bytes: int
    incoming: list[_Incoming] = field(default_factory=list)

    def begin(self) -> _Incoming:
        key = new_storage_key()
        item = _Incoming(self.storage, key, self.storage.create(key), self.max_bytes)
        self.incoming.append(item)
        return item

    def discard(self) -> None:
        for item in self.incoming:
            item.upload.abort()


class StreamingRequest(Request):
    """A request that never buffers files in memory or temporary folders; only ``receive_body`` accepts files."""

    def _get_file_stream(
        self,
        total_content_length: int | None,
        content_type: str | None,
        filename: str | None = None,
        content_length: int | None = None,
    ) -> IO[bytes]:
        del total_content_length, content_type, filename, content_length
        raise APIError(Code.UNSUPPORTED_MEDIA_TYPE, "this endpoint accepts no file")

    def get_json(self, force: bool = False, silent: bool = False, cache: bool = True) -> Any:
        """Return the parsed body; no body is an object without members, so that options can be left out."""
        if not self.content_length and "HTTP_TRANSFER_ENCODING" not in self.environ:
            return {}
        self.max_content_length = MAX_BATCH_BYTES if self.path == "/v1/batches" else MAX_JSON_BYTES
        try:
            return super().get_json(force=force, silent=silent, cache=cache)
        except RequestEntityTooLarge as error:
            raise APIError(Code.TOO_LARGE, f"the JSON body has more than {self.max_content_length} bytes") from error
        except RecursionError as error:
            raise APIError(Code.BAD_REQUEST, "the body is not valid JSON: it is nested too deeply") from error


@dataclass(frozen=True, slots=True)
class Submission:
    """The content of a request body."""

    upload: StoredFile | None
    fields: dict[str, Any]
    """Form fields, or the members of the JSON object."""
    is_json: bool


@contextmanager
def receive_body(
    request: Request, storage: Storage, max_bytes: int, check: Callable[[dict[str, str]], None] = lambda _fields: None
) -> Iterator[Submission]:
    """
    Read the body of *request*; its file is in storage while the block runs.

    The file stays in storage if the block commits a row that refers to it; see ``unclaimed_file``.

    Args:
        check: Called with the form fields before the file, before the file is read.

    Raises:
        APIError: The body has none of the three forms, or is incomplete.
        TooLargeError: The file has more than *max_bytes* bytes.
        NotMediaError, UnsupportedMediaError: The first bytes are not of an accepted format; the rest is not read.
    """
    uploads = _Uploads(storage, max_bytes)
    try:
        with _whole_body():
            submission = _read(request, uploads, check)
        if submission.upload is None:
            yield submission
        else:
            with unclaimed_file(storage, submission.upload.storage_key):
                yield submission
    finally:
        uploads.discard()


@contextmanager
def receive_exactly(request: Request, storage: Storage, key: str, size_bytes: int) -> Iterator[Upload]:
    """
    Read a body of *size_bytes* bytes, whatever they are; the block has to commit it, or it is discarded.

    Args:
        key: Where it is to be stored.

    Raises:
        APIError: The body is announced with another length or with none, or is incomplete.
    """
    announced = request.content_length
    if announced is None:
        raise APIError(Code.BAD_REQUEST, "the length of the file is missing; send Content-Length, and no chunked body")
    if announced != size_bytes:
        code = Code.TOO_LARGE if announced > size_bytes else Code.BAD_REQUEST
        raise APIError(code, f"the body has {announced} bytes; this address takes exactly {size_bytes}")
    upload = storage.create(key)
    try:
        with _whole_body():
            while block := request.stream.read(BLOCK_BYTES):
                upload.write(block)
        if upload.size_bytes != size_bytes:
            raise APIError(Code.BAD_REQUEST, f"the body ended after {upload.size_bytes} of {size_bytes} bytes")
        yield upload
    finally:
        upload.abort()


@contextmanager
def _whole_body() -> Iterator[None]:
    """Translate errors of a connection that ended while a body was read."""
    try:
        yield
    except (ClientDisconnected, ConnectionError, TimeoutError) as error:
        raise APIError(Code.BAD_REQUEST, "the connection ended before the whole body had arrived") from error


def drain_unread(response: Response) -> Response:
    """
    Read the rest of the request body for a moment after the response is sent.

    If a server closes a connection with unread data, the client's system may discard the response. The rest is read for
    at most DRAIN_TIMEOUT_S seconds and MAX_DRAINED_BYTES bytes; if it is longer, the connection is closed then.
    """
    environ = current_request.environ
    body, connection = environ["wsgi.input"], environ.get("gunicorn.socket")
    has_body = bool(current_request.content_length) or "HTTP_TRANSFER_ENCODING" in environ
    if connection is not None and has_body:
        # The end of a malformed chunked body is unknown, so that the connection must not be reused.
        read = connection.recv if is_body_broken() else body.read
        is_reusable = not is_body_broken()
        response.call_on_close(lambda: _drain(read, connection, is_reusable=is_reusable))
    return response


def _drain(read: Callable[[int], bytes], connection: socket, *, is_reusable: bool) -> None:
    # gunicorn's reads block until they are complete, and each received byte restarts the socket's timeout. Only closing
    # the connection interrupts a read from a client that sends slowly.
    deadline = Timer(DRAIN_TIMEOUT_S, _shut_down, (connection,))
    deadline.daemon = True
    deadline.start()
    try:
        if not _read_to_end(read, connection) or not is_reusable:
            _shut_down(connection)
    finally:
        deadline.cancel()
        # Otherwise the timer could close another connection that reuses the descriptor.
        deadline.join()


def _read_to_end(read: Callable[[int], bytes], connection: socket) -> bool:
    """Return whether the client sent the rest of the body in time, so that the connection can be reused."""
    left = MAX_DRAINED_BYTES
    connection.settimeout(DRAIN_READ_TIMEOUT_S)
    with suppress(OSError, ParseException):
        while left > 0:
            block = read(min(BLOCK_BYTES, left))
            if not block:
                connection.settimeout(None)
                return True
            left -= len(block)
    return False


def _shut_down(connection: socket) -> None:
    with suppress(OSError):
        connection.shutdown(SHUT_RDWR)


def check_stored_header(storage: Storage, upload: StoredFile, limits: MediaLimits) -> None:
    """
    Refuse a stored file whose header is not acceptable.

    Raises:
        MediaError: The file is not acceptable; its code says why.
    """
    with storage.open(upload.storage_key) as stream:
        check_limits(inspect_header(stream, upload.size_bytes), limits)


def is_raw(request: Request) -> bool:
    """Return whether the body of *request* is the file itself, without options."""
    kind = request.mimetype
    return kind == "application/octet-stream" or kind.startswith(("image/", "video/"))


def _read(request: Request, uploads: _Uploads, check: Callable[[dict[str, str]], None]) -> Submission:
    kind = request.mimetype
    announced = request.content_length
    if kind == "multipart/form-data":
        if announced is not None and announced > uploads.max_bytes + MULTIPART_OVERHEAD_BYTES:
            raise _too_large(announced, uploads.max_bytes)
        request.max_content_length = uploads.max_bytes + MULTIPART_OVERHEAD_BYTES
        fields = read_form(request.stream, request.mimetype_params.get("boundary", ""), uploads.begin, check)
        return Submission(uploads.incoming[0].keep(), fields, is_json=False)
    if kind == "application/json":
        return Submission(None, _read_json(request), is_json=True)
    if is_raw(request):
        if announced is not None and announced > uploads.max_bytes:
            raise _too_large(announced, uploads.max_bytes)
        item = uploads.begin()
        # The first read is small, since it blocks until it is complete, and the first bytes may be refused.
        received = item.write(request.stream.read(HEAD_BYTES))
        while block := request.stream.read(BLOCK_BYTES):
            received += item.write(block)
        if announced is not None and received < announced:
            raise APIError(Code.BAD_REQUEST, f"the body ended after {received} of {announced} bytes")
        return Submission(item.keep(), {}, is_json=False)
    hint = "; curl -d and --data-binary send another type: use -F file=@clip.mp4, or --json for a URL"
    raise APIError(
        Code.UNSUPPORTED_MEDIA_TYPE,
        "send multipart/form-data with a field 'file', the file itself as image/*, video/* or"
        " application/octet-stream, or a JSON object with a 'url' as application/json"
        + (hint if kind == "application/x-www-form-urlencoded" else ""),
    )


def _read_json(request: Request) -> dict[str, Any]:
    body = request.stream.read(MAX_JSON_BYTES + 1)
    if len(body) > MAX_JSON_BYTES:
        raise APIError(Code.TOO_LARGE, f"the JSON body has more than {MAX_JSON_BYTES} bytes")
    try:
        data = json.loads(body, parse_constant=_refuse_constant, object_pairs_hook=_refuse_repetition)
    except (ValueError, RecursionError) as error:
        raise APIError(Code.BAD_REQUEST, "the body is not valid JSON") from error
    if not isinstance(data, dict):
        raise APIError(Code.INVALID_REQUEST, "the body is not a JSON object")
    return data


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _refuse_repetition(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object from *members*, and refuse repeated names, which parsers treat differently."""
    found = dict(members)
    if len(found) < len(members):
        raise ValueError("a name is repeated")
    return found


def _too_large(size_bytes: int, max_bytes: int) -> TooLargeError:
    return TooLargeError(f"the body has {size_bytes} bytes; the limit max_upload_bytes is {max_bytes}")
