"""Streaming reader of multipart forms: fields before the file are checked before the file is read."""

from collections.abc import Callable, Iterator
from typing import IO, Final, Protocol

from werkzeug.sansio.multipart import Data, Epilogue, Event, Field, File, MultipartDecoder, NeedData

from api.errors import APIError
from shared.containers import HEAD_BYTES
from shared.errors import Code

MAX_FIELDS_BYTES: Final = 256 * 1024
"""The most bytes of all fields except the file."""
MAX_PARTS: Final = 32
BLOCK_BYTES: Final = 64 * 1024


class Sink(Protocol):
    """A destination for the content of the file."""

    def write(self, data: bytes, /) -> int:
        """Append bytes and return their number."""


def read_form(
    stream: IO[bytes], boundary: str, begin_file: Callable[[], Sink], check: Callable[[dict[str, str]], None]
) -> dict[str, str]:
    """
    Read the form in *stream* to its end.

    Args:
        boundary: The boundary from the header ``Content-Type``.
        begin_file: Called at the beginning of the file, which must be in the field ``file``; returns its destination.
        check: Called before *begin_file* with the fields so far. Its errors are raised.

    Returns:
        The fields without the file.

    Raises:
        APIError: ``bad_request``: the form is malformed or incomplete; ``missing_file``: there is no file in the field
            ``file``; ``invalid_request``: a field or the file is given twice.
        RequestEntityTooLarge: There are too many parts or too many bytes in fields.
    """
    decoder = MultipartDecoder(_parse_boundary(boundary), max_form_memory_size=MAX_FIELDS_BYTES, max_parts=MAX_PARTS)
    form = _Form(begin_file, check)
    is_over = False
    while not is_over:
        # The first read is small, since it blocks until it is complete, and the first bytes may be refused.
        block = stream.read(BLOCK_BYTES if form.received >= HEAD_BYTES else HEAD_BYTES)
        is_over = not block
        for event in _decode(decoder, block):
            form.handle(event)
    if form.file is None:
        raise _missing_file(form.fields)
    return form.fields


class _Form:
    """The parts of a form that have arrived."""

    def __init__(self, begin_file: Callable[[], Sink], check: Callable[[dict[str, str]], None]) -> None:
        self.fields: dict[str, str] = {}
        self.file: Sink | None = None
        self.received = 0
        """Bytes of the file that have arrived."""
        self._begin_file, self._check = begin_file, check
        self._name: str | None = None
        """The field that is being read; None while the file is read."""
        self._text = b""

    def handle(self, event: Event) -> None:
        """Handle the beginning or some content of a part."""
        if isinstance(event, File):
            self._begin(event.name)
        elif isinstance(event, Field):
            self._name, self._text = event.name, b""
        elif isinstance(event, Data):
            if self._name is None and self.file is not None:
                self.received += self.file.write(event.data)
            else:
                self._extend(event.data)
            if self._name is not None and not event.more_data:
                self._add(self._name)

    def _begin(self, name: str | None) -> None:
        if self.file is not None:
            raise APIError(Code.INVALID_REQUEST, "send one file, in the field 'file'")
        if name != "file":
            raise APIError(Code.MISSING_FILE, f"the file is in the field {name or ''!r}; send it in the field 'file'")
        self._check(self.fields)
        self._name, self.file = None, self._begin_file()

    def _extend(self, data: bytes) -> None:
        self._text += data
        if len(self._text) + sum(map(len, self.fields.values())) > MAX_FIELDS_BYTES:
            raise APIError(Code.TOO_LARGE, f"the fields of the form have more than {MAX_FIELDS_BYTES} bytes")

    def _add(self, name: str) -> None:
        if name == "file":
            raise APIError(
                Code.MISSING_FILE,
                "the field 'file' is text instead of a file; curl needs an @ before its name: -F file=@clip.mp4",
            )
        if name in self.fields:
            raise APIError(Code.INVALID_REQUEST, f"the field {name!r} is given more than once")
        self.fields[name] = self._text.decode("utf-8", "replace")


def _parse_boundary(given: str) -> bytes:
    if not given or not given.isascii():
        raise _malformed_form()
    return given.encode()


def _decode(decoder: MultipartDecoder, block: bytes) -> Iterator[Event]:
    """Yield the events of *block*; an empty block is the end of the body."""
    try:
        decoder.receive_data(block or None)
        while not isinstance(event := decoder.next_event(), NeedData | Epilogue):
            if isinstance(event, Field) and event.name is None:
                raise _malformed_form()
            yield event
    except ValueError as error:
        raise _malformed_form() from error


def refuse_source_fields(fields: dict[str, str], code: Code) -> None:
    """Refuse a form that names a URL or a direct upload, with what to send instead."""
    for name in ("url", "upload_id"):
        if name in fields:
            raise APIError(
                code, f'a form takes a file and no {name!r}; without a file, send {{"{name}": "…"}} as application/json'
            )


def _missing_file(fields: dict[str, str]) -> APIError:
    refuse_source_fields(fields, Code.MISSING_FILE)
    return APIError(Code.MISSING_FILE, "the form has no file in a field named 'file'; with curl: -F file=@clip.mp4")


def _malformed_form() -> APIError:
    return APIError(Code.BAD_REQUEST, "the body is not valid multipart/form-data, or incomplete")
