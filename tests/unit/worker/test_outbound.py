import socket
import threading
import time

import pytest

from shared.errors import ForbiddenURLError, SourceUnreachableError
from tests.certificates import listening_without_trust
from tests.receiver import running_receiver
from tests.servers import free_port
from worker import outbound
from worker.outbound import request, resolve


def answer_with(monkeypatch, *addresses):
    def getaddrinfo(_host, port, **_):
        return [
            (socket.AF_INET6 if ":" in a else socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in addresses
        ]

    monkeypatch.setattr(outbound.socket, "getaddrinfo", getaddrinfo)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",  # noqa: S104 - an address to refuse
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "fe80::1",
        "fc00::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "2002:7f00:1::",
        "64:ff9b:1::1",
        "64:ff9b::169.254.169.254",
        "::127.0.0.1",
        "ff02::1",
    ],
)
def test_addresses_that_are_not_public_are_refused(monkeypatch, address):
    answer_with(monkeypatch, address)
    with pytest.raises(ForbiddenURLError, match="not publicly reachable"):
        resolve("https://a.example/", allow_insecure=False)


def test_one_bad_address_among_good_ones_is_enough(monkeypatch):
    answer_with(monkeypatch, "93.184.215.14", "127.0.0.1")
    with pytest.raises(ForbiddenURLError):
        resolve("https://a.example/", allow_insecure=False)


@pytest.mark.parametrize(
    "host", ["2130706433", "0177.0.0.1", "0x7f.1", "127.1", "localhost", "[::1]", "[::ffff:7f00:1]"]
)
def test_unusual_spellings_of_loopback_are_refused(host):
    with pytest.raises((ForbiddenURLError, SourceUnreachableError)):
        resolve(f"https://{host}/", allow_insecure=False)


def test_a_public_address_is_pinned_and_the_name_kept_for_the_certificate(monkeypatch):
    answer_with(monkeypatch, "93.184.215.14")
    target = resolve("https://a.example:8443/path?x=1#part", allow_insecure=False)
    assert (target.url, target.host, target.hostname) == (
        "https://93.184.215.14:8443/path?x=1",
        "a.example:8443",
        "a.example",
    )


@pytest.mark.parametrize(
    ("error", "can_be_retried"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), False),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"), True),
        (UnicodeError("label too long"), False),
        (OSError("out of file descriptors"), True),
    ],
    ids=["no such name", "no answer", "no name", "local failure"],
)
def test_a_name_that_does_not_resolve_is_unreachable(monkeypatch, error, can_be_retried):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(outbound.socket, "getaddrinfo", fail)
    with pytest.raises(SourceUnreachableError, match="does not resolve") as raised:
        resolve("https://a.example/", allow_insecure=False)
    assert (raised.value.retryable, raised.value.code) == (can_be_retried, "source_unreachable")


def test_a_request_goes_to_the_pinned_address_under_its_own_name():
    with running_receiver() as server:
        url = server.url.replace("127.0.0.1", "localhost") + "/x"
        with request("POST", url, allow_insecure=True, timeout_s=5, total_s=5, content=b"body") as response:
            assert response.status_code == 204
        (received,) = server.requests
        assert received.headers["Host"].startswith("localhost:")
        assert received.body == b"body"


def fail_to_get(url):
    """Return the error of a request to *url*."""
    with (
        pytest.raises(SourceUnreachableError) as raised,
        request("GET", url, allow_insecure=True, timeout_s=5, total_s=5),
    ):
        pass
    return raised.value


def test_a_port_that_refuses_connections_is_tried_again():
    """Its server may be starting."""
    error = fail_to_get(f"http://127.0.0.1:{free_port()}/")
    assert (str(error), error.retryable) == ("the URL's server could not be reached (it refuses connections)", True)


def test_a_server_without_a_valid_certificate_is_not_asked_again(tmp_path):
    with listening_without_trust(tmp_path) as port:
        error = fail_to_get(f"https://127.0.0.1:{port}/")
    assert not error.retryable
    assert "no valid certificate for its name" in str(error)


def test_a_connection_that_breaks_off_is_tried_again():
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def break_off():
            listener.accept()[0].close()

        thread = threading.Thread(target=break_off)
        thread.start()
        error = fail_to_get(f"http://127.0.0.1:{listener.getsockname()[1]}/")
        thread.join()
    assert (str(error), error.retryable) == ("the URL's server could not be reached (the exchange broke off)", True)


def test_a_name_that_changes_its_answer_is_asked_once(monkeypatch):
    """DNS rebinding: the name resolves to a public address when it is checked, and to an internal one afterwards."""
    asked, called = [], []

    def getaddrinfo(_host, port, **_):
        asked.append(port)
        address = "93.184.215.14" if len(asked) == 1 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    def create_connection(address, *_, **__):
        called.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(outbound.socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(outbound.socket, "create_connection", create_connection)
    with (
        pytest.raises(SourceUnreachableError),
        request("GET", "https://a.example/", allow_insecure=False, timeout_s=2, total_s=2),
    ):
        pass
    assert called == [("93.184.215.14", 443)]
    assert len(asked) == 1


@pytest.fixture
def dripping_server():
    """Run a server that sends a byte of an endless header every 0.05 s and records the last byte's number."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        over = threading.Event()

        def serve():
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\nX-Endless: ")
                while not over.wait(0.05):
                    try:
                        connection.sendall(b"x")
                    except OSError:
                        return

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        over.set()
        thread.join()


def test_a_server_that_drips_its_answer_is_cut_off(dripping_server):
    began = time.monotonic()
    with (
        pytest.raises(SourceUnreachableError, match="it took too long"),
        request("GET", dripping_server, allow_insecure=True, timeout_s=30, total_s=0.5),
    ):
        pass
    assert time.monotonic() - began < 15
