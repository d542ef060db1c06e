"""The command ``report``: where it writes when no file is named."""

import pytest

HTML = (200, {"Content-Type": "text/html; charset=utf-8"}, b"<html>")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    found = tmp_path / "here"
    found.mkdir()
    monkeypatch.chdir(found)
    return found


def report(server, command, *arguments):
    return command("--url", server.url, "--api-key", "dfs_x", "report", *arguments)


def test_a_report_without_a_file_is_named_by_its_job(server, command, folder):
    server.answers = [HTML]
    done = report(server, command, "job-1")
    assert (done.exit_code, done.stdout) == (0, "report-job-1.html written\n")
    assert (folder / "report-job-1.html").read_bytes() == b"<html>"


@pytest.mark.parametrize(
    ("arguments", "name"),
    [(("job-1",), "report-job-1.html"), (("--local", "../clip.mp4"), "report-clip.mp4.html")],
    ids=["job", "file elsewhere"],
)
def test_a_file_that_nobody_named_is_not_replaced(server, command, folder, arguments, name):
    (folder / name).write_text("notes")
    done = report(server, command, *arguments)
    assert done.exit_code == 1
    assert f"{name} exists" in done.stderr
    assert (folder / name).read_text() == "notes"
    assert server.requests == []


def test_a_file_that_was_named_is_replaced(server, command, folder):
    server.answers = [HTML]
    (folder / "mine.html").write_text("older")
    assert report(server, command, "job-1", "--out", "mine.html").exit_code == 0
    assert (folder / "mine.html").read_bytes() == b"<html>"
