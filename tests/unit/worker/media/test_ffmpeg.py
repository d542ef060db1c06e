import pytest

from worker.media import ffmpeg
from worker.media.ffmpeg import build_command, find_ffmpeg, is_recent, open_input


def fake(folder, banner):
    path = folder / "ffmpeg"
    path.write_text(f"#!/bin/sh\necho '{banner}'\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("banner", "recent"),
    [
        ("ffmpeg version n9.0.2-17-g2a571b6068-20260930 Copyright (c)", True),
        ("ffmpeg version 7.1.1-1+b1 Copyright (c)", True),
        ("ffmpeg version N-119000-gabcdef Copyright (c)", True),
        ("ffmpeg version 5.1.6-0+deb12u1 Copyright (c)", False),
        ("ffmpeg version 4.4.2 Copyright (c)", False),
        ("something else", False),
    ],
)
def test_the_release_is_read_from_the_banner(tmp_path, banner, recent):
    assert is_recent(fake(tmp_path, banner)) is recent


def test_a_missing_program_is_not_recent(tmp_path):
    assert not is_recent(str(tmp_path / "absent"))


@pytest.mark.parametrize(("version", "taken"), [("8.0", True), ("4.4.2", False)])
def test_ffmpeg_on_the_path_is_used_if_it_is_recent(tmp_path, monkeypatch, version, taken):
    path = fake(tmp_path, f"ffmpeg version {version} Copyright (c)")
    monkeypatch.setattr(ffmpeg.shutil, "which", lambda _: path)
    find_ffmpeg.cache_clear()
    try:
        assert (find_ffmpeg() == path) is taken
    finally:
        find_ffmpeg.cache_clear()


def test_an_input_is_limited_to_files_and_one_demuxer(tmp_path):
    arguments = build_command(open_input(tmp_path / "a.mp4", "mp4").output("pipe:", f="null"))
    joined = " ".join(arguments)
    assert "-protocol_whitelist file" in joined
    assert "-f mov" in joined
    assert f"-i file:{tmp_path}/a.mp4" in joined
    assert "-nostdin" in arguments
