import pytest

from tests.unit.worker.training.data.conftest import place
from worker.training.data.datasets import READERS, guess_kind, read_dataset
from worker.training.errors import DataError


@pytest.mark.parametrize("kind", sorted(READERS))
def test_a_folder_in_another_layout_is_an_error(kind, tmp_path):
    place(tmp_path, "README.md")
    with pytest.raises(DataError):
        list(read_dataset(kind, tmp_path))


def test_an_unknown_reader_or_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(DataError, match="celeb-df-v2"):
        read_dataset("celeb", tmp_path)
    with pytest.raises(DataError, match="missing"):
        read_dataset("real", tmp_path / "missing")


@pytest.mark.parametrize(
    ("kind", "fixture"),
    [("dfdc", "dfdc"), ("dfdc-preview", "dfdc_preview"), ("faceforensics",) * 2, ("celeb-df-v2", "celeb_df")],
)
def test_published_layouts_are_recognised(kind, fixture, request):
    assert guess_kind(request.getfixturevalue(fixture)) == kind


@pytest.mark.parametrize(
    ("kind", "folder", "name"),
    [("labelled", "x", "fake/a.jpg"), ("labelled", "x", "train/real/a.jpg"), ("pairs", "pairs", "a_1.mp4")],
)  # fmt: skip
def test_plain_folders_are_recognised(kind, folder, name, tmp_path):
    place(tmp_path / folder, name)
    assert guess_kind(tmp_path / folder) == kind


def test_an_unknown_layout_is_an_error(tmp_path):
    place(tmp_path, "a.txt")
    with pytest.raises(DataError, match="layout"):
        guess_kind(tmp_path)


def test_unlabelled_media_are_an_error(tmp_path):
    place(tmp_path, "deep/a.jpg")
    with pytest.raises(DataError, match="--kind real"):
        guess_kind(tmp_path)
