import random

import pytest

from tests.unit.worker.training.data.conftest import assert_undivided, list_tests
from worker.training.data.datasets import guess_kind, read_dataset
from worker.training.data.media import Medium
from worker.training.data.splits import SplitDigest, assign_sets

SHARES = {"validation": 0.2, "test": 0.1}


@pytest.mark.parametrize("fixture", ["dfdc", "dfdc_preview", "faceforensics", "celeb_df"])
def test_no_group_is_ever_divided(fixture, request):
    root = request.getfixturevalue(fixture)
    if fixture == "celeb_df":
        list_tests(root, "1 Celeb-real/id0_0000.mp4")
    for seed in range(20):
        media = list(assign_sets(read_dataset(guess_kind(root), root), SHARES, seed=seed))
        assert_undivided(media)
        assert all(medium.set is not None for medium in media)


def read_source_media(tmp_path, count):
    return [Medium(tmp_path / f"{n}.jpg", f"{n}.jpg", "real", "faces", f"group {n // 3}") for n in range(count)]


def test_sets_get_about_their_shares_and_depend_on_the_seed(tmp_path):
    media = read_source_media(tmp_path, 3000)
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
    media = list(assign_sets(read_source_media(tmp_path, 100), SHARES))
    shuffled = random.Random(1).sample(media, len(media))
    assert shuffled != media
    assert digest(shuffled) == digest(media)


def test_the_digest_of_a_split_changes_with_a_single_medium(tmp_path):
    media = read_source_media(tmp_path, 100)
    split = list(assign_sets(media, SHARES))
    (number,) = [n for n, medium in enumerate(split) if medium.set == "train"][:1]
    moved = list(split)
    moved[number] = next(assign_sets([media[number]], {"test": 1.0}))
    assert moved[number].set == "test"
    digests = {digest(split), digest(moved), digest(split[1:]), digest([*split, split[0]])}
    assert len(digests) == 4
