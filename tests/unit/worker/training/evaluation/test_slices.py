import pytest

from tests.unit.worker.training.rule_data import face, medium
from worker.training.evaluation.slices import slice_media


def keys(slices):
    return {name: [one.key for one in members] for name, members in slices.items()}


def test_numeric_slices_split_at_their_edges_and_partition_the_media():
    sizes = (40.0, 64.0, 95.9, 200.0)
    slices = slice_media([medium("real", face(0.0, size_px=size), key=f"{size:g}") for size in sizes])
    assert keys(slices["face size (px)"]) == {
        "below 64": ["40"],
        "64 to 96": ["64", "95.9"],
        "192 and more": ["200"],
    }


def test_a_method_slice_includes_the_real_media_of_its_data_set():
    media = [
        medium("real", face(0.0), key="a-real", dataset="a"),
        medium("fake", face(0.0), key="a-fake", dataset="a", method="one"),
        medium("real", face(0.0), key="b-real", dataset="b"),
        medium("fake", face(0.0), key="b-fake", dataset="b", method="two"),
        medium("fake", face(0.0), key="c-fake", dataset="c"),
    ]
    assert keys(slice_media(media)["method"]) == {
        "one": ["a-fake", "a-real"],
        "two": ["b-fake", "b-real"],
        "unknown": ["c-fake", "a-real", "b-real"],
    }


def test_slicings_with_a_single_slice_are_left_out():
    slices = slice_media([medium(label, face(0.0)) for label in ("real", "fake")])
    assert set(slices) == {"set", "dataset", "method"}


@pytest.mark.parametrize(
    ("angle", "name"), [(60.0, "light"), (41.0, "intermediate"), (10.0, "intermediate"), (-20.0, "dark")]
)
def test_skin_tone_estimates_have_three_buckets(angle, name):
    media = [medium("real", face(0.0, skin=angle), key="known"), medium("real", face(0.0), key="grey")]
    assert keys(slice_media(media)["skin tone estimate"]) == {name: ["known"], "unknown": ["grey"]}


def test_a_medium_has_a_skin_tone_only_if_most_of_its_faces_have():
    assert medium("real", face(0.0, skin=50.0), face(0.0), face(0.0)).skin_tone_deg is None
    assert medium("real", face(0.0, skin=50.0), face(0.0, skin=20.0), face(0.0)).skin_tone_deg == 35.0
