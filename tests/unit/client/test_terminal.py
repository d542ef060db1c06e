"""Names and answers are shown in every encoding, without escape sequences that the terminal would execute."""

import ast
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import deepfakestream
import pytest
from deepfakestream.terminal import printable, say

import api.embedded
from tests.unit.client.services import answer, job, running_state

HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\r\b[bold red]\u202e\u2066:warning:\udcff"
PROGRAM = [
    sys.executable,
    "-c",
    "import sys; sys.argv[0] = 'deepfakestream'; from deepfakestream.cli import main; main()",
]
SCORED = {
    "name": HOSTILE,
    "version": HOSTILE,
    "trained": True,
    "weights_sha256": HOSTILE,
    "threshold": 0.5,
    "uncertainty_band": [0.4, 0.6],
}
SEGMENT = {
    "index": 0,
    "start_s": 0.0,
    "end_s": 5.0,
    "status": HOSTILE,
    "fake_score": 0.25,
    "people": 1,
    "reasons": [HOSTILE],
}


def hostile_job(**changes):
    """Return a job in which every text is hostile."""
    result = {"id": HOSTILE, "verdict": HOSTILE, "reasons": [HOSTILE], "model": SCORED, "segments": [SEGMENT]}
    return job(**result | changes)


FAILED_JOB = hostile_job(
    status="failed",
    error={"code": HOSTILE, "detail": HOSTILE},
    segments=[SEGMENT | {"error": {"code": HOSTILE, "detail": HOSTILE}}],
)
PROBLEM = {"code": HOSTILE, "detail": HOSTILE, "request_id": HOSTILE}
HOSTILE_BATCH = {
    "id": HOSTILE,
    "created_at": "2026-01-02T03:04:05Z",
    "ended_at": None,
    "counts": {"total": 1},
    "verdicts": {HOSTILE: 1},
}
MODEL = {"name": HOSTILE, "version": HOSTILE, "trained": True, "is_default": True, "model_card": f"# a\n\n{HOSTILE}"}


@pytest.mark.parametrize(
    ("arguments", "answers"),
    [
        pytest.param(["scan", "FILE"], [answer(hostile_job(), 202), answer(hostile_job())], id="scan"),
        pytest.param(["scan", "FILE"], [answer(FAILED_JOB, 202), answer(FAILED_JOB)], id="scan that failed"),
        pytest.param(["scan", "FILE"], [answer(PROBLEM, 422)], id="scan that is refused"),
        pytest.param(["scan", "--no-wait", "FILE"], [answer(hostile_job(status=HOSTILE), 202)], id="scan without wait"),
        pytest.param(["scan", HOSTILE], [], id="scan of a file that is not there"),
        pytest.param(["scan", "--json", "FILE"], [answer(FAILED_JOB, 202), answer(FAILED_JOB)], id="scan as JSON"),
        pytest.param(["jobs"], [answer({"items": [hostile_job(status=HOSTILE)], "next_cursor": None})], id="jobs"),
        pytest.param(["jobs"], [answer(PROBLEM, 403)], id="jobs refused"),
        pytest.param(["batches"], [answer({"items": [HOSTILE_BATCH], "next_cursor": None})], id="batches"),
        pytest.param(["jobs"], [(302, {"Location": "/\x9b31m\x1b]0;owned\x07"}, b"")], id="redirection"),
        pytest.param(["jobs"], [(200, {"Content-Type": "text/html\x1b[2J"}, b"<html>")], id="type of content"),
        pytest.param(["cancel", "x"], [answer(hostile_job(status=HOSTILE))], id="cancel"),
        pytest.param(["cancel", "x"], [answer(PROBLEM, 409)], id="cancel refused"),
        pytest.param(["cancel", HOSTILE], [answer(PROBLEM, 404)], id="cancel of what is no job"),
        pytest.param(["delete", "--yes", HOSTILE], [(204, {}, b"")], id="delete"),
        pytest.param(["models"], [answer({"items": [MODEL]})], id="models"),
        pytest.param(["models", "--card"], [answer({"items": [MODEL]})], id="model cards"),
        pytest.param(["models", "--model", HOSTILE + "x"], [answer({"items": [MODEL]})], id="unknown model"),
        pytest.param([HOSTILE], [], id="unknown command"),
        pytest.param(["scan", f"--{HOSTILE}"], [], id="unknown option"),
        pytest.param(["scan", "--timeout", HOSTILE, "a"], [], id="value of an option"),
    ],
)
def test_nothing_that_a_terminal_would_obey_is_printed(command, server, tmp_path, arguments, answers):
    name = tmp_path / os.fsdecode(HOSTILE.replace("/", "").encode("utf-8", "surrogateescape"))
    name.write_bytes(b"\xff\xd8\xff a picture")
    server.answers = list(answers)
    given = [str(name) if argument == "FILE" else argument for argument in arguments]
    with running_state(tmp_path / "state", server.url) as state:
        done = command("--state", state, *given)
    assert not isinstance(done.exception, Exception) or isinstance(done.exception, SystemExit), done.exc_info
    said = done.output_bytes.decode("utf-8")
    assert said.strip()
    assert [character for character in said if not (character.isprintable() or character == "\n")] == []
    assert not server.answers


def test_text_is_not_taken_for_markup(command, server, tmp_path):
    (tmp_path / "[red]a[link=https:b].jpg").write_bytes(b"\xff\xd8\xff")
    server.answers = [answer({"code": "x", "detail": "[bold]:smile:[/]\\"}, 422)]
    with running_state(tmp_path / "state", server.url) as state:
        done = command("--state", state, "scan", tmp_path / "[red]a[link=https:b].jpg")
    said = done.output.replace("\n", "")
    assert "[red]a[link=https:b].jpg" in said
    assert "[bold]:smile:[/]\\" in said


def test_on_a_terminal_with_colours_nothing_but_colours_is_sent(server, tmp_path):
    path = tmp_path / "a\x1b]0;owned\x07.jpg"
    path.write_bytes(b"\xff\xd8\xff")
    waiting = hostile_job(status=HOSTILE)
    server.answers = [answer(waiting, 202), answer(waiting), answer(hostile_job())]
    done = run_program(server, tmp_path, "scan", path, FORCE_COLOR="1", TERM="xterm-256color")
    assert b"\x1b[1m" in done.stdout
    for sequence in (b"\x1b]", b"\x07", b"\x1b[2J", b"\xc2\x9b", "\u202e".encode()):
        assert sequence not in done.stdout + done.stderr


def run_program(server, folder, *arguments, **environment):
    with running_state(folder / "state", server.url) as state:
        return subprocess.run(
            [*PROGRAM, "--state", state, *arguments],
            env={**os.environ, **environment},
            capture_output=True,
            check=False,
            timeout=60,
        )


@pytest.mark.parametrize(
    "locale",
    [
        pytest.param({"PYTHONIOENCODING": "ascii"}, id="ascii"),
        pytest.param({"PYTHONIOENCODING": "ascii:strict"}, id="ascii, strict"),
        pytest.param({"PYTHONIOENCODING": "cp1252"}, id="cp1252"),
        pytest.param({"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, id="C"),
        pytest.param({"LC_ALL": "C.UTF-8"}, id="UTF-8"),
    ],
)
def test_every_encoding_of_the_output_will_do(server, tmp_path, locale):
    name = os.path.join(os.fsencode(tmp_path), b"\xff\xfe-\xd1\x88\xc3\xa9.jpg")  # noqa: PTH118 - bytes
    Path(os.fsdecode(name)).write_bytes(b"\xff\xd8\xff")
    (tmp_path / "b.jpg").write_bytes(b"\xff\xd8\xff")
    refused = answer({"code": "too_many_pixels", "detail": "10 × 10 – too many… “ш”"}, 422)
    done_job = hostile_job(fake_score=None)
    server.answers = [refused, answer(done_job, 202), answer(done_job)]
    # One at a time, so that the answers meet the right files.
    refusal = run_program(server, tmp_path, "scan", name, **locale)
    result = run_program(server, tmp_path / "second", "scan", tmp_path / "b.jpg", **locale)
    encoding = locale.get("PYTHONIOENCODING", "utf-8" if "UTF-8" in str(locale) else "ascii").partition(":")[0]
    for done in (refusal, result):
        assert b"Traceback" not in done.stderr
        done.stdout.decode(encoding)
        done.stderr.decode(encoding)
    assert (refusal.returncode, result.returncode) == (1, 0)
    assert b"too many" in refusal.stderr
    assert b"\\xff\\xfe-" in refusal.stderr
    assert b"average" in result.stdout


def test_help_is_ascii(command):
    for arguments in ([], ["scan"], ["jobs"], ["cancel"], ["delete"], ["models"], ["up"], ["demo"], ["keys", "create"]):
        assert command(*arguments, "--help").output.isascii(), arguments


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "cp1252"])
def test_json_reaches_its_file_while_progress_is_on_a_terminal(server, tmp_path, encoding):
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff")
    server.answers = [answer(job(), 202), answer(job())]
    terminal, end = pty.openpty()
    try:
        with running_state(tmp_path / "state", server.url) as state:
            done = subprocess.run(
                [*PROGRAM, "--state", state, "scan", "--json", tmp_path / "a.jpg"],
                env={**os.environ, "TERM": "xterm", "PYTHONIOENCODING": encoding},
                stdout=subprocess.PIPE,
                stderr=end,
                check=False,
                timeout=60,
            )
    finally:
        os.close(end)
        os.close(terminal)
    assert done.returncode == 0
    assert json.loads(done.stdout)["job"]["status"] == "succeeded"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ш é 漢", "plain ш é 漢"),
        ("\x1b[2J", "\\x1b[2J"),
        ("\x9b\x7f", "\\x9b\\x7f"),
        ("a\nb\tc\r", "a\\nb\\tc\\r"),
        ("\u202egnp", "\\u202egnp"),
        ("\udcff\ud800", "\\xff\\ud800"),
        ("\u2028", "\\u2028"),
    ],
)
def test_invisible_characters_are_written_out(text, shown):
    assert printable(text) == shown


def test_text_of_several_lines_keeps_them(capsys):
    say("a\n\tb\r\x1b")
    assert capsys.readouterr().out == "a\n\tb\\r\\x1b\n"


def test_nothing_else_of_the_package_prints():
    """Other ways of printing could print texts of a service without escaping them."""
    folders = [Path(package.__file__).parent for package in (deepfakestream, api.embedded)]
    for path in (path for folder in folders for path in folder.rglob("*.py")):
        if path.name == "terminal.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            name = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            assert name not in {"print", "click.echo", "click.secho", "Console"}, f"{path.name}:{node.lineno}"
            assert name not in {"sys.stdout.write", "sys.stderr.write"}, f"{path.name}:{node.lineno}"
