import io
import json
import os
import re
import threading
from urllib.parse import parse_qs, urlsplit

import pytest
from deepfakestream.errors import DeepfakeStreamError
from deepfakestream.printing import JSONPrinter, TablePrinter
from deepfakestream.scanning import Options, Scan
from rich.console import Console

from tests.unit.client.services import answer, job, running_state

PICTURE = b"\xff\xd8\xff a picture"


class SlowestFirst(Scan):
    """The first source ends after the second, which ends after the third."""

    def __init__(self, *given, **options):
        super().__init__(*given, **options)
        self.ended = {source: threading.Event() for source in "abc"}

    def _submit_and_wait(self, _client, source, *_shown):
        follower = chr(ord(source) + 1)
        assert follower not in self.ended or self.ended[follower].wait(10)
        self.ended[source].set()
        raise DeepfakeStreamError(source)


def test_results_keep_the_order_of_the_sources(capsys):
    scan = SlowestFirst(Options(timeout_s=60.0), JSONPrinter())
    results = scan.scan_with_service(None, ["a", "b", "c"])
    assert [result.source for result in results] == ["a", "b", "c"]
    assert [str(result.error) for result in results] == ["a", "b", "c"]
    assert [json.loads(line)["file"] for line in capsys.readouterr().out.splitlines()] == ["a", "b", "c"]


def test_errors_keep_the_order_of_the_sources_and_the_summary_is_a_result(capsys):
    console = Console(file=io.StringIO())
    SlowestFirst(Options(timeout_s=60.0), TablePrinter(console)).scan_with_service(None, ["a", "b", "c"])
    assert capsys.readouterr().err.splitlines() == ["a: a", "b: b", "c: c"]
    assert re.fullmatch(r"\n3 files in [0-9.]+ s: 0 real, 0 fake, 0 inconclusive, 3 failed\n", console.file.getvalue())


@pytest.fixture
def folder(tmp_path):
    """Make a folder with two pictures among other files."""
    inside = tmp_path / "folder"
    (inside / ".cache").mkdir(parents=True)
    (inside / "b.bin").write_bytes(PICTURE)
    (inside / "a.jpg").write_bytes(PICTURE)
    (inside / ".cache" / "c.jpg").write_bytes(PICTURE)
    for name, content in {"notes.txt": b"text", "z.zip": b"PK\3\4", "unknown": b"\x93\0\1"}.items():
        (inside / name).write_bytes(content)
    return inside


@pytest.fixture
def scan(command, server, tmp_path):
    """Return a function that scans with answers for *files* files."""

    def run(*arguments, files):
        server.answers = [answer(job("queued"), 202)] * files
        with running_state(tmp_path / "state", server.url) as state:
            return command("--state", state, "scan", "--no-wait", *arguments)

    return run


def sent(done):
    return [line["file"].rsplit("/", 1)[-1] for line in map(json.loads, done.stdout.splitlines())]


def test_of_a_folder_images_and_videos_are_sent_and_the_rest_is_named(scan, server, folder):
    done = scan("--json", folder, files=2)
    assert done.exit_code == 0, done.output
    assert sent(done) == ["a.jpg", "b.bin"]
    assert len(server.requests) == 2
    assert "left out 3 unrecognised files (notes.txt, unknown, z.zip)" in done.stderr
    assert "1 hidden file (c.jpg)" in done.stderr
    assert "--all" in done.stderr


def test_files_are_sent_with_their_names(scan, server, folder):
    odd = (folder / "a.jpg").rename(folder / os.fsdecode(b"\xff\n.jpg"))
    done = scan("--json", folder / "b.bin", odd, files=2)
    assert done.exit_code == 0, done.output
    queries = [parse_qs(urlsplit(request.path).query) for request in server.requests]
    assert {json.loads(query["metadata"][0])["filename"] for query in queries} == {"b.bin", "?\n.jpg"}


def test_all_sends_every_file(scan, folder):
    done = scan("--json", "--all", folder, files=6)
    assert sent(done) == ["c.jpg", "a.jpg", "b.bin", "notes.txt", "unknown", "z.zip"]
    assert "left out" not in done.stderr


def test_a_folder_without_media_is_a_usage_error(scan, folder):
    for name in ("a.jpg", "b.bin"):
        (folder / name).unlink()
    done = scan(folder, files=0)
    assert done.exit_code == 2
    assert "no images and no videos" in done.output
    assert "left out 3 unrecognised files" in done.output


def test_a_file_that_is_no_medium_is_not_uploaded(scan, server, folder):
    done = scan("--json", folder / "z.zip", folder / "a.jpg", folder / "notes.txt", files=1)
    assert done.exit_code == 1
    assert len(server.requests) == 1
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line.get("error", {}).get("code") for line in lines] == ["not_media", None, "not_media"]
    assert "ZIP archive" in lines[0]["error"]["detail"]


def test_a_file_of_unknown_format_is_sent_if_it_is_named(scan, server, folder):
    assert scan(folder / "unknown", files=1).exit_code == 0
    assert len(server.requests) == 1


@pytest.mark.parametrize("name", ["missing.jpg", "sub/missing.jpg"])
def test_a_file_that_cannot_be_read_is_named_once(scan, tmp_path, name):
    done = scan("--json", tmp_path / name, files=0)
    assert done.exit_code == 1
    assert json.loads(done.stdout)["error"]["detail"] == "No such file or directory"


@pytest.mark.parametrize("options", [[], ["--all"]], ids=["checked", "all"])
def test_an_address_that_is_not_fetched_is_no_missing_file(scan, server, options):
    done = scan("--json", *options, "ftp://x/y.mp4", files=0)
    assert done.exit_code == 1
    assert "http:// or https://" in json.loads(done.stdout)["error"]["detail"]
    assert not server.requests


def test_the_id_of_a_job_is_printed_with_its_result(command, server, folder, tmp_path):
    server.answers = [answer(job("queued"), 202), answer(job("succeeded", verdict="real"))]
    with running_state(tmp_path / "state", server.url) as state:
        done = command("--state", state, "scan", folder / "a.jpg")
    assert f"job     {job()['id']}\n" in done.output


def test_an_invalid_path_is_reported_and_others_are_scanned(scan, folder):
    done = scan("--json", "x" * 5000, folder / "a.jpg", files=1)
    assert done.exit_code == 1
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[0]["error"]["detail"] == "File name too long"
    assert lines[1]["job"]["status"] == "queued"


@pytest.mark.parametrize("timeout", ["-1", "0", "-0.0", "nan", "inf", "1e400"])
def test_an_invalid_timeout_is_a_usage_error(scan, server, folder, timeout):
    done = scan("--timeout", timeout, folder, files=0)
    assert done.exit_code == 2
    assert "--timeout" in done.output
    assert not server.requests


@pytest.mark.parametrize("option", ["--sample-fps", "--segment-seconds"])
def test_nan_is_outside_every_range(scan, folder, option):
    assert scan(option, "nan", folder, files=0).exit_code == 2


@pytest.mark.parametrize(
    "given",
    [["--webhook-url", "https://example.org"], ["--webhook-event", "job.failed"], ["--no-wait"], ["--timeout", "5"]],
    ids=lambda given: given[0],
)
def test_options_that_a_scan_without_a_service_would_ignore_are_usage_errors(command, folder, given):
    done = command("scan", "--local", *given, folder)
    assert done.exit_code == 2
    assert f"{given[0]} is for a service, and --local scans without one" in done.output


def test_a_receiver_is_called_for_the_events_that_are_named(scan, server, folder):
    named = ["--webhook-event", "job.failed", "--webhook-event", "job.cancelled"]
    assert scan("--webhook-url", "https://example.org", *named, folder / "a.jpg", files=1).exit_code == 0
    [request] = server.requests
    assert "webhook_events=job.failed%2Cjob.cancelled" in request.path


@pytest.mark.parametrize("name", ["scan", "batch submit"])
def test_events_without_an_address_and_several_in_one_are_usage_errors(command, name):
    done = command(*name.split(), "--webhook-event", "job.failed", "https://a.example/1.jpg")
    assert done.exit_code == 2
    assert "--webhook-event needs --webhook-url" in done.output
    given = ("--webhook-url", "https://b.example/", "--webhook-event", "job.failed,job.cancelled")
    done = command(*name.split(), *given, "https://a.example/1.jpg")
    assert done.exit_code == 2
    assert "give the option once for each event" in " ".join(done.output.split())


@pytest.mark.parametrize("name", ["nope", "../swap-lite2"])
def test_an_unknown_model_without_a_service_is_reported_as_by_a_service(command, folder, name):
    done = command("scan", "--local", "--json", "--model", name, folder / "a.jpg")
    assert done.exit_code == 1
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "unknown_model"
    assert error["detail"] == f"unknown model {name!r}; available: swap-lite0, swap-lite2"


def test_help_shows_defaults_and_says_what_arguments_are(command):
    help_texts = {
        name: " ".join(command(name, "--help").stdout.split()) for name in ("scan", "cancel", "delete", "jobs")
    }
    assert "FOLDER stands for all images and videos inside" in help_texts["scan"]
    for shown in (
        "[default: (no limit); x>0]",
        "[default: wait]",
        "[default: (the checkpoint's, mostly 2); 0.1<=x<=30]",
    ):
        assert shown in help_texts["scan"]
    assert "[default: 20; x>=1]" in help_texts["jobs"]
    for name in ("cancel", "delete"):
        assert "ID is a job's" in help_texts[name]
