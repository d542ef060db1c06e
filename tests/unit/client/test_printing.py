"""What scans and lists of jobs print: for people on both streams, and for programs and pipes."""

import contextlib
import csv
import io
import json
import os
import pty
import re
import subprocess
import sys
import threading

import pytest
from deepfakestream.outcomes import ScanResult, describe_outcomes
from deepfakestream.printing import CSV_COLUMNS, TablePrinter, csv_values, format_csv_row
from deepfakestream.results import Job
from rich.console import Console

from tests.unit.client.services import answer, job, running_state

PICTURE = b"\xff\xd8\xff a picture"
MODEL = {
    "name": "m",
    "version": "1",
    "trained": True,
    "weights_sha256": "0" * 64,
    "threshold": 0.6,
    "uncertainty_band": [0.1, 0.6],
}
SEGMENT = {"index": 0, "start_s": 0.0, "end_s": 0.0, "status": "scored", "fake_score": 0.25, "people": 1}
STRETCH = {"start_s": 0.0, "end_s": 0.0, "person": 0, "fake_score": 0.9, "faces": 1, "verdict": "fake"}
PROGRAM = [
    sys.executable,
    "-c",
    "import sys; sys.argv[0] = 'deepfakestream'; from deepfakestream.cli import main; main()",
]


def judged(verdict="real", **changes):
    times = {"finished_at": "2026-01-02T03:04:08.178Z"}
    return job("succeeded", verdict=verdict, fake_score=0.25, model=MODEL, **times | changes)


@pytest.fixture
def scan(command, server, tmp_path):
    """Return a function that scans with the given *answers* of the service."""

    def run(*arguments, answers, **environment):
        server.answers = list(answers)
        with running_state(tmp_path / "state", server.url) as state:
            return command("--state", state, "scan", *arguments, **environment)

    return run


@pytest.fixture
def pictures(tmp_path):
    """Make two pictures."""
    files = [tmp_path / "a.jpg", tmp_path / "b.jpg"]
    for file in files:
        file.write_bytes(PICTURE)
    return files


def test_results_are_on_standard_output_and_errors_on_standard_error(scan, tmp_path, pictures):
    done = scan(pictures[0], tmp_path / "none.jpg", answers=[answer(judged(), 202), answer(judged())])
    assert done.exit_code == 1
    assert done.stderr == f"{tmp_path / 'none.jpg'}: no such file\n"
    assert "none.jpg" not in done.stdout
    assert re.search(r"2 files in \d+\.\d s: 1 real, 0 fake, 0 inconclusive, 1 failed\n", done.stdout)


def test_the_model_and_its_hint_are_printed_once(scan, pictures):
    done = scan(*pictures, answers=[answer(judged(), 202), answer(judged(), 202), answer(judged()), answer(judged())])
    assert done.exit_code == 0, done.output
    assert done.stdout.count("verdict real\n") == 2
    assert done.stdout.count("model   m 1, weights sha256 000000000000…") == 1
    assert done.stdout.count("deepfakestream models --card") == 1


def test_a_single_file_needs_no_summary(scan, pictures):
    done = scan(pictures[0], answers=[answer(judged(), 202), answer(judged())])
    assert "1 file" not in done.output


def test_the_summary_of_what_was_only_submitted_counts_that(scan, pictures):
    done = scan("--no-wait", *pictures, answers=[answer(job("queued"), 202)] * 2)
    assert re.search(r"2 files in \d+\.\d s: 2 submitted, 0 failed\n", done.stdout)
    assert f"a.jpg: job {job()['id']} queued\n" in done.stdout


def test_a_summary_counts_every_outcome():
    jobs = [judged("fake"), judged("not_applicable"), job("cancelled"), job("failed")]
    results = [ScanResult("a", Job.from_json(document), None) for document in jobs]
    results.append(ScanResult("b", None, OSError()))
    assert describe_outcomes(results, 61.04) == (
        "5 files in 61.0 s: 0 real, 1 fake, 0 inconclusive, 2 failed, 1 cancelled, 1 not applicable"
    )


@pytest.mark.parametrize("form", ["--json", "--csv"])
def test_programs_get_results_alone_on_standard_output(scan, pictures, form):
    done = scan(form, *pictures, answers=[answer(judged(), 202), answer(judged(), 202)] + [answer(judged())] * 2)
    assert "2 real" in done.stderr
    assert " s: " not in done.stdout
    assert len(done.stdout.splitlines()) == (2 if form == "--json" else 3)


def test_csv_has_a_row_for_each_result_and_one_heading(scan, tmp_path, pictures):
    done = scan("--csv", pictures[0], tmp_path / "none.jpg", answers=[answer(judged(), 202), answer(judged())])
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [row["file"] for row in rows] == [str(pictures[0]), str(tmp_path / "none.jpg")]
    assert {name: rows[0][name] for name in ("status", "verdict", "fake_score", "model", "seconds", "error")} == {
        "status": "succeeded",
        "verdict": "real",
        "fake_score": "0.25",
        "model": "m",
        "seconds": "2.5",
        "error": "",
    }
    assert (rows[1]["error_code"], rows[1]["error"]) == ("client_error", "No such file or directory")
    assert len(csv_values(ScanResult("a", None, OSError()))) == len(CSV_COLUMNS)


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)"])
def test_no_name_becomes_a_formula_of_a_spreadsheet(name):
    assert format_csv_row([name, -1.5]) == f"'{name},-1.5"


def test_a_row_of_csv_is_one_line_without_control_characters():
    assert format_csv_row(["a\nb\x1b[2J", 'q"', "1,5"]) == 'a\\nb\\x1b[2J,"q""","1,5"'


def test_json_and_csv_together_are_a_mistake_of_use(scan, pictures):
    done = scan("--json", "--csv", pictures[0], answers=[])
    assert done.exit_code == 2
    assert "choose one" in done.stderr


def printed(document):
    console = Console(file=io.StringIO(), width=200)
    TablePrinter(console).print_result(ScanResult("a", Job.from_json(document), None))
    return console.file.getvalue()


def test_a_still_has_no_times_and_a_video_has():
    changes = {"segments": [SEGMENT], "suspicious": [STRETCH]}
    still = printed(judged("fake", media={"kind": "image", "duration_s": None}, **changes))
    assert "0:00.00" not in still
    assert " from " not in still.partition("average")[0]
    assert "        person 0: 0.9000 on 1 face, fake\n" in still
    video = printed(judged("fake", media={"kind": "video", "duration_s": 0.5}, **changes))
    assert "        0:00.00 to 0:00.00, person 0: 0.9000 on 1 face, fake\n" in video
    assert " from " in video.partition("average")[0]


def test_no_line_is_broken_in_a_pipe(scan, tmp_path):
    long = tmp_path / ("a b" * 60 + ".jpg")
    long.write_bytes(PICTURE)
    failed = job("failed", error={"code": "x", "detail": "a word " * 60 + "."})
    done = scan(long, answers=[answer(failed, 202), answer(failed)])
    assert f"{long}\n" in done.stdout
    assert f"failed {'a word ' * 60}. (x)\n" in done.stdout


@pytest.fixture
def listed(command, server, tmp_path):
    """Return a function that lists one job."""

    def run(*arguments, **environment):
        server.answers = [answer({"items": [judged(metadata={"filename": "=a.jpg"})], "next_cursor": None})]
        with running_state(tmp_path / "state", server.url) as state:
            # Whatever terminal the tests run in, there is none here.
            given = {"COLUMNS": None, "FORCE_COLOR": None, "TTY_COMPATIBLE": None, **environment}
            return command("--state", state, "jobs", *arguments, **given)

    return run


def test_a_list_of_jobs_has_times_and_all_columns_in_a_pipe(listed):
    done = listed()
    assert "2026-01-02 " in done.stdout
    assert "2.5 s" in done.stdout
    assert "took" in done.stdout


def test_a_list_of_jobs_fits_a_terminal_of_80_columns(listed):
    done = listed(COLUMNS="80")
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert job()["id"] in done.stdout
    assert re.search(r"2026-01-0[123] \d\d:\d\d +0\.2500 +real", done.stdout)


def test_a_narrow_terminal_gets_ids_and_outcomes_of_jobs(listed):
    lines = listed(COLUMNS="60").stdout.splitlines()
    assert [line.split() for line in lines] == [["id", "outcome"], [job()["id"], "real"]]


def test_a_list_of_jobs_can_be_csv(listed):
    [row] = csv.DictReader(io.StringIO(listed("--csv").stdout))
    assert (row["file"], row["job_id"]) == ("'=a.jpg", job()["id"])
    assert row["created_at"].startswith("2026-01-02T03:04:05.678")


def test_a_list_without_jobs_says_so(command, server, tmp_path):
    server.answers = [answer({"items": [], "next_cursor": None})]
    with running_state(tmp_path / "state", server.url) as state:
        done = command("--state", state, "jobs")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "there are no jobs\n")


def run_program(state, *arguments, **options):
    return subprocess.run(
        [*PROGRAM, "--state", state, *map(str, arguments)], capture_output=True, check=False, timeout=60, **options
    )


def test_standard_input_is_scanned(server, tmp_path):
    server.answers = [answer(judged(), 202), answer(judged())]
    with running_state(tmp_path / "state", server.url) as state:
        done = run_program(state, "scan", "--json", "-", input=PICTURE * 20_000)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["file"] == "-"
    assert server.requests[0].body == PICTURE * 20_000


def test_named_pipes_are_scanned_beside_files(scan, server, tmp_path, pictures):
    pipes = [tmp_path / "first", tmp_path / "second"]
    for pipe in pipes:
        os.mkfifo(pipe)
    writers = [threading.Thread(target=pipe.write_bytes, args=(PICTURE + b"piped",), daemon=True) for pipe in pipes]
    for writer in writers:
        writer.start()
    done = scan("--no-wait", "--json", *pipes, pictures[0], answers=[answer(job("queued"), 202)] * 3)
    assert done.exit_code == 0, done.output
    assert sorted(request.body for request in server.requests) == [PICTURE, PICTURE + b"piped", PICTURE + b"piped"]


def test_a_pipe_that_is_no_medium_is_not_read_to_its_end(scan, tmp_path):
    pipe = tmp_path / "endless"
    os.mkfifo(pipe)

    def write():
        with contextlib.suppress(BrokenPipeError), pipe.open("wb", buffering=0) as opened:
            while True:
                opened.write(b"text\n" * 1000)

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    done = scan("--json", pipe, answers=[])
    assert done.exit_code == 1
    assert json.loads(done.stdout)["error"]["code"] == "not_media"
    writer.join(10)
    assert not writer.is_alive()


def test_an_empty_standard_input_is_an_empty_file(tmp_path, server):
    with running_state(tmp_path / "state", server.url) as state:
        done = run_program(state, "scan", "--json", "-", stdin=subprocess.DEVNULL)
    assert json.loads(done.stdout)["error"]["code"] == "empty_file"


def test_standard_input_that_is_a_terminal_is_a_mistake_of_use(tmp_path, server):
    terminal, end = pty.openpty()
    try:
        with running_state(tmp_path / "state", server.url) as state:
            done = run_program(state, "scan", "-", stdin=end)
    finally:
        os.close(end)
        os.close(terminal)
    assert done.returncode == 2
    assert b"pipe a file" in done.stderr


def test_the_scheme_of_an_address_may_be_in_capitals(scan, server):
    done = scan("--no-wait", "HTTPS://example.org/A.mp4", answers=[answer(job("queued"), 202)])
    assert done.exit_code == 0, done.output
    assert json.loads(server.requests[0].body)["url"] == "https://example.org/A.mp4"


def test_an_address_without_a_scheme_is_recognised(scan):
    done = scan("example.org/a.mp4", answers=[])
    assert done.stderr == (
        "example.org/a.mp4: no such file; if it is an address, write it as https://example.org/a.mp4\n"
    )


def test_progress_takes_a_screenful_and_hides_no_result(server, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    for number in range(60):
        (folder / f"{number}.jpg").write_bytes(PICTURE)
    (folder / "notes.txt").write_text("text")
    server.answers = [answer(job("queued"), 202)] * 60
    terminal, end = pty.openpty()
    sent = []
    reader = threading.Thread(target=read_all, args=(terminal, sent), daemon=True)
    reader.start()
    try:
        with running_state(tmp_path / "state", server.url) as state:
            done = subprocess.run(
                [*PROGRAM, "--state", state, "scan", "--no-wait", folder, tmp_path / "none.jpg"],
                env={**os.environ, "TERM": "xterm", "LINES": "24", "COLUMNS": "200"},
                stdout=end,
                stderr=end,
                check=False,
                timeout=60,
            )
    finally:
        os.close(end)
        reader.join(10)
        os.close(terminal)
    assert done.returncode == 1
    text = b"".join(sent).decode()
    assert "Traceback" not in text, "\n".join(lines_on_terminal(text))
    assert "of 61 files" in text
    # Lines are taken off the terminal by moving up as often as there are more than one.
    assert 1 <= max(frame.count("\x1b[1A") for frame in re.findall(r"(?:\x1b\[1A\x1b\[2K)+", text)) <= 5
    left = [line for line in lines_on_terminal(text) if line]
    assert left[0].startswith("left out 1 unrecognised file")
    assert [line.partition(":")[0] for line in left[1:61]] == [str(file) for file in sorted(folder.glob("*.jpg"))]
    assert left[61] == f"{tmp_path / 'none.jpg'}: no such file"
    assert left[62].endswith("60 submitted, 1 failed")
    assert len(left) == 63


def read_all(terminal, sent):
    try:
        while block := os.read(terminal, 65536):
            sent.append(block)
    except OSError:
        return


def lines_on_terminal(text):
    """Return the lines that are left when a terminal has obeyed *text*, which erases whole lines only."""
    lines, row = [""], 0
    for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", text):
        if part == "\n":
            row += 1
            lines += [""] * (row == len(lines))
        elif part == "\x1b[1A":
            row -= 1
        elif part == "\x1b[2K":
            lines[row] = ""
        elif part[0] not in "\x1b\r":
            lines[row] += part
    return lines


@pytest.mark.parametrize("arguments", [["--version"], ["version"]], ids=lambda given: given[0])
def test_the_version_is_an_option_and_a_command(command, arguments):
    done = command(*arguments)
    assert (done.exit_code, done.output) == (0, "0.1.0\n")
