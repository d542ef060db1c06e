"""
The chunk layer of RTMP: messages are cut into chunks, and those of several messages may alternate.

The reader takes bytes as they come. What it holds is bounded by the longest message that is kept; messages that nobody
needs, such as sound, are counted and passed over.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from worker.streams.rtmp.errors import ProtocolError

MAX_STREAMS: Final = 64
"""The most chunk streams of one connection; publishers use about five."""
MIN_CHUNK_BYTES: Final = 128
"""The least size of chunks that is accepted. It is also the size before another one is agreed on."""
MAX_CHUNK_BYTES: Final = 2**24 - 1
MAX_COMMAND_BYTES: Final = 16 * 1024
_EXTENDED: Final = 0xFFFFFF


class MessageType(IntEnum):
    """The types of messages that have a meaning here; all others are passed over."""

    SET_CHUNK_SIZE = 1
    ABORT = 2
    ACKNOWLEDGEMENT = 3
    USER_CONTROL = 4
    WINDOW_SIZE = 5
    BANDWIDTH = 6
    AUDIO = 8
    VIDEO = 9
    COMMAND_AMF3 = 17
    COMMAND = 20
    AGGREGATE = 22


_MAX_BYTES: Final[Mapping[int, int]] = {
    MessageType.SET_CHUNK_SIZE: 4,
    MessageType.ABORT: 4,
    MessageType.USER_CONTROL: 64,
    MessageType.WINDOW_SIZE: 4,
    MessageType.COMMAND_AMF3: MAX_COMMAND_BYTES,
    MessageType.COMMAND: MAX_COMMAND_BYTES,
}
"""Type of a message that is kept → its most bytes. Pictures are kept as well."""


@dataclass(frozen=True, slots=True)
class Message:
    """A complete message."""

    type: int
    stream: int
    timestamp_ms: int
    """Modulo 2³²."""
    data: bytes = field(repr=False)


@dataclass(slots=True)
class _Channel:
    """What is known of a chunk stream: the last header, and the message that is being read."""

    timestamp_ms: int = 0
    delta_ms: int = 0
    is_extended: bool = False
    length: int = 0
    type: int = 0
    stream: int = 0
    missing: int = 0
    """Bytes of the message that have not come yet; 0 between two messages."""
    is_kept: bool = False
    data: bytearray = field(default_factory=bytearray)


class ChunkReader:
    """
    Reads messages from the bytes of one connection.

    Args:
        max_picture_bytes: The most bytes of one message with video.
    """

    def __init__(self, max_picture_bytes: int) -> None:
        self._max_picture_bytes = max_picture_bytes
        self._chunk_bytes = MIN_CHUNK_BYTES
        self._channels: dict[int, _Channel] = {}
        self._buffer = bytearray()
        self._current: _Channel | None = None
        self._left = 0
        """Bytes of the current chunk that have not come yet."""
        self.chunks = 0
        """The chunks that were read since the beginning."""

    def feed(self, data: bytes) -> Iterator[Message]:
        """
        Take the next bytes; yield the messages that they complete.

        An iteration that is left early goes on with the next call.

        Raises:
            ProtocolError: The bytes are no RTMP, or exceed a limit.
        """
        self._buffer += data
        position = 0
        try:
            while True:
                channel = self._current
                if channel is None:
                    length = self._read_header(position)
                    if length == 0:
                        return
                    position += length
                    continue
                taken = min(self._left, len(self._buffer) - position)
                if taken == 0 and self._left > 0:
                    return
                if channel.is_kept:
                    channel.data += self._buffer[position : position + taken]
                position += taken
                self._left -= taken
                channel.missing -= taken
                if self._left > 0:
                    return
                self._current = None
                if channel.missing == 0 and (message := self._complete(channel)) is not None:
                    yield message
        finally:
            del self._buffer[:position]

    def _read_header(self, position: int) -> int:
        """Read the header of a chunk at *position*; return its length, or 0 if it has not come completely."""
        buffer, available = self._buffer, len(self._buffer) - position
        if available < 1:
            return 0
        form, number = buffer[position] >> 6, buffer[position] & 63
        base = 1 + (number < 2) + (number == 1)
        size = (11, 7, 3, 0)[form]
        if available < base + size:
            return 0
        if number < 2:
            number = 64 + int.from_bytes(buffer[position + 1 : position + base], "little")
        channel = self._channel(number, form)
        fields = bytes(buffer[position + base : position + base + size])
        is_extended = int.from_bytes(fields[:3], "big") == _EXTENDED if size else channel.is_extended
        length = base + size + 4 * is_extended
        if available < length:
            return 0
        self._begin_chunk(
            channel, form, fields, int.from_bytes(buffer[position + base + size : position + length], "big")
        )
        return length

    def _channel(self, number: int, form: int) -> _Channel:
        channel = self._channels.get(number)
        if channel is None:
            if form > 1:
                raise ProtocolError("a chunk stream begins with a header that repeats another")
            if len(self._channels) >= MAX_STREAMS:
                raise ProtocolError("the connection has too many chunk streams")
            channel = self._channels[number] = _Channel()
        return channel

    def _begin_chunk(self, channel: _Channel, form: int, fields: bytes, extended_ms: int) -> None:
        self.chunks += 1
        if channel.missing > 0:
            # The next part of a message. Its header may only repeat what is known.
            if form != 3:
                raise ProtocolError("a message begins before the one before it has ended")
        else:
            self._begin_message(channel, form, fields, extended_ms)
        self._current = channel
        self._left = min(self._chunk_bytes, channel.missing)

    def _begin_message(self, channel: _Channel, form: int, fields: bytes, extended_ms: int) -> None:
        if form < 3:
            time_ms = int.from_bytes(fields[:3], "big")
            channel.is_extended = time_ms == _EXTENDED
            channel.delta_ms = extended_ms if channel.is_extended else time_ms
        if form < 2:
            channel.length = int.from_bytes(fields[3:6], "big")
            channel.type = fields[6]
        if form == 0:
            (channel.stream,) = struct.unpack("<I", fields[7:11])
            channel.timestamp_ms = channel.delta_ms
        else:
            channel.timestamp_ms = (channel.timestamp_ms + channel.delta_ms) % 2**32
        limit = self._max_picture_bytes if channel.type == MessageType.VIDEO else _MAX_BYTES.get(channel.type)
        channel.is_kept = limit is not None
        if limit is not None and channel.length > limit:
            raise ProtocolError(f"a message of type {channel.type} has more than {limit} bytes")
        channel.missing = channel.length
        channel.data = bytearray()
        self._check_held(channel)

    def _check_held(self, new: _Channel) -> None:
        """Only one picture is read at a time, so that a connection does not hold the most bytes many times."""
        if new.type == MessageType.VIDEO and any(
            one is not new and one.missing > 0 and one.type == MessageType.VIDEO for one in self._channels.values()
        ):
            raise ProtocolError("two pictures are sent at a time")

    def _complete(self, channel: _Channel) -> Message | None:
        """Return the message of *channel*, unless it is passed over or belongs to this layer."""
        data, channel.data = bytes(channel.data), bytearray()
        if channel.type == MessageType.AGGREGATE:
            raise ProtocolError("aggregate messages are not supported")
        if not channel.is_kept:
            return None
        if channel.type in (MessageType.SET_CHUNK_SIZE, MessageType.ABORT):
            self._control(channel.type, data)
            return None
        return Message(channel.type, channel.stream, channel.timestamp_ms, data)

    def _control(self, kind: int, data: bytes) -> None:
        if len(data) != 4:
            raise ProtocolError("a control message has a wrong length")
        value = int.from_bytes(data, "big")
        if kind == MessageType.SET_CHUNK_SIZE:
            if not MIN_CHUNK_BYTES <= value <= MAX_CHUNK_BYTES:
                raise ProtocolError(f"the size of chunks is not {MIN_CHUNK_BYTES} to {MAX_CHUNK_BYTES} bytes")
            self._chunk_bytes = value
        elif (channel := self._channels.get(value)) is not None:
            channel.missing = 0
            channel.data = bytearray()


def write_message(channel: int, kind: int, stream: int, data: bytes, chunk_bytes: int) -> bytes:
    """Write a message as chunks of at most *chunk_bytes*; *channel* is 2 to 63. Its time stamp is 0."""
    header = bytes([channel]) + b"\0\0\0" + len(data).to_bytes(3, "big") + bytes([kind]) + struct.pack("<I", stream)
    parts = [data[start : start + chunk_bytes] for start in range(0, len(data), chunk_bytes)]
    return header + bytes([0xC0 | channel]).join(parts)
