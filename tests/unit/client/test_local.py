"""Commands that scan a file in this process: a file that cannot be scanned is an answer, and a defect is not hidden."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest
from deepfakestream.errors import DeepfakeStreamError
from deepfakestream.local import scan_local_file

from tests.clips import make_clip


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("missing.jpg", "No such file or directory"),
        ("folder", "Is a directory"),
        ("x" * 5000, "File name too long"),
        ("loop.jpg", "Too many levels of symbolic links"),
        ("empty.jpg", "the file is empty"),
    ],
    ids=["missing", "folder", "long name", "loop", "empty"],
)
def test_a_report_of_a_file_that_cannot_be_scanned_is_one_sentence(command, tmp_path, name, why):
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    (tmp_path / "empty.jpg").touch()
    out = tmp_path / "report.html"
    done = command("report", tmp_path / name, "--local", "--out", out)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == f"Error: {tmp_path / name}: {why}\n"
    assert not out.exists()
    if name != "folder":
        scanned = command("scan", "--local", "--json", tmp_path / name)
        assert (scanned.exit_code, json.loads(scanned.stdout)["error"]["detail"]) == (1, why)


def test_an_error_of_the_operating_system_becomes_one_of_this_package():
    def scan(file):
        raise PermissionError(13, "Permission denied", str(file))

    with pytest.raises(DeepfakeStreamError, match=r"^Permission denied$") as raised:
        scan_local_file(scan, Path("a.jpg"))
    assert raised.value.code == DeepfakeStreamError.code == "client_error"


def test_a_defect_of_the_pipeline_is_not_hidden():
    def scan(_file):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        scan_local_file(scan, Path("a.jpg"))


def test_ctrl_c_ends_a_scan_without_a_service_and_its_decoder(command, tmp_path):
    clip = make_clip(tmp_path / "long.mp4", seconds=20.0)
    decoders = []

    def interrupt_when_decoding():
        deadline = time.monotonic() + 120
        while not decoders and time.monotonic() < deadline:
            decoders.extend(
                child for child in psutil.Process().children(recursive=True) if str(clip) in "".join(child.cmdline())
            )
            time.sleep(0.05)
        if decoders:
            os.kill(os.getpid(), signal.SIGINT)

    watching = threading.Thread(target=interrupt_when_decoding)
    watching.start()
    done = command("scan", "--local", "--sample-fps", "30", clip, tmp_path / "none.mp4")
    watching.join()
    assert (done.exit_code, done.stdout) == (130, "")
    assert done.stderr == "interrupted; the scan was stopped, and nothing goes on\n"
    assert decoders
    assert not any(decoder.is_running() for decoder in decoders)
