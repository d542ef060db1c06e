"""Which files the server for assistants may read."""

import os

import pytest
from deepfakestream.errors import NotMediaError
from deepfakestream.folders import open_permitted

PICTURE = b"\xff\xd8\xff the picture"


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "media"
    (folder / "below").mkdir(parents=True)
    for path in (folder / "a.jpg", folder / "below" / "b.jpg", tmp_path / "outside.jpg"):
        path.write_bytes(PICTURE)
    return folder


@pytest.mark.parametrize("form", ["{}/a.jpg", "a.jpg", "below/b.jpg", "{}/below/../a.jpg", "~/a.jpg"])
def test_a_file_in_a_folder_is_opened(folder, monkeypatch, form):
    monkeypatch.setenv("HOME", str(folder))
    with open_permitted(form.format(folder), [folder.parent / "other", folder]) as file:
        assert file.read() == PICTURE


@pytest.mark.parametrize("form", ["{}/../outside.jpg", "../outside.jpg", "{}-other/a.jpg", "{}/../missing.jpg", "/"])
def test_any_other_is_refused_by_the_same_sentence(folder, form):
    with pytest.raises(PermissionError, match="in none of the folders whose files may be read: "):
        open_permitted(form.format(folder), [folder])


def test_no_link_leads_out(folder):
    (folder / "link.jpg").symlink_to(folder.parent / "outside.jpg")
    (folder / "up").symlink_to(folder.parent)
    for source in ("link.jpg", "up/outside.jpg"):
        with pytest.raises(PermissionError):
            open_permitted(source, [folder])


def test_a_folder_may_itself_be_a_link(folder, tmp_path):
    (tmp_path / "named").symlink_to(folder)
    with open_permitted(str(tmp_path / "named" / "a.jpg"), [tmp_path / "named"]) as file:
        assert file.read() == PICTURE


def test_only_media_is_opened(folder):
    (folder / "key.pem").write_text("-----BEGIN PRIVATE KEY-----")
    os.mkfifo(folder / "pipe")
    for name in ("key.pem", "pipe"):
        with pytest.raises(NotMediaError):
            open_permitted(name, [folder])
    with pytest.raises(FileNotFoundError):
        open_permitted("missing.jpg", [folder])
