"""What ``submit`` accepts, told apart by type, and how it refuses the rest."""

import io
import json
import os
import tempfile
from pathlib import Path

import pytest
from deepfakestream.errors import AddressError, NotMediaError

from tests.unit.client.services import answer, job


@pytest.fixture
def client(server, connect):
    server.answers = [answer(job("queued"), 202)]
    with connect(server.url, "dfs_key") as connected:
        yield connected


class OwnFile:
    """A file of another package: it reads and seeks, and is no ``io.IOBase``."""

    def __init__(self, content):
        inner = io.BytesIO(content)
        self.read, self.seek, self.tell = inner.read, inner.seek, inner.tell


def standing_at(position, content):
    file = io.BytesIO(content)
    file.seek(position)
    return file


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(str, id="text"),
        pytest.param(Path, id="path"),
        pytest.param(lambda path: path.read_bytes(), id="bytes"),
        pytest.param(lambda path: bytearray(path.read_bytes()), id="bytearray"),
        pytest.param(lambda path: memoryview(path.read_bytes()), id="memoryview"),
        pytest.param(lambda path: io.BytesIO(path.read_bytes()), id="BytesIO"),
        pytest.param(lambda path: OwnFile(path.read_bytes()), id="file of another package"),
        pytest.param(lambda path: standing_at(3, b"abc" + path.read_bytes()), id="file that stands elsewhere"),
    ],
)
def test_a_file_comes_as_a_path_bytes_or_a_file(server, client, tmp_path, make):
    (tmp_path / "a.mp4").write_bytes(b"the file")
    sent = []
    assert client.submit(make(tmp_path / "a.mp4"), on_upload=lambda *each: sent.append(each)).status == "queued"
    assert server.requests[0].body == b"the file"
    assert sent == [(8, 8)]


def test_a_file_that_is_given_stays_open(client):
    with tempfile.TemporaryFile() as file:
        file.write(b"x")
        file.seek(0)
        client.submit(file)
        assert not file.closed


@pytest.mark.parametrize("url", ["https://a.example/x.mp4", "http://a.example/x.mp4"])
def test_text_that_is_an_address_is_submitted_as_one(server, client, url):
    client.submit(url, sample_fps=1.0)
    assert json.loads(server.requests[0].body) == {"url": url, "sample_fps": 1.0}


@pytest.mark.parametrize(
    "given", [7, ["a.mp4"], {"file": "a.mp4"}, object(), True], ids=lambda each: type(each).__name__
)
def test_anything_else_is_refused_by_the_name_of_its_type(server, client, given):
    with pytest.raises(TypeError, match=f"give a path, bytes, a file .* the type {type(given).__name__}$"):
        client.submit(given)
    assert server.requests == []


class Coroutines:
    async def read(self):
        return b""


class Stream(io.RawIOBase):
    def readable(self):
        return True


@pytest.mark.parametrize(
    ("make", "kind", "why"),
    [
        pytest.param(lambda: io.StringIO("x"), TypeError, "opened as text: open it with mode 'rb'", id="text"),
        pytest.param(Coroutines, TypeError, "read by coroutines", id="coroutines"),
        pytest.param(Stream, ValueError, "cannot be read a second time", id="stream"),
        pytest.param(lambda: "rtsp://a.example/x", AddressError, "http:// or https://", id="address of a camera"),
    ],
)
def test_a_file_that_cannot_be_sent_is_refused_with_a_sentence(server, client, make, kind, why):
    with pytest.raises(kind, match=why):
        client.submit(make())
    assert server.requests == []


def test_a_pipe_is_refused_and_not_waited_for(server, client, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(NotMediaError, match="not a regular file"):
        client.submit(tmp_path / "pipe")
    assert server.requests == []


@pytest.mark.parametrize(("name", "kind"), [("missing.mp4", FileNotFoundError), (".", IsADirectoryError)])
def test_a_path_that_cannot_be_opened_is_named(client, tmp_path, name, kind):
    with pytest.raises(kind) as raised:
        client.submit(tmp_path / name)
    assert raised.value.filename == str(tmp_path / name)


def test_an_address_has_no_direct_upload(client):
    with pytest.raises(ValueError, match="direct needs a file"):
        client.submit("https://a.example/x", direct=True)


def test_progress_is_an_iterator_over_what_changes(server, client):
    def at(done, status="running"):
        progress = {"segments_total": 3, "segments_done": done, "fraction": done / 3}
        return answer(job(status, progress=progress))

    server.answers = [at(0, "queued"), at(0), at(0), at(1), at(1), at(3), at(3, "succeeded")]
    seen = [(found.status, found.segments_done) for found in client.progress("x", poll_s=0.0)]
    assert seen == [("queued", 0), ("running", 0), ("running", 1), ("running", 3), ("succeeded", 3)]
    assert server.requests[0].headers["Prefer"] == "wait=1"


def test_no_page_is_requested_beyond_the_limit_of_a_list(server, client):
    server.answers = [answer({"items": [job(), job()], "next_cursor": "abc"})]
    assert len(list(client.list(limit=2))) == 2
    assert list(client.list(limit=0)) == []
    assert len(server.requests) == 1
