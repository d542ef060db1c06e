import pytest

from shared.config import Limits
from tests.clips import make_clip
from worker.media.probe import probe
from worker.training.__main__ import main
from worker.training.data.reencoding import reencode
from worker.training.errors import DataError


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "pairs" / "validation"
    folder.mkdir(parents=True)
    make_clip(folder / "person_1.mp4", seconds=1.0)
    (folder / "notes.txt").write_text("no video")
    return tmp_path / "pairs"


def test_a_copy_keeps_layout_times_and_size_with_fewer_bytes(data, tmp_path):
    assert reencode(data, tmp_path / "coarse", crf=40) == (1, 0, 0)
    assert sorted(path.name for path in (tmp_path / "coarse").rglob("*.*")) == [
        "notes.txt",
        "person_1.mp4",
        "reencoded.json",
    ]
    copy, original = tmp_path / "coarse/validation/person_1.mp4", data / "validation/person_1.mp4"
    facts = [probe(path, Limits().for_media()) for path in (copy, original)]
    assert facts[0].width_px == facts[1].width_px
    assert facts[0].duration_s == pytest.approx(facts[1].duration_s, abs=0.05)
    assert copy.stat().st_size < original.stat().st_size / 2


def test_scaled_copies_have_even_sides_of_that_share(data, tmp_path):
    reencode(data, tmp_path / "small", crf=28, scale=0.4)
    facts = probe(tmp_path / "small/validation/person_1.mp4", Limits().for_media())
    assert (facts.width_px, facts.height_px) == (128, 96)


def test_a_side_is_scaled_to_at_least_two_pixels(data, tmp_path):
    reencode(data, tmp_path / "tiny", crf=28, scale=0.005)
    facts = probe(tmp_path / "tiny/validation/person_1.mp4", Limits().for_media())
    assert (facts.width_px, facts.height_px) == (2, 2)


def test_existing_copies_are_kept(data, tmp_path):
    copy = tmp_path / "again/validation/person_1.mp4"
    copy.parent.mkdir(parents=True)
    copy.write_bytes(b"made before")
    reencode(data, tmp_path / "again", crf=28)
    assert copy.read_bytes() == b"made before"


def test_another_quality_in_the_same_folder_is_an_error(data, tmp_path):
    reencode(data, tmp_path / "out", crf=28)
    with pytest.raises(DataError, match="other settings"):
        reencode(data, tmp_path / "out", crf=35)


@pytest.mark.parametrize("name", ["clip.mov", "clip.mkv", "clip.avi"])
def test_file_names_are_kept_for_every_container(tmp_path, name):
    (tmp_path / "in").mkdir()
    make_clip(tmp_path / "in" / name, seconds=1.0)
    reencode(tmp_path / "in", tmp_path / "out", crf=30)
    assert probe(tmp_path / "out" / name, Limits().for_media()).codec == "h264"


def test_a_broken_video_is_named_and_leaves_no_partial_file(data, tmp_path):
    (data / "broken.mp4").write_bytes(b"no video at all")
    with pytest.raises(DataError, match=r"broken\.mp4 cannot be encoded: .+"):
        reencode(data, tmp_path / "out", crf=28)
    assert not list((tmp_path / "out").rglob("*partial*"))


def test_the_command_reports_its_copies_or_a_missing_video(data, tmp_path, capsys):
    assert main(["reencode", str(data), "--out", str(tmp_path / "out"), "--crf", "30"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'out'}: 1 video\n"
    assert main(["reencode", str(tmp_path / "pairs/none"), "--out", str(tmp_path / "out"), "--crf", "30"]) == 2
    assert "no video below" in capsys.readouterr().err


def test_the_command_reports_omitted_files(data, tmp_path, capsys):
    for name in ("one.jpg", "two.PNG", "sound.wav"):
        (data / name).write_bytes(b"no video")
    assert main(["reencode", str(data), "--out", str(tmp_path / "out"), "--crf", "40"]) == 0
    output = capsys.readouterr().out.splitlines()
    assert output[1] == "left out: 2 pictures and 1 file of another kind; only videos are encoded again"
    assert not list((tmp_path / "out").glob("*.jpg"))


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["--crf", "-1"], "crf is -1; x264 takes 0 (lossless) to 51 (worst)"),
        (["--crf", "52"], "crf is 52; x264 takes 0"),
        (["--crf", "28", "--scale", "0"], "scale is 0; each side is multiplied by it"),
        (["--crf", "28", "--scale", "1.5"], "at most 1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_settings_out_of_range_are_reported_before_anything_is_written(given, sentence, data, tmp_path, capsys):
    assert main(["reencode", str(data), "--out", str(tmp_path / "out"), *given]) == 2
    output = capsys.readouterr().err
    assert sentence in output
    assert output.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_copy_inside_its_source_is_rejected(data, capsys):
    assert main(["reencode", str(data), "--out", str(data / "again"), "--crf", "30"]) == 2
    assert "is inside" in capsys.readouterr().err
    assert not (data / "again").exists()
