import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.clips import hopper, make_clip
from tests.unit.worker.explain.conftest import swapped_portrait
from worker.explain.__main__ import main
from worker.explain.files import explain_file

HOSTILE = "-rf <img src=x onerror=alert(1)> ; $(touch pwned)\n%s\u202e.png"


def test_the_highest_face_of_each_person_is_explained(tmp_path):
    clip = make_clip(tmp_path / "two.mp4", fps=2.0, seconds=2.0, size=(640, 360), faces=(swapped_portrait(), hopper()))
    report = explain_file(clip, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "explanation.json").read_text()) == report
    assert {person["person"] for person in report["people"]} == {0, 1}
    names = {"explanation.json"}
    for person in report["people"]:
        # Boxes are rounded to tenths of a pixel in between.
        assert person["explained_score"] == pytest.approx(person["face_score"], abs=0.05)
        left, _, right, _ = person["box_px"]
        assert 0 <= left < right <= 640
        assert 0.0 <= person["time_s"] < 2.0
        shown = [thumbnail["image"] for thumbnail in person["thumbnails"]]
        names |= {*person["images"].values(), *shown}
        assert 1 <= len(shown) <= 6
        assert [each["time_s"] for each in person["thumbnails"]] == sorted(e["time_s"] for e in person["thumbnails"])
        for name in (*person["images"].values(), *shown):
            with Image.open(tmp_path / "out" / name) as picture:
                assert picture.size == ((112, 112) if name in shown else (224, 224))
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    [only] = explain_file(clip, tmp_path / "one", people=1)["people"]
    assert only["face_score"] == max(person["face_score"] for person in report["people"])


def test_hostile_names_and_metadata_reach_neither_output_nor_terminal(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    notes = PngInfo()
    notes.add_text("Comment", "<script>alert(2)</script>")
    Image.fromarray(swapped_portrait()).save(HOSTILE, pnginfo=notes)
    assert main(["--out", "out", "--", HOSTILE]) == 0
    told = capsys.readouterr().out
    written = b"".join(path.read_bytes() for path in (tmp_path / "out").iterdir())
    for trace in ("onerror", "alert", "pwned", "\u202e"):
        assert trace not in told
        assert trace.encode() not in written
    assert {path.name for path in tmp_path.iterdir()} == {HOSTILE, "out"}


def test_a_picture_without_a_face_has_an_empty_report(tmp_path, capsys):
    Image.fromarray(np.full((120, 120, 3), 90, np.uint8)).save(tmp_path / "grey.png")
    assert main([str(tmp_path / "grey.png"), "--out", str(tmp_path / "out")]) == 0
    assert "no face was scored (no_face)" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "explanation.json").read_text())["people"] == []


def test_a_folder_that_holds_something_is_left_alone(tmp_path, capsys):
    Image.fromarray(hopper()).save(tmp_path / "hopper.png")
    assert main([str(tmp_path / "hopper.png"), "--out", str(tmp_path)]) == 2
    assert "is not an empty folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["hopper.png"]


@pytest.mark.parametrize(
    ("content", "arguments", "status", "sentence"),
    [
        (b"this is no picture", [], 1, "(not_media)"),
        (b"", [], 1, "(empty_file)"),
        (None, [], 1, "/file': No such file"),
        (b"x", ["--model", "none"], 2, "none"),
        (b"x", ["--device", "cuda:99"], 2, "the device 'cuda:99' cannot be used on this machine"),
        (b"x", ["--device", "gpu"], 2, "the device 'gpu' cannot be used on this machine"),
    ],
    ids=["not media", "empty", "missing", "unknown model", "no such GPU", "unknown device"],
)
def test_what_cannot_be_explained_is_one_sentence(tmp_path, capsys, content, arguments, status, sentence):
    if content is not None:
        (tmp_path / "file").write_bytes(content)
    assert main([str(tmp_path / "file"), "--out", str(tmp_path / "out"), *arguments]) == status
    told = capsys.readouterr()
    assert told.out == ""
    assert sentence in told.err
    assert told.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_help_has_no_marks_of_a_docstring(capsys):
    assert main(["--help"]) == 0
    assert "`" not in capsys.readouterr().out


def test_neither_serving_nor_explaining_needs_a_package_of_the_study():
    code = (
        "import sys\n"
        "for name in ('captum', 'matplotlib', 'sklearn', 'tqdm', 'worker.training'): sys.modules[name] = None\n"
        "import worker.celery, worker.pipeline.scanning, worker.tasks.score, worker.explain.files"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)
