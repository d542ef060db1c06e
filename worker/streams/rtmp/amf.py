"""AMF0, the notation of commands in RTMP: a reader with bounds, and a writer."""

import struct
from collections.abc import Mapping
from typing import Any, Final

from worker.streams.rtmp.errors import ProtocolError

MAX_VALUES: Final = 512
"""The most values in one message, counting those within others; connect has about 20."""
MAX_DEPTH: Final = 8

_NUMBER, _BOOLEAN, _STRING, _OBJECT, _NULL, _UNDEFINED = 0, 1, 2, 3, 5, 6
_MAP, _END, _ARRAY, _DATE, _LONG_STRING = 8, 9, 10, 11, 12


def read_values(data: bytes) -> list[Any]:
    """
    Read all values of a message: float, bool, str, dict, list or None each.

    Raises:
        ProtocolError: The data is malformed, or has too many values.
    """
    reader = _Reader(data)
    values = []
    while not reader.is_at_end:
        values.append(reader.read(0))
    return values


def write_values(*values: Any) -> bytes:
    """Write float, bool, str, None and mappings of these."""
    return b"".join(map(_write, values))


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0
        self._values = 0

    @property
    def is_at_end(self) -> bool:
        return self._position >= len(self._data)

    def read(self, depth: int) -> Any:
        self._values += 1
        if self._values > MAX_VALUES or depth > MAX_DEPTH:
            raise ProtocolError("a command has too many values")
        kind = self._take(1)[0]
        if kind in (_NUMBER, _DATE):
            (number,) = struct.unpack(">d", self._take(8))
            self._take(2 if kind == _DATE else 0)  # The time zone of a date, which is reserved.
            return number
        if kind in (_STRING, _LONG_STRING):
            return self._text(2 if kind == _STRING else 4)
        if kind in (_OBJECT, _MAP):
            self._take(4 if kind == _MAP else 0)  # The number of entries, which is only a hint.
            return self._entries(depth)
        if kind == _BOOLEAN:
            return self._take(1) != b"\0"
        if kind == _ARRAY:
            return self._items(depth)
        if kind not in (_NULL, _UNDEFINED):
            raise ProtocolError("a command has a value of an unknown kind")
        return None

    def _items(self, depth: int) -> list[Any]:
        count = int.from_bytes(self._take(4), "big")
        if count > MAX_VALUES:
            raise ProtocolError("a command has too many values")
        return [self.read(depth + 1) for _ in range(count)]

    def _entries(self, depth: int) -> dict[str, Any]:
        entries: dict[str, Any] = {}
        while True:
            name = self._text(2)
            if not name and self._data[self._position : self._position + 1] == bytes([_END]):
                self._position += 1
                return entries
            entries[name] = self.read(depth + 1)

    def _text(self, width: int) -> str:
        length = int.from_bytes(self._take(width), "big")
        return self._take(length).decode("utf-8", "replace")

    def _take(self, count: int) -> bytes:
        end = self._position + count
        if end > len(self._data):
            raise ProtocolError("a command ends in the middle of a value")
        found = self._data[self._position : end]
        self._position = end
        return found


def _write(value: Any) -> bytes:
    if value is None:
        return bytes([_NULL])
    if isinstance(value, bool):
        return bytes([_BOOLEAN, value])
    if isinstance(value, int | float):
        return bytes([_NUMBER]) + struct.pack(">d", value)
    if isinstance(value, Mapping):
        entries = b"".join(_write_text(name) + _write(one) for name, one in value.items())
        return bytes([_OBJECT]) + entries + _write_text("") + bytes([_END])
    return bytes([_STRING]) + _write_text(value)


def _write_text(text: str) -> bytes:
    data = text.encode()
    return struct.pack(">H", len(data)) + data
