import io
import json
import random
import re

import pytest
from PIL import Image

from worker.training.data.datasets import READERS, guess_kind, read_dataset
from worker.training.data.media import Medium
from worker.training.data.splits import SplitDigest, assign_sets
from worker.training.errors import DataError

SHARES = {"validation": 0.2, "test": 0.1}


def place(root, *names):
    """Readers do not decode, so empty files will do."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def read(kind, root):
    media = list(read_dataset(kind, root))
    assert len({medium.key for medium in media}) == len(media)
    assert all(medium.path.exists() for medium in media)
    return {medium.key: medium for medium in media}


@pytest.fixture
def dfdc(tmp_path):
    root = tmp_path / "dfdc"
    for part, prefix in (("dfdc_train_part_0", "a"), ("dfdc_train_part_1", "b")):
        place(root / part, f"{prefix}real.mp4", f"{prefix}fake.mp4", f"{prefix}lost.mp4")
        content = {
            f"{prefix}fake.mp4": {"label": "FAKE", "split": "train", "original": f"{prefix}real.mp4"},
            f"{prefix}real.mp4": {"label": "REAL", "split": "train"},
            f"{prefix}lost.mp4": {"label": "REAL", "split": "train", "original": None},
            f"{prefix}absent.mp4": {"label": "FAKE", "split": "train", "original": f"{prefix}real.mp4"},
        }
        write(root / part / "metadata.json", content)
    return root


@pytest.fixture
def dfdc_preview(tmp_path):
    root = tmp_path / "preview"
    entries = {
        "original_videos/11/11_A_001.mp4": {"label": "real", "set": "train", "target_id": 11, "swapped_id": None},
        "original_videos/12/12_A_001.mp4": {"label": "real", "set": "train", "augmentations": []},
        "original_videos/13/13_A_001.mp4": {"label": "real", "set": "train", "target_id": 13},
        "original_videos/20/20_A_001.mp4": {"label": "real", "set": "test", "target_id": 20},
        "method_A/11/11_A/11_12_A_001.mp4": {"label": "fake", "set": "train", "target_id": 11, "swapped_id": 12},
        "method_B/20/20_B/20_21_B_002.mp4": {"label": "fake", "set": "test", "target_id": 20, "swapped_id": 21},
    }
    place(root, *entries)
    entries["method_A/99/99_A/99_98_A_001.mp4"] = {"label": "fake", "set": "train", "target_id": 99}
    write(root / "dataset.json", entries)
    return root


@pytest.fixture
def faceforensics(tmp_path):
    root = tmp_path / "ff"
    for compression in ("raw", "c0", "c23", "c40"):
        place(root / f"original_sequences/youtube/{compression}/videos", *(f"{n:03d}.mp4" for n in range(6)))
        for method in ("Deepfakes", "Face2Face", "FaceShifter", "FaceSwap", "NeuralTextures"):
            pairs = ("000_003", "003_000", "001_004", "004_001", "002_005", "005_002")
            place(root / f"manipulated_sequences/{method}/{compression}/videos", *(f"{pair}.mp4" for pair in pairs))
    place(root, "original_sequences/actors/c23/videos/01__exit_phone_room.mp4")
    place(root, "original_sequences/youtube/c23/images/000/0000.png")
    place(root, "manipulated_sequences/DeepFakeDetection/c23/videos/01_02__exit_phone_room__YVGY8LOK.mp4")
    place(root, "manipulated_sequences/Deepfakes/masks/videos/000_003.mp4")
    return root


@pytest.fixture
def celeb_df(tmp_path):
    root = tmp_path / "celeb"
    place(root / "Celeb-real", "id0_0000.mp4", "id0_0001.mp4", "id1_0000.mp4", "id2_0000.mp4", "id7_0000.mp4")
    place(root / "YouTube-real", "00000.mp4", "00170.mp4")
    place(root / "Celeb-synthesis", "id0_id1_0000.mp4", "id1_id2_0000.mp4", "id7_id8_0000.mp4", "id8_id7_0003.mp4")
    return root


def list_tests(root, *lines):
    (root / "List_of_testing_videos.txt").write_text("".join(f"{line}\n" for line in lines))


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


def test_dfdc_preview_groups_everyone_who_was_swapped_with_each_other(dfdc_preview):
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


def test_celeb_df_marks_the_listed_videos_and_leaves_their_people_out_elsewhere(celeb_df):
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


def test_celeb_df_knows_fakes_by_target_and_donor(celeb_df):
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


def test_pairs_are_two_halves_of_one_file(tmp_path):
    place(tmp_path, "train/anna_1.mp4", "test/bob_12.mp4", "anna_2.mp4")
    media = read("pairs", tmp_path)
    left, right = media["train/anna_1.mp4#left"], media["train/anna_1.mp4#right"]
    assert left.path == right.path
    assert (left.label, right.label, right.original) == ("real", "fake", left.key)
    assert (left.region, right.region) == ("left", "right")
    assert media["test/bob_12.mp4#left"].set == "test"
    assert {medium.group for medium in media.values()} == {"anna", "bob"}


def encoded(kind="JPEG"):
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, kind)
    return file.getvalue()


@pytest.fixture
def face_crops(tmp_path):
    """Writes a folder of pictures, named in the first column of the lines of its table, and returns it."""

    def write(*lines, columns="file,label,original,group", pictures=None):
        root = tmp_path / "crops224"
        root.mkdir()
        for name in pictures or [line.split(",")[0] for line in lines]:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(encoded("PNG" if name.endswith(".png") else "JPEG"))
        (root / "metadata.csv").write_text("\n".join([columns, *lines]) + "\n")
        return root

    return write


def mistakes(root):
    with pytest.raises(DataError) as caught:
        list(read_dataset("face-crops", root))
    message = str(caught.value)
    assert message.startswith(f"{root / 'metadata.csv'}: ")
    assert "\n" not in message
    return message


def test_face_crops_take_labels_originals_and_groups_from_their_table(face_crops):
    root = face_crops(
        "a.jpg,REAL,,people 1", "deep/b.png,real,,people 2", "c.jpg,Fake,a.jpg,people 1", "d.jpg,FAKE,b,people 2",
        "e.jpg,fake,deep/b,people 2", "f.jpg,fake,,people 3",
    )  # fmt: skip
    media = read("face-crops", root)
    assert {key: (medium.label, medium.original, medium.group) for key, medium in media.items()} == {
        "a.jpg": ("real", "", "people 1"),
        "deep/b.png": ("real", "", "people 2"),
        "c.jpg": ("fake", "a.jpg", "people 1"),
        "d.jpg": ("fake", "deep/b.png", "people 2"),
        "e.jpg": ("fake", "deep/b.png", "people 2"),
        "f.jpg": ("fake", "", "people 3"),
    }
    assert {(medium.dataset, medium.set, medium.method, medium.is_video) for medium in media.values()} == {
        ("crops224", None, "", False)
    }
    assert guess_kind(root) == "face-crops"
    divided = list(assign_sets(media.values(), {"validation": 0.5}))
    assert_undivided(divided)


def test_face_crops_may_tell_sets_methods_and_whether_a_picture_is_from_a_video(face_crops):
    columns = "\ufeffis_video, set ,file,label,original,group,method,notes"
    root = face_crops(
        "TRUE,val,a.jpg,real,,1,,", "0,Test,b.jpg,fake,,2,swap,by hand", ",,c.jpg,real,c,3,,",
        columns=columns, pictures=["a.jpg", "b.jpg", "c.jpg"],
    )  # fmt: skip
    media = read("face-crops", root)
    assert [(medium.is_video, medium.set, medium.method) for medium in media.values()] == [
        (True, "validation", ""),
        (False, "test", "swap"),
        (False, None, ""),
    ]
    # A real picture that names itself is no mistake.
    assert media["c.jpg"].original == ""


@pytest.mark.parametrize(
    ("line", "mistake"),
    [
        ("c.jpg,maybe,,1", "have a label that is neither real nor fake (1): line 4 (c.jpg)"),
        ("c.jpg,fake,z.jpg,1", "name an original that is not there (1): line 4 (z.jpg)"),
        ("c.jpg,fake,b.jpg,1", "name an original that is not real (1): line 4 (b.jpg)"),
        ("c.jpg,real,a.jpg,1", "are real and name an original (1): line 4 (a.jpg)"),
        ("c.jpg,real,,", "have no group (1): line 4 (c.jpg)"),
        ("c.jpg,real", "have no group (1): line 4 (c.jpg)"),
        ("c.jpg,real,,1,x,y", "have more values than there are columns (1): line 4"),
        (",real,,1", "name no file (1): line 4 ()"),
        ("a.jpg,real,,1", "name a file that another names, too (1): line 4 (a.jpg, line 2)"),
        ("../c.jpg,real,,1", "name a file outside the folder (1): line 4 (../c.jpg)"),
        ("lost.jpg,real,,1", "name a file that is not there (1): line 4 (lost.jpg)"),
        ("text.jpg,real,,1", "name a file that is no picture (1): line 4 (text.jpg)"),
        ("empty.jpg,real,,1", "name a file that is no picture (1): line 4 (empty.jpg)"),
        ("cut.jpg,real,,1", "name a picture that is cut off (1): line 4 (cut.jpg)"),
        ("header.jpg,real,,1", "name a picture whose header is damaged (1): line 4 (header.jpg)"),
        ("cut.png,real,,1", "name a picture that is cut off (1): line 4 (cut.png)"),
    ],
)
def test_a_mistake_in_a_table_of_face_crops_is_told_with_its_row(line, mistake, face_crops):
    root = face_crops("a.jpg,real,,1", "b.jpg,fake,a,1", line, pictures=["a.jpg", "b.jpg", "c.jpg"])
    (root / "text.jpg").write_text("this is no picture")
    (root / "empty.jpg").touch()
    (root / "header.jpg").write_bytes(encoded()[:3] + bytes(400) + encoded()[-16:])
    for name, kind in (("cut.jpg", "JPEG"), ("cut.png", "PNG")):
        (root / name).write_bytes(encoded(kind)[:-40])
    assert mistakes(root).endswith(f": rows that {mistake}")


@pytest.mark.parametrize(("first", "second"), [("train", "test"), ("", "validation")])
def test_people_in_two_sets_of_a_table_are_a_mistake(first, second, face_crops):
    lines = (f"a.jpg,real,,1,{first}", f"b.jpg,real,,1,{second}", f"c.jpg,real,,2,{second}")
    message = mistakes(face_crops(*lines, columns="file,label,original,group,set"))
    assert f"put people into a second set (1): line 3 (group 1: {second}, not {first or 'none'})" in message


@pytest.mark.parametrize(("column", "value"), [("set", "training"), ("is_video", "perhaps")])
def test_values_that_a_table_may_not_have_are_a_mistake(column, value, face_crops):
    root = face_crops(f"a.jpg,real,,1,{value}", columns=f"file,label,original,group,{column}")
    assert re.search(rf"rows that have an? {column} that is .* \(1\): line 2 \(a\.jpg\)$", mistakes(root))


def test_a_name_that_two_originals_share_is_a_mistake_unless_one_has_it_whole(face_crops):
    root = face_crops("x/a.jpg,real,,1", "y/a.jpg,real,,1", "b.jpg,real,,1", "x/b.jpg,real,,1", "c.jpg,fake,a,1",
                      "d.jpg,fake,b,1")  # fmt: skip
    assert mistakes(root).endswith("name an original that several real pictures could be (1): line 6 (a)")


def test_all_mistakes_are_told_in_one_error_and_long_lists_are_cut(face_crops):
    lines = [f"{number}.jpg,real,,1" for number in range(12)] + ["a.jpg,fake,z,1", "b.jpg,moon,,1"]
    message = mistakes(face_crops(*lines, pictures=["a.jpg", "b.jpg"]))
    assert "name a file that is not there (12): line 2 (0.jpg), line 3 (1.jpg), " in message
    assert "line 11 (9.jpg) and 2 more; rows that" in message
    assert "line 12" not in message
    assert "not there (1): line 14 (z)" in message
    assert "neither real nor fake (1): line 15 (b.jpg)" in message


def test_a_table_without_a_column_is_an_error_and_no_sign_of_face_crops(face_crops):
    root = face_crops("a.jpg,real,1", columns="file,label,group")
    with pytest.raises(DataError, match="has no column original; it needs file, label, original, group"):
        list(read_dataset("face-crops", root))
    with pytest.raises(DataError, match="--kind real"):
        guess_kind(root)


def test_a_table_that_is_no_text_is_an_error(face_crops):
    root = face_crops("a.jpg,real,,1")
    (root / "metadata.csv").write_bytes(encoded())
    with pytest.raises(DataError, match="cannot be read as CSV"):
        list(read_dataset("face-crops", root))


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


def test_media_without_labels_are_not_taken_for_real(tmp_path):
    place(tmp_path, "deep/a.jpg")
    with pytest.raises(DataError, match="--kind real"):
        guess_kind(tmp_path)


def assert_undivided(media):
    sets = {}
    for medium in media:
        assert sets.setdefault((medium.dataset, medium.group), medium.set) == medium.set


@pytest.mark.parametrize("fixture", ["dfdc", "dfdc_preview", "faceforensics", "celeb_df"])
def test_no_group_is_ever_divided(fixture, request):
    root = request.getfixturevalue(fixture)
    if fixture == "celeb_df":
        list_tests(root, "1 Celeb-real/id0_0000.mp4")
    for seed in range(20):
        media = list(assign_sets(read_dataset(guess_kind(root), root), SHARES, seed=seed))
        assert_undivided(media)
        assert all(medium.set is not None for medium in media)


def media_of(tmp_path, count):
    return [Medium(tmp_path / f"{n}.jpg", f"{n}.jpg", "real", "faces", f"group {n // 3}") for n in range(count)]


def test_sets_get_about_their_shares_and_another_seed_divides_otherwise(tmp_path):
    media = media_of(tmp_path, 3000)
    assigned = list(assign_sets(media, SHARES))
    counts = {name: sum(medium.set == name for medium in assigned) / 3000 for name in ("train", "validation", "test")}
    # Four standard deviations of a share of 1000 groups.
    assert counts["validation"] == pytest.approx(0.2, abs=0.05)
    assert counts["test"] == pytest.approx(0.1, abs=0.04)
    assert assigned == list(assign_sets(media, SHARES))
    assert assigned != list(assign_sets(media, SHARES, seed=1))


def test_a_set_given_by_the_authors_stays(tmp_path):
    medium = Medium(tmp_path / "a.jpg", "a.jpg", "real", "faces", "a", set="test")
    assert list(assign_sets([medium], {"validation": 1.0})) == [medium]


def digest(media):
    whole = SplitDigest()
    for medium in media:
        whole.add(medium)
    return whole.hexdigest()


def test_the_digest_of_a_split_does_not_depend_on_the_order(tmp_path):
    media = list(assign_sets(media_of(tmp_path, 100), SHARES))
    shuffled = random.Random(1).sample(media, len(media))
    assert shuffled != media
    assert digest(shuffled) == digest(media)


def test_the_digest_of_a_split_changes_with_a_single_medium(tmp_path):
    media = media_of(tmp_path, 100)
    split = list(assign_sets(media, SHARES))
    (number,) = [n for n, medium in enumerate(split) if medium.set == "train"][:1]
    moved = list(split)
    moved[number] = next(assign_sets([media[number]], {"test": 1.0}))
    assert moved[number].set == "test"
    digests = {digest(split), digest(moved), digest(split[1:]), digest([*split, split[0]])}
    assert len(digests) == 4
