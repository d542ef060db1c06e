import pytest

from tests.unit.worker.training.data.conftest import assert_undivided, list_tests, place, read, write
from worker.training.data.datasets import read_dataset
from worker.training.errors import DataError


def test_dfdc_takes_labels_originals_and_sets_from_each_part(dfdc):
    media = read("dfdc", dfdc)
    assert len(media) == 6
    fake = media["dfdc_train_part_0/afake.mp4"]
    assert (fake.label, fake.original, fake.set) == ("fake", "dfdc_train_part_0/areal.mp4", None)
    assert fake.original in media
    assert media["dfdc_train_part_0/alost.mp4"].original == ""
    assert media["dfdc_train_part_1/breal.mp4"].label == "real"
    assert {medium.group for medium in media.values()} == {"dfdc_train_part_0", "dfdc_train_part_1"}


def test_one_part_of_dfdc_alone_is_read_too(dfdc):
    media = read("dfdc", dfdc / "dfdc_train_part_0")
    assert media["afake.mp4"].original == "areal.mp4"
    assert {medium.group for medium in media.values()} == {"dfdc_train_part_0"}


@pytest.mark.parametrize("content", ["not json", "[]", '{"a.mp4": 1}', '{"a.mp4": {"label": "MAYBE"}}', "{}"])
def test_a_damaged_metadata_file_is_an_error(tmp_path, content):
    place(tmp_path, "dfdc_train_part_0/a.mp4")
    (tmp_path / "dfdc_train_part_0/metadata.json").write_text(content)
    with pytest.raises(DataError):
        list(read_dataset("dfdc", tmp_path))


def test_dfdc_preview_groups_people_connected_by_swaps(dfdc_preview):
    media = read("dfdc-preview", dfdc_preview)
    assert len(media) == 6
    fake = media["method_A/11/11_A/11_12_A_001.mp4"]
    assert (fake.label, fake.method, fake.set) == ("fake", "method_A", None)
    assert media["method_B/20/20_B/20_21_B_002.mp4"].set == "test"
    # Entry 12 says nothing of people: its folder does.
    assert fake.group == media["original_videos/11/11_A_001.mp4"].group
    assert fake.group == media["original_videos/12/12_A_001.mp4"].group
    assert fake.group != media["original_videos/13/13_A_001.mp4"].group


def test_faceforensics_reads_every_method_and_compression_but_no_actors_masks_or_frames(faceforensics):
    media = read("faceforensics", faceforensics)
    assert len(media) == 4 * (6 + 5 * 6)
    assert {medium.compression for medium in media.values()} == {"raw", "c0", "c23", "c40"}
    fake = media["manipulated_sequences/FaceShifter/c40/videos/004_001.mp4"]
    assert (fake.label, fake.method) == ("fake", "FaceShifter")
    assert media[fake.original].key == "original_sequences/youtube/c40/videos/004.mp4"
    assert all((medium.label == "fake") == bool(medium.method) for medium in media.values())


def test_faceforensics_takes_the_official_split(faceforensics):
    for name, pairs in (("train", [["000", "003"]]), ("val", [["001", "004"]]), ("test", [["005", "002"]])):
        write(faceforensics / f"splits/{name}.json", pairs)
    media = read("faceforensics", faceforensics)
    sets = {"0": "train", "3": "train", "1": "validation", "4": "validation", "2": "test", "5": "test"}
    for medium in media.values():
        assert medium.set == sets[medium.path.stem[2]]
    assert_undivided(media.values())


def test_without_the_official_split_an_original_stays_with_its_fakes(faceforensics):
    media = read("faceforensics", faceforensics)
    groups = {}
    for medium in media.values():
        for video in medium.path.stem.split("_"):
            groups.setdefault(video, set()).add(medium.group)
    assert all(len(names) == 1 for names in groups.values())
    assert groups["000"] == groups["003"] != groups["001"]


def test_a_damaged_split_of_faceforensics_is_an_error(faceforensics):
    write(faceforensics / "splits/train.json", [["000", "003", "004"]])
    with pytest.raises(DataError, match="pairs"):
        read("faceforensics", faceforensics)


def test_celeb_df_excludes_people_of_the_test_list_from_training(celeb_df):
    list_tests(celeb_df, "1 YouTube-real/00170.mp4", "1 Celeb-real/id0_0000.mp4", "0 Celeb-synthesis/id0_id1_0000.mp4")
    media = read("celeb-df-v2", celeb_df)
    listed = {key for key, medium in media.items() if medium.set == "test"}
    assert listed == {"YouTube-real/00170.mp4", "Celeb-real/id0_0000.mp4", "Celeb-synthesis/id0_id1_0000.mp4"}
    # id0 and id1 are in the test set, so neither id0's other video nor a fake of id1 is there to train on.
    others = {key for key in media if key not in listed}
    assert others == {
        "YouTube-real/00000.mp4",
        "Celeb-real/id2_0000.mp4",
        "Celeb-real/id7_0000.mp4",
        "Celeb-synthesis/id7_id8_0000.mp4",
        "Celeb-synthesis/id8_id7_0003.mp4",
    }


def test_celeb_df_reads_target_and_donor_of_fakes(celeb_df):
    media = read("celeb-df-v2", celeb_df)
    assert len(media) == 11
    fake = media["Celeb-synthesis/id0_id1_0000.mp4"]
    assert (fake.label, fake.original) == ("fake", "Celeb-real/id0_0000.mp4")
    assert media["YouTube-real/00000.mp4"].label == media["Celeb-real/id0_0000.mp4"].label == "real"
    assert all(medium.set is None for medium in media.values())
    # id2 never met id0, but both met id1.
    assert media["Celeb-real/id2_0000.mp4"].group == fake.group != media["Celeb-real/id7_0000.mp4"].group


def test_a_damaged_list_of_celeb_df_is_an_error(celeb_df):
    list_tests(celeb_df, "YouTube-real/00170.mp4")
    with pytest.raises(DataError, match="label"):
        read("celeb-df-v2", celeb_df)
