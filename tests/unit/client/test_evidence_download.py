"""Downloading an evidence bundle from services that do not send one."""

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from deepfakestream.errors import ConflictError, ConnectionFailedError, UnexpectedAnswerError


@contextmanager
def service(connect, status, headers, body):
    """A real HTTP server with one answer, after which it closes the connection."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)
            self.close_connection = True

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with connect(f"http://127.0.0.1:{server.server_port}", "dfs_x", retries=0) as client:
                yield client
        finally:
            server.shutdown()
            thread.join()


CHUNKED = {"Content-Type": "application/zip", "Transfer-Encoding": "chunked"}
PROBLEM = b'{"code": "job_not_final", "detail": "job 1 is running; ask again when it has ended"}'


@pytest.mark.parametrize(
    ("status", "headers", "body", "error"),
    [
        pytest.param(200, CHUNKED, b"4\r\nPK\x03\x04\r\n", ConnectionFailedError, id="broken off"),
        pytest.param(
            200, {"Content-Type": "text/html", "Content-Length": "2"}, b"hi", UnexpectedAnswerError, id="a page"
        ),
        pytest.param(
            409,
            {"Content-Type": "application/problem+json", "Content-Length": str(len(PROBLEM))},
            PROBLEM,
            ConflictError,
            id="refused",
        ),
    ],
)
def test_a_bundle_that_did_not_arrive_whole_leaves_no_file(connect, tmp_path, status, headers, body, error):
    with service(connect, status, headers, body) as client, pytest.raises(error):
        client.evidence("1", tmp_path / "bundle.zip")
    assert not list(tmp_path.iterdir())


def test_a_bundle_that_arrived_whole_is_kept(connect, tmp_path):
    with service(connect, 200, CHUNKED, b"4\r\nPK\x03\x04\r\n0\r\n\r\n") as client:
        client.evidence("1", tmp_path / "bundle.zip")
    assert (tmp_path / "bundle.zip").read_bytes() == b"PK\x03\x04"


@pytest.mark.parametrize("place", ["missing/b.zip", "file/b.zip", "folder"])
def test_an_error_names_the_path_that_was_given(connect, tmp_path, place):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    path = tmp_path / place
    headers = {"Content-Type": "application/zip", "Content-Length": "2"}
    with service(connect, 200, headers, b"PK") as client, pytest.raises(OSError, match=r"b\.zip|folder") as raised:
        client.evidence("x", path)
    assert raised.value.filename == str(path)
    assert ".part" not in str(raised.value)
