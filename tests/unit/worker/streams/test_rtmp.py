"""The conversation with publishers without sockets: AMF, chunks, commands, limits, and arbitrary bytes."""

import random
import struct
import tracemalloc

import pytest

from worker.streams.rtmp.amf import MAX_VALUES, read_values, write_values
from worker.streams.rtmp.chunks import MAX_COMMAND_BYTES, MAX_STREAMS, ChunkReader, MessageType, write_message
from worker.streams.rtmp.errors import ProtocolError
from worker.streams.rtmp.feed import HEADER, write_tag
from worker.streams.rtmp.session import (
    HANDSHAKE_BYTES,
    MAX_BYTES_BEFORE_PUBLISH,
    Picture,
    PublishRequest,
    Session,
    Unpublished,
)

MAX_PICTURE = 100_000
HELLO = b"\3" + bytes(2 * HANDSHAKE_BYTES)


def chunk(channel, kind, data, *, time_ms=0, stream=1, size=128):
    """A message whose chunks have *size* bytes."""
    plain = write_message(channel, kind, stream, data, size)
    extended = struct.pack(">I", time_ms) if time_ms >= 0xFFFFFF else b""
    header = plain[:1] + min(time_ms, 0xFFFFFF).to_bytes(3, "big") + plain[4:12] + extended
    return header + plain[12:]


def command(*values, channel=3):
    return chunk(channel, MessageType.COMMAND, write_values(*values))


CONNECT = command("connect", 1.0, {"app": "live", "tcUrl": "rtmp://live.example/live"})
PUBLISH = command("releaseStream", 2.0, None, "key") + command("createStream", 3.0, None)
PUBLISH += command("publish", 4.0, None, "key", "live")


def publishing(max_picture_bytes=MAX_PICTURE):
    """A session whose key was accepted."""
    session = Session(max_picture_bytes)
    assert list(session.receive(HELLO + CONNECT + PUBLISH)) == [PublishRequest("key")]
    session.accept()
    session.take_replies()
    return session


def test_values_are_read_as_they_were_written():
    values = ["connect", 1.5, None, True, {"app": "live", "inner": {"flag": False}}]
    assert read_values(write_values(*values)) == values


def test_all_kinds_of_values_are_read():
    data = b"\x08\0\0\0\x09" + b"\0\1a\0" + struct.pack(">d", 1.0) + b"\0\0\x09"  # a map that says it has nine entries
    data += b"\x0a\0\0\0\2\5\6"  # a list of null and undefined
    data += b"\x0b" + struct.pack(">d", 2.0) + b"\0\0"  # a date
    data += b"\x0c\0\0\0\3abc\1\1"  # a long text, and true
    assert read_values(data) == [{"a": 1.0}, [None, None], 2.0, "abc", True]


@pytest.mark.parametrize(
    "data",
    [
        b"\0\0",
        b"\2\0\5abc",
        b"\3\0\1a",
        b"\x0a\xff\xff\xff\xff",
        b"\x0c\xff\xff\xff\xff",
        b"\x11",
        b"\3\0\1a" * 1000,
        b"\5" * (MAX_VALUES + 1),
        b"\x0a\0\0\1\0" * 3 + b"\5" * 2000,
    ],
    ids=["number", "text", "object", "long list", "long text", "unknown", "deep", "many", "many in lists"],
)
def test_malformed_values_are_refused(data):
    with pytest.raises(ProtocolError):
        read_values(data)


@pytest.mark.parametrize("step", [1, 7, 128, 10_000], ids=["byte by byte", "by 7", "by 128", "at once"])
def test_messages_come_out_whole_however_their_bytes_arrive(step):
    size = struct.pack(">I", 200)
    picture = bytes(range(256)) * 4
    sent = chunk(2, MessageType.SET_CHUNK_SIZE, size) + chunk(6, MessageType.VIDEO, picture, time_ms=40, size=200)
    sent += chunk(4, MessageType.AUDIO, bytes(500), size=200)
    sent += chunk(6, MessageType.VIDEO, b"late", time_ms=0x1234567, size=200)
    reader, found = ChunkReader(MAX_PICTURE), []
    for start in range(0, len(sent), step):
        found += reader.feed(sent[start : start + step])
    assert [(one.timestamp_ms, one.data) for one in found] == [(40, picture), (0x1234567, b"late")]


def test_chunks_of_sound_and_pictures_may_alternate():
    picture, sound = chunk(6, MessageType.VIDEO, bytes(300)), chunk(4, MessageType.AUDIO, bytes(300))
    # Header and first chunk, then the second with its byte, then the third.
    cuts = [(0, 140), (140, 269), (269, None)]
    mixed = b"".join(one[start:end] for start, end in cuts for one in (picture, sound))
    [found] = ChunkReader(MAX_PICTURE).feed(mixed)
    assert (found.type, found.data) == (MessageType.VIDEO, bytes(300))


def test_short_headers_repeat_what_is_known():
    sent = chunk(6, MessageType.VIDEO, b"one", time_ms=1000)
    sent += b"\x46\0\0\x28\0\0\4\x09four"  # another length and type, 40 ms later
    sent += b"\x86\0\0\x14five"[:-1] + b"e"  # the same length, 20 ms later
    sent += b"\xc6last"
    found = list(ChunkReader(MAX_PICTURE).feed(sent))
    assert [(one.timestamp_ms, one.data) for one in found] == [
        (1000, b"one"),
        (1040, b"four"),
        (1060, b"five"),
        (1080, b"last"),
    ]


@pytest.mark.parametrize(
    "sent",
    [
        chunk(6, MessageType.VIDEO, bytes(MAX_PICTURE + 1)),
        chunk(3, MessageType.COMMAND, bytes(MAX_COMMAND_BYTES + 1)),
        chunk(2, MessageType.SET_CHUNK_SIZE, struct.pack(">I", 1)),
        chunk(2, MessageType.SET_CHUNK_SIZE, struct.pack(">I", 2**31)),
        chunk(2, MessageType.SET_CHUNK_SIZE, b"\0"),
        chunk(6, MessageType.AGGREGATE, b"x"),
        chunk(6, MessageType.VIDEO, bytes(300))[:140] * 2,
        chunk(6, MessageType.VIDEO, bytes(300))[:140] + chunk(7, MessageType.VIDEO, bytes(300))[:140],
        b"".join(chunk(0, MessageType.AUDIO, b"")[:1] + bytes([n]) + bytes(11) for n in range(MAX_STREAMS + 1)),
    ],
    ids=[
        *("long picture", "long command", "tiny chunks", "huge chunks", "short size", "aggregate"),
        *("begun twice", "two pictures", "many streams"),
    ],
)
def test_what_exceeds_a_limit_of_chunks_is_refused(sent):
    with pytest.raises(ProtocolError):
        list(ChunkReader(MAX_PICTURE).feed(sent))


def test_an_aborted_message_is_forgotten():
    picture = chunk(6, MessageType.VIDEO, bytes(300))
    sent = picture[:140] + chunk(2, MessageType.ABORT, struct.pack(">I", 6)) + chunk(6, MessageType.VIDEO, b"new")
    assert [one.data for one in ChunkReader(MAX_PICTURE).feed(sent)] == [b"new"]


def test_a_publisher_is_answered_as_it_expects():
    session = Session(MAX_PICTURE)
    assert list(session.receive(HELLO[:-5])) == []
    assert session.take_replies()[:1] == b"\3"
    # In pieces, since a publisher waits for the answers.
    assert list(session.receive(HELLO[-5:] + CONNECT)) == []
    data = session.take_replies()
    [answer] = [read_values(one.data) for one in ChunkReader(100).feed(data) if one.type == MessageType.COMMAND]
    assert (answer[0], answer[1], answer[3]["code"]) == ("_result", 1.0, "NetConnection.Connect.Success")
    assert list(session.receive(PUBLISH)) == [PublishRequest("key")]
    session.accept()
    data = session.take_replies()
    answers = [read_values(one.data) for one in ChunkReader(100).feed(data) if one.type == MessageType.COMMAND]
    assert answers[:2] == [["_result", 2.0, None], ["_result", 3.0, None, 1.0]]
    assert (answers[2][0], answers[2][3]["code"]) == ("onStatus", "NetStream.Publish.Start")


def test_pictures_pass_and_the_end_is_told_from_a_lost_connection():
    session = publishing()
    sent = chunk(6, MessageType.VIDEO, b"picture", time_ms=40) + chunk(4, MessageType.AUDIO, b"sound")
    sent += command("FCUnpublish", 6.0, None, "key") + chunk(6, MessageType.VIDEO, b"more")
    assert list(session.receive(sent)) == [Picture(40, b"picture"), Unpublished()]


def test_commands_in_the_newer_notation_are_understood():
    session = Session(MAX_PICTURE)
    connect = chunk(3, MessageType.COMMAND_AMF3, b"\0" + write_values("connect", 1.0, {"app": "live/"}))
    publish = chunk(3, MessageType.COMMAND_AMF3, b"\0" + write_values("publish", 4.0, None, "key"))
    assert list(session.receive(HELLO + connect + publish)) == [PublishRequest("key")]


def test_what_was_received_is_acknowledged_and_pings_are_answered():
    session = publishing()
    list(session.receive(chunk(2, MessageType.WINDOW_SIZE, struct.pack(">I", 1000))))
    session.take_replies()
    list(session.receive(chunk(6, MessageType.VIDEO, bytes(2000))))
    list(session.receive(chunk(2, MessageType.USER_CONTROL, struct.pack(">HI", 6, 77))))
    sent = session.take_replies()
    assert sent[:12] == b"\2\0\0\0\0\0\4\3\0\0\0\0"
    assert struct.pack(">HI", 7, 77) in sent


def test_the_key_is_not_in_representations():
    assert "key" not in repr(PublishRequest("key")).replace("key=", "")


@pytest.mark.parametrize(
    "sent",
    [
        b"\6" + bytes(5000),
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01",
        HELLO + command("createStream", 1.0, None),
        HELLO + command("connect", 1.0, {"app": "other"}),
        HELLO + command("connect", 1.0),
        HELLO + command("connect", 1.0, None),
        HELLO + CONNECT + command("publish", 1.0, None),
        HELLO + CONNECT + command("publish", 1.0, None, 5.0),
        HELLO + CONNECT + command("publish", 1.0, None, "k" * 513),
        HELLO + CONNECT + command("play", 1.0, None, "key"),
        HELLO + CONNECT + chunk(6, MessageType.VIDEO, b"picture"),
        HELLO + CONNECT + chunk(4, MessageType.AUDIO, bytes(MAX_BYTES_BEFORE_PUBLISH)),
        HELLO + CONNECT + command("createStream", 1.0, None) * 5000,
        HELLO + chunk(3, MessageType.COMMAND, b""),
    ],
    ids=[
        *("RTMPE", "HTTP", "TLS", "other first", "other application", "no object", "null object", "no key"),
        *("number as key", "long key", "play", "picture early", "much before a key", "many questions", "empty"),
    ],
)
def test_a_publisher_that_does_not_keep_to_the_protocol_is_refused(sent):
    session = Session(MAX_PICTURE)
    with pytest.raises(ProtocolError):
        list(session.receive(sent))


@pytest.mark.parametrize("name", ["publish", "play"])
def test_a_publisher_publishes_once(name):
    session = publishing()
    with pytest.raises(ProtocolError):
        list(session.receive(command(name, 5.0, None, "key")))


def test_pings_without_end_are_refused_rather_than_stored():
    session = publishing()
    with pytest.raises(ProtocolError):
        list(session.receive(chunk(2, MessageType.USER_CONTROL, struct.pack(">HI", 6, 0)) * 10_000))


def test_tags_have_the_form_of_the_container():
    tag = write_tag(Picture(0x12345678, b"data"))
    assert tag == b"\x09\0\0\4\x34\x56\x78\x12\0\0\0data" + struct.pack(">I", 15)
    assert HEADER[:5] == b"FLV\1\1"


def mutate(data, chance):
    """Some bytes of *data* changed, left out or repeated."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 12)):
        position = chance.randrange(len(changed))
        action = chance.randrange(4)
        if action == 0:
            changed[position] = chance.randrange(256)
        elif action == 1:
            del changed[position : position + chance.randint(1, 20)]
        elif action == 2:
            changed[position:position] = chance.randbytes(chance.randint(1, 20))
        else:
            changed[position:position] = changed[position : position + chance.randint(1, 200)]
        changed = changed or bytearray(b"\3")
    return bytes(changed)


def test_arbitrary_bytes_end_in_a_refusal_and_hold_little_memory():
    """Whatever comes: events, or ``ProtocolError``; never another error, and no more memory than the limits say."""
    good = CONNECT + PUBLISH
    pictures = b"".join(
        chunk(6, MessageType.VIDEO, bytes(900), time_ms=40 * n)
        + chunk(4, MessageType.AUDIO, bytes(90))
        + chunk(2, MessageType.USER_CONTROL, struct.pack(">HI", 6, n))
        for n in range(4)
    )
    outcomes = {"refused": 0, "published": 0, "pictures": 0}
    tracemalloc.start()
    try:
        for seed in range(1500):
            chance = random.Random(seed)
            session = Session(MAX_PICTURE)
            begin, rest = (good, mutate(pictures, chance)) if seed % 2 else (mutate(good, chance), pictures)
            sent = HELLO + begin + rest if seed % 3 else chance.randbytes(200) + begin + rest
            try:
                for start in range(0, len(sent), 1000):
                    for event in session.receive(sent[start : start + 1000]):
                        if isinstance(event, PublishRequest):
                            outcomes["published"] += 1
                            session.accept()
                        outcomes["pictures"] += isinstance(event, Picture)
                    session.take_replies()
            except ProtocolError:
                outcomes["refused"] += 1
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert min(outcomes.values()) > 100, outcomes
    assert peak < 5 * 2**20
