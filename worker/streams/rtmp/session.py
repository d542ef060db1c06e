"""The conversation of one publisher over RTMP, without a socket: bytes go in, pictures and answers come out."""

import math
import secrets
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Final

from shared.streams.keys import PUSH_APPLICATION
from worker.streams.rtmp.amf import read_values, write_values
from worker.streams.rtmp.chunks import ChunkReader, Message, MessageType, write_message
from worker.streams.rtmp.errors import ProtocolError

VERSION: Final = 3
HANDSHAKE_BYTES: Final = 1536
WINDOW_BYTES: Final = 2_500_000
CHUNK_BYTES: Final = 4096
"""Size of the chunks that are sent."""
MAX_BYTES_BEFORE_PUBLISH: Final = 64 * 1024
MAX_REPLY_BYTES: Final = 64 * 1024
MAX_KEY_CHARACTERS: Final = 512
STREAM: Final = 1
"""The only message stream that is given out."""

_CONTROL_CHANNEL, _COMMAND_CHANNEL, _STATUS_CHANNEL = 2, 3, 5
_STREAM_BEGIN, _PING, _PONG = 0, 6, 7


@dataclass(frozen=True, slots=True)
class PublishRequest:
    """The publisher names its key. Nothing else is read before ``Session.accept``."""

    key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Picture:
    """The data of a tag of FLV with video: a picture, or the parameters of the codec."""

    timestamp_ms: int
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Unpublished:
    """The publisher says that it has ended. Nothing follows."""


Event = PublishRequest | Picture | Unpublished


class _State(Enum):
    HELLO = auto()
    ECHO = auto()
    CONNECT = auto()
    CONNECTED = auto()
    ASKING = auto()
    PUBLISHING = auto()
    OVER = auto()


class Session:
    """
    One connection, as the server sees it.

    Args:
        max_picture_bytes: The most bytes of one picture.
    """

    def __init__(self, max_picture_bytes: int) -> None:
        self._reader = ChunkReader(max_picture_bytes)
        self._state = _State.HELLO
        self._hello = bytearray()
        self._replies = bytearray()
        self._received = 0
        self._acknowledged = 0
        self._window_bytes = WINDOW_BYTES

    @property
    def chunks(self) -> int:
        """The chunks that were read since the beginning."""
        return self._reader.chunks

    def receive(self, data: bytes) -> Iterator[Event]:
        """
        Take the next bytes; yield what they mean. After a request to publish, leave the iteration, decide, and go on.

        Raises:
            ProtocolError: The publisher does not keep to RTMP, or exceeds a limit.
        """
        self._received += len(data)
        if self._state not in (_State.PUBLISHING, _State.OVER) and self._received > MAX_BYTES_BEFORE_PUBLISH:
            raise ProtocolError("more than 64 KiB come before a key")
        if self._state in (_State.HELLO, _State.ECHO):
            self._hello += data
            data = self._shake_hands()
        for message in self._reader.feed(data):
            event = self._handle(message)
            if event is not None:
                yield event
            if self._state is _State.OVER:
                return
        if self._received - self._acknowledged >= self._window_bytes:
            self._acknowledged = self._received
            self._control(MessageType.ACKNOWLEDGEMENT, struct.pack(">I", self._received % 2**32))

    def take_replies(self) -> bytes:
        """Return what has to be sent to the publisher, once."""
        replies = bytes(self._replies)
        self._replies.clear()
        return replies

    def accept(self) -> None:
        """Let the publisher begin."""
        self._state = _State.PUBLISHING
        self._control(MessageType.USER_CONTROL, struct.pack(">HI", _STREAM_BEGIN, STREAM))
        self._report("status", "NetStream.Publish.Start", "the stream is watched")

    def refuse(self, description: str) -> None:
        """Answer that the publisher must not begin. The connection has to end after that."""
        self._state = _State.OVER
        self._report("error", "NetStream.Publish.BadName", description)

    def _shake_hands(self) -> bytes:
        """Go on with the handshake; return the bytes that follow it."""
        if self._state is _State.HELLO:
            if self._hello[:1] not in (b"", bytes([VERSION])):
                raise ProtocolError("the connection does not begin with version 3 of RTMP")
            if len(self._hello) < 1 + HANDSHAKE_BYTES:
                return b""
            theirs = bytes(self._hello[1 : 1 + HANDSHAKE_BYTES])
            del self._hello[: 1 + HANDSHAKE_BYTES]
            # Eight zeros: the time, and no version, which stands for the handshake without digests.
            ours = bytes(8) + secrets.token_bytes(HANDSHAKE_BYTES - 8)
            self._reply(bytes([VERSION]) + ours + theirs)
            self._state = _State.ECHO
        if len(self._hello) < HANDSHAKE_BYTES:
            return b""
        rest = bytes(self._hello[HANDSHAKE_BYTES:])
        self._hello.clear()
        self._state = _State.CONNECT
        return rest

    def _handle(self, message: Message) -> Event | None:
        if message.type == MessageType.VIDEO:
            if self._state is not _State.PUBLISHING:
                raise ProtocolError("pictures come before the key was accepted")
            return Picture(message.timestamp_ms, message.data) if message.data else None
        if message.type == MessageType.COMMAND:
            return self._obey(read_values(message.data))
        if message.type == MessageType.COMMAND_AMF3:
            # A byte that says that AMF0 follows, which is what publishers send.
            return self._obey(read_values(message.data[1:]))
        if message.type == MessageType.WINDOW_SIZE and len(message.data) == 4:
            self._window_bytes = max(1, int.from_bytes(message.data, "big"))
        if message.type == MessageType.USER_CONTROL and len(message.data) == 6:
            kind, value = struct.unpack(">HI", message.data)
            if kind == _PING:
                self._control(MessageType.USER_CONTROL, struct.pack(">HI", _PONG, value))
        return None

    def _obey(self, values: list[Any]) -> Event | None:
        name, number, *arguments = [*values, None, None][: max(2, len(values))]
        number = number if isinstance(number, float) and math.isfinite(number) else 0.0
        if self._state is _State.CONNECT:
            if name != "connect":
                raise ProtocolError("the first command is not connect")
            self._connect(number, arguments)
        elif name in ("FCUnpublish", "deleteStream", "closeStream") and self._state is _State.PUBLISHING:
            self._state = _State.OVER
            return Unpublished()
        elif name == "publish" and self._state is _State.CONNECTED:
            key = arguments[1] if len(arguments) > 1 else None
            if not isinstance(key, str) or not 0 < len(key) <= MAX_KEY_CHARACTERS:
                raise ProtocolError("the request to publish has no key")
            self._state = _State.ASKING
            return PublishRequest(key)
        elif name == "createStream":
            self._command("_result", number, None, float(STREAM))
        elif name in ("publish", "play"):
            raise ProtocolError(f"the command {name} has no place here")
        elif name in ("releaseStream", "FCPublish"):
            self._command("_result", number, None)
        # Everything else wants no answer.
        return None

    def _connect(self, number: float, arguments: list[Any]) -> None:
        self._control(MessageType.WINDOW_SIZE, struct.pack(">I", WINDOW_BYTES))
        self._control(MessageType.BANDWIDTH, struct.pack(">IB", WINDOW_BYTES, 2))
        self._control(MessageType.SET_CHUNK_SIZE, struct.pack(">I", CHUNK_BYTES))
        wanted = arguments[0].get("app") if arguments and isinstance(arguments[0], dict) else None
        if not isinstance(wanted, str) or wanted.strip("/") != PUSH_APPLICATION:
            self._state = _State.OVER
            information = _information(
                "error", "NetConnection.Connect.Rejected", f"the path of the address must be /{PUSH_APPLICATION}"
            )
            self._command("_error", number, None, information)
            raise ProtocolError("the path of the address is wrong")
        self._state = _State.CONNECTED
        properties = {"fmsVer": "FMS/3,0,1,123", "capabilities": 31.0}
        information = _information("status", "NetConnection.Connect.Success", "connected")
        self._command("_result", number, properties, {**information, "objectEncoding": 0.0})

    def _report(self, level: str, code: str, description: str) -> None:
        data = write_values("onStatus", 0.0, None, _information(level, code, description))
        self._reply(write_message(_STATUS_CHANNEL, MessageType.COMMAND, STREAM, data, CHUNK_BYTES))

    def _command(self, *values: Any) -> None:
        self._reply(write_message(_COMMAND_CHANNEL, MessageType.COMMAND, 0, write_values(*values), CHUNK_BYTES))

    def _control(self, kind: int, data: bytes) -> None:
        self._reply(write_message(_CONTROL_CHANNEL, kind, 0, data, CHUNK_BYTES))

    def _reply(self, data: bytes) -> None:
        if len(self._replies) + len(data) > MAX_REPLY_BYTES:
            raise ProtocolError("the publisher asks faster than it can be answered")
        self._replies += data


def _information(level: str, code: str, description: str) -> dict[str, Any]:
    return {"level": level, "code": code, "description": description}
