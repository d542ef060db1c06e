"""What is refused before it is sent is nothing that a service would take."""

import gzip
import io
import os
import tarfile
import zipfile

import pytest
from deepfakestream.errors import EmptyFileError, NotMediaError
from deepfakestream.signatures import check_media, is_media
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shared.containers import inspect_header
from shared.errors import MediaError
from tests.clips import BROADCAST, make_broadcast, make_clip
from tests.pictures import FORMS, make_picture


def archive(kind):
    file = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(file, "w") as opened:
            opened.writestr("a.txt", "x" * 5000)
    else:
        with tarfile.open(fileobj=file, mode="w") as opened:
            opened.addfile(tarfile.TarInfo("a"), io.BytesIO(b""))
    return file.getvalue()


OTHERS = {
    "text": b"Dear all,\r\n\tsee below.\n" * 500,
    "text that is cut within a character": ("a" + "é" * 5000).encode(),
    "text of UTF-16": "Dear all, привет\n".encode("utf-16"),
    "text that begins like a bitmap": b"BMW sells cars. " * 20,
    "markup": b'<?xml version="1.0"?><svg/>',
    "zeros": bytes(10_000),
    "zip": archive("zip"),
    "tar": archive("tar"),
    "gzip": gzip.compress(os.urandom(5000)),
    "pdf": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
    "old office document": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600),
    "program": b"\x7fELF\x02\x01\x01" + bytes(600),
    "Windows program": b"MZ\x90\0" + bytes(600),
    "sound": b"RIFF\x24\0\0\0WAVEfmt ",
    "database": b"SQLite format 3\0" + bytes(600),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_surely_no_medium_is_refused(tmp_path, name):
    (tmp_path / "file").write_bytes(OTHERS[name])
    with pytest.raises(NotMediaError, match="neither an image nor a video") as raised:
        check_media(tmp_path / "file")
    assert raised.value.code == "not_media"
    assert not is_media(tmp_path / "file")
    with pytest.raises(MediaError):
        inspect_header(io.BytesIO(OTHERS[name]), len(OTHERS[name]))


def test_an_empty_file_is_told_from_others(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"")
    with pytest.raises(EmptyFileError) as raised:
        check_media(tmp_path / "a.mp4")
    assert raised.value.code == "empty_file"


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.mp4")
    with pytest.raises(NotMediaError, match="not a regular file"):
        check_media(tmp_path / "a.mp4")


@pytest.mark.parametrize("container", FORMS)
def test_pictures_pass(tmp_path, container):
    path = make_picture(tmp_path / "picture", container)
    check_media(path)
    assert is_media(path)


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv", "a.avi", *BROADCAST])
def test_videos_pass(tmp_path, name):
    made = make_broadcast(tmp_path, name, seconds=0.5) if name in BROADCAST else make_clip(tmp_path / name, frames=3)
    clip = made.rename(tmp_path / "video")
    check_media(clip)
    assert is_media(clip)


def test_what_is_not_known_may_be_a_medium_of_a_newer_service(tmp_path):
    (tmp_path / "file").write_bytes(b"\x93NEW\0\1\2\3" * 100)
    check_media(tmp_path / "file")
    assert not is_media(tmp_path / "file")


def test_a_damaged_file_that_is_named_as_a_medium_is_no_surprise_left_out(tmp_path):
    (tmp_path / "a.MP4").write_bytes(bytes(100))
    assert is_media(tmp_path / "a.MP4")


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("drawn") / "file"


MAGICS = (b"\xff\xd8\xff", b"BM", b"RIFF", b"\0\0\0\x20ftyp", b"\x1a\x45\xdf\xa3", b"II*\0", b"\x89PNG\r\n\x1a\n", b"")


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(MAGICS), st.one_of(st.binary(max_size=64), st.text(max_size=64).map(str.encode)))
@example(b"BM", b"W" * 64)
def test_nothing_is_refused_that_the_service_takes(scratch, magic, rest):
    content = magic + rest
    scratch.write_bytes(content)
    try:
        check_media(scratch)
    except NotMediaError:
        with pytest.raises(MediaError):
            inspect_header(io.BytesIO(content), len(content))
