"""The port of publishers with real sockets: slow, many, wrong and fast ones, and TLS."""

import contextlib
import socket
import ssl
import threading
import time

import pytest

from api.embedded.ports import reports_port_in_use
from shared.commands import CommandError
from shared.config import Streams
from shared.errors import SourceStalledError, SourceUnreachableError, UnsupportedMediaError
from shared.observability import PUSH_CONNECTIONS
from tests.certificates import write_certificate
from tests.clips import run
from tests.live import wait_until
from tests.publishers import Publisher, publishing
from tests.unit.worker.streams.test_cutting import decode, make_stream, own_pictures
from worker.live import process
from worker.streams.intake import StreamLimits, read_pushed
from worker.streams.rtmp import listener as listening
from worker.streams.rtmp.chunks import MessageType, write_message
from worker.streams.rtmp.listener import MAX_OPENING_PER_ADDRESS, Certificate, PushListener


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("push") / "clip.ts"
    path.write_bytes(make_stream(4))
    return path


class Keys:
    """Accepts the key ``good``, and reads what its publisher sends."""

    def __init__(self, limits=None, timeout_s=5.0):
        self.limits, self.timeout_s = limits or StreamLimits(), timeout_s
        self.asked, self.pieces, self.errors, self.threads = [], [], [], []
        self.is_stopping = False

    def publish(self, key, connection):
        self.asked.append(key)
        if key != "good":
            return "no open stream has this key"
        connection.session.accept()
        connection.flush()
        self.threads.append(threading.Thread(target=self._read, args=(connection,)))
        self.threads[-1].start()
        return None

    def _read(self, connection):
        try:
            self.pieces += read_pushed(
                connection,
                segment_s=1.5,
                limits=self.limits,
                timeout_s=self.timeout_s,
                should_stop=lambda: self.is_stopping,
            )
        except Exception as error:  # noqa: BLE001 - the test looks at it
            self.errors.append(error)

    def join(self):
        for thread in self.threads:
            thread.join(20)
            assert not thread.is_alive()


@contextlib.contextmanager
def accepting(keys=None, **options):
    keys = keys or Keys()
    with PushListener("127.0.0.1", 0, keys.publish, limits=keys.limits, **options) as listener:
        listener.keys = keys
        yield listener
        keys.is_stopping = True
        keys.join()


def count(outcome):
    return PUSH_CONNECTIONS.labels(outcome=outcome)._value.get()


def is_closed(peer):
    """Wait until the other side ends the connection."""
    peer.settimeout(10)
    with contextlib.suppress(ConnectionError):
        while peer.recv(4096):
            pass
    return True


def test_what_is_published_arrives_whole(clip):
    with accepting() as listener:
        with publishing(clip, f"rtmp://127.0.0.1:{listener.port}/live/good", is_live=False) as publisher:
            assert publisher.wait(20) == 0
        wait_until(lambda: not listener.keys.threads[0].is_alive())
    expected = [digest for _, digest in decode(clip.read_bytes(), "mpegts")]
    assert [digest for piece in listener.keys.pieces for digest in own_pictures(piece)] == expected
    assert listener.keys.errors == []


@pytest.mark.parametrize(("encoder", "codec"), [("libx265", "hevc"), ("libsvtav1", "av1")], ids=["H.265", "AV1"])
def test_newer_codecs_arrive_as_extended_tags(tmp_path, encoder, codec):
    clip = tmp_path / "clip.mkv"
    picture = ("-f", "lavfi", "-i", "testsrc=size=160x120:rate=10:duration=1", "-pix_fmt", "yuv420p")
    run(*picture, "-c:v", encoder, "-preset", "ultrafast" if codec == "hevc" else "12", "-g", "5", str(clip))
    with accepting() as listener:
        with publishing(clip, f"rtmp://127.0.0.1:{listener.port}/live/good", is_live=False) as publisher:
            assert publisher.wait(20) == 0
        wait_until(lambda: not listener.keys.threads[0].is_alive())
    assert {piece.codec for piece in listener.keys.pieces} == {codec}


def test_a_wrong_key_is_told_so_and_keeps_its_place_for_a_moment(monkeypatch):
    monkeypatch.setattr(listening, "REFUSED_S", 0.4)
    with accepting() as listener, Publisher(listener.port) as publisher:
        assert publisher.publish("wrong") == "NetStream.Publish.BadName"
        assert is_closed(publisher.socket)
        assert listener._opening.total() == 1
        wait_until(lambda: listener._opening.total() == 0)
    assert listener.keys.asked == ["wrong"]


def test_another_path_is_refused():
    with accepting() as listener, Publisher(listener.port, application="other") as publisher:
        assert publisher.publish("good") == "NetConnection.Connect.Rejected"
    assert listener.keys.asked == []


@pytest.mark.parametrize("sent", [b"", b"\3", b"\3" + bytes(3072)], ids=["nothing", "one byte", "a handshake"])
def test_slow_ones_are_sent_away(monkeypatch, sent):
    monkeypatch.setattr(listening, "OPENING_S", 0.4)
    before = count("late")
    with accepting() as listener, socket.create_connection(("127.0.0.1", listener.port)) as peer:
        peer.sendall(sent)
        began = time.monotonic()
        assert is_closed(peer)
        assert time.monotonic() - began < 8
        wait_until(lambda: count("late") == before + 1)


def test_bytes_that_trickle_do_not_extend_the_time(monkeypatch):
    monkeypatch.setattr(listening, "OPENING_S", 0.5)
    with accepting() as listener, socket.create_connection(("127.0.0.1", listener.port)) as peer:
        began = time.monotonic()
        with contextlib.suppress(OSError):
            while time.monotonic() - began < 15:
                peer.sendall(b"\3")
                time.sleep(0.02)
        assert time.monotonic() - began < 10


def test_one_address_opens_only_so_many_connections_at_a_time(monkeypatch):
    monkeypatch.setattr(listening, "OPENING_S", 5.0)
    with accepting() as listener, contextlib.ExitStack() as peers:
        for _ in range(MAX_OPENING_PER_ADDRESS):
            peers.enter_context(socket.create_connection(("127.0.0.1", listener.port)))
        wait_until(lambda: listener._opening.total() == MAX_OPENING_PER_ADDRESS)
        before = count("limited")
        with socket.create_connection(("127.0.0.1", listener.port)) as peer:
            assert is_closed(peer)
        assert count("limited") == before + 1
        # Publishers that were accepted do not count.
        peers.close()
        wait_until(lambda: listener._opening.total() < MAX_OPENING_PER_ADDRESS)
        with Publisher(listener.port) as publisher:
            assert publisher.publish("good") == "NetStream.Publish.Start"
            wait_until(lambda: listener._opening.total() == 0)


@pytest.mark.parametrize(
    ("first", "second", "is_one"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
    ],
)
def test_a_network_of_ipv6_counts_as_one_address(first, second, is_one):
    assert (listening._network(first) == listening._network(second)) is is_one


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this system has no sockets for both families")
def test_one_port_serves_both_families():
    keys = Keys()
    with PushListener("::", 0, keys.publish, limits=keys.limits) as listener, Publisher(listener.port) as publisher:
        assert publisher.publish("wrong") == "NetStream.Publish.BadName"


def test_a_lost_connection_is_not_an_end():
    with accepting() as listener, Publisher(listener.port) as publisher:
        assert publisher.publish("good") == "NetStream.Publish.Start"
        publisher.socket.close()
        wait_until(lambda: listener.keys.errors)
    [error] = listener.keys.errors
    assert isinstance(error, SourceUnreachableError)


def test_a_publisher_without_pictures_is_given_up():
    with accepting(Keys(timeout_s=0.5)) as listener, Publisher(listener.port) as publisher:
        assert publisher.publish("good") == "NetStream.Publish.Start"
        assert is_closed(publisher.socket)
        wait_until(lambda: listener.keys.errors)
    assert isinstance(listener.keys.errors[0], SourceStalledError)


def test_garbage_instead_of_pictures_ends_the_connection_with_a_sentence():
    with accepting() as listener, Publisher(listener.port) as publisher:
        publisher.publish("good")
        publisher.socket.sendall(b"\xff" * 70_000)
        assert is_closed(publisher.socket)
        wait_until(lambda: listener.keys.errors)
    [error] = listener.keys.errors
    assert isinstance(error, UnsupportedMediaError)
    assert "publisher" in str(error)


def test_pictures_that_are_none_end_the_connection_in_the_child():
    with accepting() as listener, Publisher(listener.port) as publisher:
        publisher.publish("good")
        with contextlib.suppress(OSError):
            for number in range(3000):
                data = bytes([0x17, 1, 0, 0, 0]) + number.to_bytes(4, "big") * 200
                publisher.socket.sendall(write_message(6, MessageType.VIDEO, 1, data, 128))
        assert is_closed(publisher.socket)
        wait_until(lambda: listener.keys.errors)
    assert isinstance(listener.keys.errors[0], UnsupportedMediaError | SourceStalledError)


def test_one_that_sends_too_fast_is_slowed_down():
    limits = StreamLimits(max_bytes_per_s=200_000)
    with accepting(Keys(limits)) as listener, Publisher(listener.port) as publisher:
        publisher.publish("good")
        publisher.socket.settimeout(1.5)
        sent = 0
        message = write_message(4, MessageType.AUDIO, 1, bytes(10_000), 128)
        with contextlib.suppress(TimeoutError):
            while sent < 50_000_000:
                sent += publisher.socket.send(message)
        # What the buffers of both sockets hold, and not much more.
        assert sent < 20_000_000


def test_tls_is_spoken_with_a_certificate_that_may_change(clip, tmp_path):
    chain = write_certificate(tmp_path / "tls.pem", "localhost")
    with accepting(certificate=Certificate(chain, None)) as listener:
        with publishing(
            clip, f"rtmps://localhost:{listener.port}/live/good", is_live=False, trusted=chain
        ) as publisher:
            assert publisher.wait(20) == 0
        wait_until(lambda: listener.keys.pieces)
        before = ssl.get_server_certificate(("127.0.0.1", listener.port))
        write_certificate(tmp_path / "tls.pem", "localhost")
        assert ssl.get_server_certificate(("127.0.0.1", listener.port)) != before
        # A file that is half written changes nothing.
        chain.write_text("no certificate")
        assert ssl.get_server_certificate(("127.0.0.1", listener.port))
        with socket.create_connection(("127.0.0.1", listener.port)) as peer:
            peer.sendall(b"\3" + bytes(1536))
            assert is_closed(peer)
    assert listener.keys.asked == ["good"]


def test_a_certificate_that_cannot_be_read_is_an_error_at_the_start(tmp_path):
    (tmp_path / "tls.pem").write_text("no certificate")
    for name in ("tls.pem", "missing.pem"):
        with pytest.raises(OSError, match=r".*"):
            Certificate(tmp_path / name, None)


def test_a_reader_whose_port_is_taken_says_so_as_the_embedded_stack_expects():
    with socket.create_server(("127.0.0.1", 0)) as other:
        settings = Streams(push_listen=f"127.0.0.1:{other.getsockname()[1]}")
        with pytest.raises(CommandError) as raised, process.listening(process.Readers(None), settings):
            pass
    assert reports_port_in_use(raised.value.message)


def test_a_reader_with_a_broken_certificate_does_not_start(tmp_path):
    settings = Streams(push_listen="127.0.0.1:0", push_certificate_file=tmp_path / "missing.pem")
    with pytest.raises(CommandError, match="push_certificate_file"), process.listening(process.Readers(None), settings):
        pass


def test_a_reader_without_a_port_listens_nowhere():
    with process.listening(process.Readers(None), Streams()) as listener:
        assert listener is None
