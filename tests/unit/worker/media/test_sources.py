import pytest

from shared.config import StorageSettings
from shared.errors import ForbiddenURLError, SourceRefusedError, SourceUnreachableError, TooLargeError
from shared.storage import open_storage
from tests.receiver import running_receiver
from worker.media.sources import fetch


@pytest.fixture
def server():
    with running_receiver() as receiver:
        receiver.files["/file"] = b"content" * 1000
        yield receiver


@pytest.fixture
def upload(tmp_path):
    upload = open_storage(StorageSettings(url=f"file://{tmp_path}")).create("media/a")
    yield upload
    upload.abort()


def get(url, upload, max_bytes=10_000):
    fetch(url, upload, max_bytes=max_bytes, timeout_s=5, allow_insecure=True)


def test_a_file_is_fetched(server, upload):
    get(f"{server.url}/file", upload)
    assert upload.size_bytes == 7000
    assert server.requests[0].headers["Accept-Encoding"] == "identity"


def test_a_redirect_on_the_same_host_is_followed(server, upload):
    server.answers = [(302, {"Location": "/file"}, b"")]
    get(f"{server.url}/start", upload)
    assert upload.size_bytes == 7000


@pytest.mark.parametrize("location", ["http://169.254.169.254/latest", "https://other.example/", "file:///etc/passwd"])
def test_a_redirect_elsewhere_is_refused(server, upload, location):
    server.answers = [(302, {"Location": location}, b"")]
    with pytest.raises(ForbiddenURLError):
        get(f"{server.url}/start", upload)
    assert len(server.requests) == 1


def test_circular_redirects_are_refused(server, upload):
    server.answers = [(302, {"Location": "/start"}, b"")] * 9
    with pytest.raises(SourceRefusedError, match="more than 3 times"):
        get(f"{server.url}/start", upload)


@pytest.mark.parametrize(
    ("status", "headers"),
    [(302, {"Location": "http://["}), (302, {}), (304, {}), (300, {})],
    ids=["to no address", "to nowhere", "not modified", "several"],
)
def test_an_invalid_redirect_is_refused(server, upload, status, headers):
    server.answers = [(status, headers, b"")]
    with pytest.raises((SourceRefusedError, ForbiddenURLError)):
        get(f"{server.url}/start", upload)


def test_an_error_status_is_refused(server, upload):
    with pytest.raises(SourceRefusedError, match="404"):
        get(f"{server.url}/absent", upload)


def test_a_file_with_too_large_a_content_length_is_refused_unread(server, upload):
    with pytest.raises(TooLargeError, match="max_upload_bytes"):
        get(f"{server.url}/file", upload, max_bytes=100)
    assert upload.size_bytes == 0


def test_a_file_without_content_length_is_limited_while_it_is_read(server, upload):
    server.answers = [(200, {"Content-Length": "", "Connection": "close"}, b"x" * 5000)]
    with pytest.raises((TooLargeError, SourceUnreachableError)):
        get(f"{server.url}/file", upload, max_bytes=100)


@pytest.mark.parametrize("announced", ["²", "1٢", "9" * 5000, "-1", "1e9"])
def test_an_invalid_content_length_is_an_unreadable_response(server, upload, announced):
    server.answers = [(200, {"Content-Length": announced.encode().decode("latin-1")}, b"x")]
    with pytest.raises(SourceUnreachableError):
        get(f"{server.url}/file", upload)
