import re

import pytest

from tests.unit.worker.training.data.conftest import assert_undivided, encoded, read
from worker.training.data.datasets import guess_kind, read_dataset
from worker.training.data.splits import assign_sets
from worker.training.errors import DataError


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


def test_face_crops_read_optional_columns(face_crops):
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
        ("a.jpg,real,,1", "name a file that another row names (1): line 4 (a.jpg, line 2)"),
        ("../c.jpg,real,,1", "name a file outside the folder (1): line 4 (../c.jpg)"),
        ("lost.jpg,real,,1", "name a file that is not there (1): line 4 (lost.jpg)"),
        ("text.jpg,real,,1", "name a file that is not a picture (1): line 4 (text.jpg)"),
        ("empty.jpg,real,,1", "name a file that is not a picture (1): line 4 (empty.jpg)"),
        ("cut.jpg,real,,1", "name a truncated picture (1): line 4 (cut.jpg)"),
        ("header.jpg,real,,1", "name a picture whose header is damaged (1): line 4 (header.jpg)"),
        ("cut.png,real,,1", "name a truncated picture (1): line 4 (cut.png)"),
    ],
)
def test_a_mistake_in_a_table_of_face_crops_names_its_row(line, mistake, face_crops):
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
def test_values_outside_the_allowed_ones_are_mistakes(column, value, face_crops):
    root = face_crops(f"a.jpg,real,,1,{value}", columns=f"file,label,original,group,{column}")
    assert re.search(rf"rows that have an? {column} that is .* \(1\): line 2 \(a\.jpg\)$", mistakes(root))


def test_an_ambiguous_original_is_a_mistake_unless_one_name_matches_exactly(face_crops):
    root = face_crops("x/a.jpg,real,,1", "y/a.jpg,real,,1", "b.jpg,real,,1", "x/b.jpg,real,,1", "c.jpg,fake,a,1",
                      "d.jpg,fake,b,1")  # fmt: skip
    assert mistakes(root).endswith("name an original that several real pictures could be (1): line 6 (a)")


def test_all_mistakes_are_reported_in_one_error_with_long_lists_truncated(face_crops):
    lines = [f"{number}.jpg,real,,1" for number in range(12)] + ["a.jpg,fake,z,1", "b.jpg,moon,,1"]
    message = mistakes(face_crops(*lines, pictures=["a.jpg", "b.jpg"]))
    assert "name a file that is not there (12): line 2 (0.jpg), line 3 (1.jpg), " in message
    assert "line 11 (9.jpg) and 2 more; rows that" in message
    assert "line 12" not in message
    assert "not there (1): line 14 (z)" in message
    assert "neither real nor fake (1): line 15 (b.jpg)" in message


def test_a_table_with_a_missing_column_is_an_error(face_crops):
    root = face_crops("a.jpg,real,1", columns="file,label,group")
    with pytest.raises(DataError, match="has no column original; it needs file, label, original, group"):
        list(read_dataset("face-crops", root))
    with pytest.raises(DataError, match="--kind real"):
        guess_kind(root)


def test_a_table_that_is_not_text_is_an_error(face_crops):
    root = face_crops("a.jpg,real,,1")
    (root / "metadata.csv").write_bytes(encoded())
    with pytest.raises(DataError, match="cannot be read as CSV"):
        list(read_dataset("face-crops", root))
