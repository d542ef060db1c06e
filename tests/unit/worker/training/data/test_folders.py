from tests.unit.worker.training.data.conftest import place, read


def test_side_by_side_videos_give_two_halves(tmp_path):
    place(tmp_path, "train/anna_1.mp4", "test/bob_12.mp4", "anna_2.mp4")
    media = read("pairs", tmp_path)
    left, right = media["train/anna_1.mp4#left"], media["train/anna_1.mp4#right"]
    assert left.path == right.path
    assert (left.label, right.label, right.original) == ("real", "fake", left.key)
    assert (left.region, right.region) == ("left", "right")
    assert media["test/bob_12.mp4#left"].set == "test"
    assert {medium.group for medium in media.values()} == {"anna", "bob"}


def test_labelled_folders_may_be_divided_into_sets(tmp_path):
    place(tmp_path, "train/real/a.jpg", "train/fake/b.jpg", "val/real/c.png", "notes/d.jpg", "train/real/e.txt")
    media = read("labelled", tmp_path)
    assert {key: (medium.label, medium.set) for key, medium in media.items()} == {
        "train/real/a.jpg": ("real", "train"),
        "train/fake/b.jpg": ("fake", "train"),
        "val/real/c.png": ("real", "validation"),
    }


def test_labelled_files_of_one_name_are_one_group(tmp_path):
    place(tmp_path, "real/a.jpg", "fake/a.png", "fake/b.jpg")
    media = read("labelled", tmp_path)
    assert media["real/a.jpg"].group == media["fake/a.png"].group != media["fake/b.jpg"].group


def test_a_folder_of_real_media_is_all_real(tmp_path):
    place(tmp_path, "a.jpg", "deep/b.MP4", "c.txt")
    media = read("real", tmp_path)
    assert {key: (medium.label, medium.is_video) for key, medium in media.items()} == {
        "a.jpg": ("real", False),
        "deep/b.MP4": ("real", True),
    }
