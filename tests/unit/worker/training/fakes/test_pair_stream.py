import shutil
from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest
import torch

from worker.training.data.cache import CropCache
from worker.training.errors import DataError
from worker.training.fakes import faces, pair_stream
from worker.training.fakes.augmentation import Augmentation
from worker.training.fakes.generators.painting import face_name
from worker.training.fakes.kinds import ALIGNED, Kind, Stage
from worker.training.fakes.pair_maker import RealFakePairMaker
from worker.training.fakes.pair_stream import RealFakePairStream

KINDS = get_args(Kind)
STILL = Augmentation(
    jitter=0.0, flip=0.0, rescale=0.0, blur=0.0, noise=0.0, sharpen=0.0, jpeg=0.0, h264=0.0, colour=0.0, cutout=0.0
)
ALL = Stage(10, dict.fromkeys(KINDS, 1.0))


def stream(crops, *stages, augmentation=None, cls=RealFakePairStream, **options):
    chosen = augmentation or Augmentation()
    given = {"size_px": 48, "margin": 0.2, "batch": 3, "painted": crops.painted, **options}
    return cls([crops.folder], stages or [ALL], chosen, **given)


def only(kind):
    return Stage(1, {kind: 1.0})


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_batch_is_real_pictures_before_their_fakes(crops):
    pictures, aligned, _ = stream(crops).make_batch(0)
    assert pictures.shape == (6, 3, 48, 48)
    assert pictures.dtype == torch.uint8
    assert aligned.shape == (3,)
    whole = stream(crops)
    for row in range(3):
        pair, flag, _ = whole.make_pair(row)
        assert torch.equal(pair[0], pictures[row])
        assert torch.equal(pair[1], pictures[3 + row])
        assert flag == aligned[row]


def test_a_batch_does_not_depend_on_earlier_batches(crops):
    fresh = stream(crops).make_batch(7)
    used = stream(crops)
    for number in (3, 9, 0):
        used.make_batch(number)
    assert same(used.make_batch(7), fresh)
    assert same(used.make_batch(7), fresh)
    assert not same(used.make_batch(8), fresh)
    assert not same(stream(crops, seed=1).make_batch(7), fresh)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_makes_pairs_of_two_different_pictures(kind, crops):
    made = stream(crops, only(kind), augmentation=STILL)
    for number in range(2):
        (real, fake), aligned, _ = made.make_pair(number)
        assert not torch.equal(real, fake)
        assert bool(aligned) == (kind in ALIGNED)


@pytest.mark.parametrize("kind", ["subtle", "painted", "restored", "swap", "transplant"])
def test_the_first_picture_of_a_pair_is_the_unchanged_crop_of_a_real_face(kind, crops):
    made = stream(crops, only(kind), augmentation=STILL)
    cache = CropCache(crops.folder)
    crops_of_real = []
    for face in cache.read_faces():
        if face.label == "real" and face.set == "train":
            picture, box, _ = made.maker.load_cut((cache, face), STILL)
            (crop,) = STILL.apply([picture], box, np.random.default_rng(0), size_px=48, margin=0.2)
            crops_of_real.append(torch.from_numpy(crop).permute(2, 0, 1))
    for number in range(3):
        (real, fake), _, _ = made.make_pair(number)
        assert any(torch.equal(real, crop) for crop in crops_of_real)
        assert not any(torch.equal(fake, crop) for crop in crops_of_real)


def test_side_by_side_faces_match_in_place_and_time(crops):
    made = stream(crops, only("pairs"))
    assert len(made.faces.side_by_side) == 1
    for (_, real), (_, fake) in made.faces.side_by_side[0]:
        assert (real.label, fake.label) == ("real", "fake")
        assert real.time_s == fake.time_s
        # Of the two people on the left, the one at the position of the swapped one on the right.
        assert real.frame_box_px[0] > 280


@pytest.mark.parametrize("kind", ["painted", "decoded", "restored"])
def test_painted_faces_are_put_back_where_they_were_or_into_another_person(kind, crops):
    made = stream(crops, only(kind))
    rng = np.random.default_rng(0)
    drawn = [made.maker.draw_painted_face(kind, 0, rng) for _ in range(200)]
    own = [face.original == face_name(made.faces.real[0][1]) for _, face in drawn]
    assert 0.5 < np.mean(own) < 1.0
    assert {cache.folder for cache, _ in drawn} == {
        folder for folder in crops.painted if folder.name.startswith(f"{kind}-")
    }
    # They are fakes of this kind alone.
    assert kind not in {face.dataset for _, face in made.faces.real + made.faces.generated}


def test_an_unpainted_face_gets_another_persons_painted_face(crops, tmp_path):
    lines = (crops.painted[0] / "00000.jsonl").read_text().splitlines(keepends=True)
    shutil.copy(crops.painted[0] / "00000.tar", tmp_path)
    (tmp_path / "00000.jsonl").write_text(lines[1])
    made = stream(crops, only("painted"), painted=[tmp_path])
    assert len(made.painted_faces.list_originals("painted")) == 1
    drawn = {
        made.maker.draw_painted_face("painted", number, np.random.default_rng(0))[1].offset
        for number in range(len(made.faces.real))
    }
    assert len(drawn) == 1


@pytest.mark.parametrize("kind", ["painted", "decoded", "restored", "inpainted"])
def test_a_mixture_without_its_painted_faces_is_an_error(kind, crops):
    with pytest.raises(DataError, match=f"needs {kind} faces"):
        stream(crops, only(kind), painted=()).make_pair(0)


@pytest.mark.parametrize("kind", ["decoded", "restored", "inpainted"])
def test_held_out_people_have_painted_faces(kind, crops):
    made = stream(crops, only(kind), augmentation=STILL, set_name="validation")
    assert {made.faces.real[number][1].set for number in made.painted_faces.list_originals(kind)} == {"validation"}
    (real, fake), _, _ = made.make_pair(0)
    assert not torch.equal(real, fake)


def test_an_inpainted_face_is_changed_within_its_mask_alone(crops):
    """The cut is large enough for nothing to be interpolated: a pixel outside the mask is the very same one."""
    made = stream(crops, only("inpainted"), augmentation=STILL)
    for seed in range(4):
        blend, _ = made.maker.blend("inpainted", STILL, np.random.default_rng(seed))
        changed = (blend.real != blend.fake).any(axis=2)
        assert changed.any()
        assert not changed[blend.mask == 0].any()
        # The mask is a part of a face, and not the square that was painted.
        assert 0.02 < (blend.mask > 0).mean() < 0.7


def test_a_square_that_was_painted_fades_into_the_picture_around_it(crops):
    made = stream(crops, only("decoded"), augmentation=STILL)
    blends = [made.maker.blend("decoded", STILL, np.random.default_rng(seed))[0] for seed in range(12)]
    squares = stream(crops, only("decoded"), augmentation=STILL, whole=1.0)
    whole = [squares.maker.blend("decoded", STILL, np.random.default_rng(seed))[0] for seed in range(6)]
    assert 0 < sum(any(np.array_equal(one.mask, other.mask) for other in whole) for one in blends) < 12
    for blend in whole:
        assert (blend.mask > 0.99).mean() > 0.1
        rows, columns = (np.flatnonzero(blend.mask.max(axis=axis)) for axis in (1, 0))
        assert abs(np.ptp(rows) - np.ptp(columns)) < 0.25 * np.ptp(rows)
        assert blend.mask[rows[0], columns].max() < 0.2
        outside = blend.mask == 0
        assert np.array_equal(blend.real[outside], blend.fake[outside])


def test_faces_of_another_set_are_not_used(crops):
    train, held = stream(crops), stream(crops, only("subtle"), set_name="validation")
    assert {face.key for _, face in held.faces.real} == {"held.png"}
    assert "held.png" not in {face.key for _, face in train.faces.real + train.faces.generated}


def test_real_from_limits_the_data_sets_that_fakes_are_made_from(crops):
    made = stream(crops, only("subtle"), real_from=["pairs"])
    assert {face.dataset for _, face in made.faces.real} == {"pairs"}


def test_pictures_of_two_caches_are_not_mixed_up(crops, tmp_path):
    # Shards have the same names in every cache, and their first picture is at the same offset.
    folders = []
    for shard in ("00000", "00001", "00002"):
        folder = tmp_path / f"cache {shard}"
        folder.mkdir()
        shutil.copy(crops.folder / f"{shard}.tar", folder / "00000.tar")
        index = (crops.folder / f"{shard}.jsonl").read_text().replace(f'"shard": "{shard}"', '"shard": "00000"')
        (folder / "00000.jsonl").write_text(index)
        folders.append(folder)
    made = RealFakePairStream(folders, [ALL], STILL, size_px=48, margin=0.2)
    rows = made.faces.real + made.faces.generated
    assert len({(face.shard, face.offset) for _, face in rows}) < len(rows)
    for cache, face in rows:
        assert np.array_equal(made.faces.load_picture((cache, face)), cache.read_picture(face))


class Sizes(RealFakePairMaker):
    """Records the pictures that it augments."""

    seen: list[tuple[tuple[int, ...], float]]

    def augment(self, pictures, augmentation, box, rng):
        self.seen.append((pictures[0].shape, max(box[2] - box[0], box[3] - box[1])))
        return super().augment(pictures, augmentation, box, rng)


def test_labelled_pairs_are_resized_to_one_size(crops):
    made = stream(crops, only("labelled"))
    made.maker = Sizes(made.faces, made.painted_faces, size_px=48, margin=0.2)
    found_faces = [face for face in CropCache(crops.folder).read_faces() if face.dataset == "blended"]
    sides = {face.label: max(face.box_px[2] - face.box_px[0], face.box_px[3] - face.box_px[1]) for face in found_faces}
    assert sides["fake"] > 1.5 * sides["real"]
    found = set()
    for number in range(10):
        made.maker.seen = []
        made.make_pair(number)
        (one, side), (other, other_side) = made.maker.seen
        assert side == pytest.approx(other_side)
        assert 0.69 * sides["real"] < side <= sides["real"]
        # Cached crops are squares twice as wide as the face, give or take their rounding.
        assert one[0] == pytest.approx(other[0], abs=3)
        found.add(round(side))
    assert len(found) > 3


def test_shuffling_labels_reverses_about_half_of_the_pairs(crops):
    made, _ = kinds_alone(crops, ALL, shuffle_labels=True)
    pairs = [made.make_pair(number)[0] for number in range(200)]
    assert all(not torch.equal(first, second) for first, second in pairs)
    reversed_pairs = sum(bool(first.any()) for first, _ in pairs)
    # Four standard deviations of a fair coin.
    assert abs(reversed_pairs - 100) <= 4 * np.sqrt(50)


class Kinds(RealFakePairMaker):
    """Records the kinds of its pairs; a real picture is black and a fake is white."""

    drawn: list[str]

    def make(self, kind, augmentation, rng):  # noqa: ARG002 - nothing is made here
        self.drawn.append(kind)
        return [np.full((4, 4, 3), level, np.uint8) for level in (0, 255)], self.make_unknown_mask()


def kinds_alone(crops, *stages, **options):
    """Return a stream that makes no pictures, and the list of the kinds that it draws."""
    made = stream(crops, *stages, **options)
    made.maker = Kinds(made.faces, made.painted_faces, size_px=48, margin=0.2)
    made.maker.drawn = []
    return made, made.maker.drawn


def test_stages_follow_each_other_at_their_numbers_and_the_last_does_not_end(crops):
    made, drawn = kinds_alone(crops, Stage(3, {"textbook": 1.0}), Stage(2, {"swap": 1.0}), Stage(1, {"subtle": 1.0}))
    for number in (0, 2, 3, 4, 5, 6, 1000):
        made.make_pair(number)
    assert drawn == ["textbook", "textbook", "swap", "swap", "subtle", "subtle", "subtle"]


def test_kinds_are_drawn_by_their_weights(crops):
    made, drawn = kinds_alone(crops, Stage(1, {"textbook": 3.0, "swap": 1.0, "subtle": 0.0}))
    for number in range(2000):
        made.make_pair(number)
    # Four standard deviations.
    assert drawn.count("textbook") / 2000 == pytest.approx(0.75, abs=0.04)
    assert "subtle" not in drawn


class Numbers(RealFakePairStream):
    """Yields the numbers of its batches."""

    def make_batch(self, number):
        return number


def numbers(crops, monkeypatch, *, worker=None, workers=1, count=4, **options):
    info = None if worker is None else SimpleNamespace(id=worker, num_workers=workers)
    monkeypatch.setattr(pair_stream, "get_worker_info", lambda: info)
    batches = iter(stream(crops, cls=Numbers, **options))
    return [next(batches) for _ in range(count)]


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("first", [0, 5])
def test_ranks_and_loader_processes_divide_the_batches(crops, monkeypatch, ranks, workers, first):
    of_ranks = []
    for rank in range(ranks):
        parts = [
            numbers(crops, monkeypatch, worker=worker, workers=workers, rank=rank, ranks=ranks, first=first)
            for worker in range(workers)
        ]
        # The loader asks its processes in turn.
        of_ranks.append([number for turn in zip(*parts, strict=True) for number in turn])
        assert of_ranks[-1] == numbers(crops, monkeypatch, rank=rank, ranks=ranks, first=first, count=4 * workers)
    together = [number for step in zip(*of_ranks, strict=True) for number in step]
    assert together == list(range(first * ranks, (first + 4 * workers) * ranks))


def test_a_resumed_run_continues_with_the_next_batch(crops, monkeypatch):
    assert numbers(crops, monkeypatch, count=8)[5:] == numbers(crops, monkeypatch, first=5, count=3)


def without(crops, tmp_path, label):
    folder = tmp_path / "some"
    folder.mkdir()
    for index in crops.folder.glob("*.jsonl"):
        lines = [line for line in index.read_text().splitlines(keepends=True) if f'"label": "{label}"' not in line]
        (folder / index.name).write_text("".join(lines))
        shutil.copy(index.with_suffix(".tar"), folder)
    return SimpleNamespace(folder=folder, painted=())


@pytest.mark.parametrize("kind", ["pairs", "labelled", "originals", "transplant"])
def test_a_mixture_without_its_faces_is_an_error(kind, crops, tmp_path):
    made = stream(without(crops, tmp_path, "fake"), only(kind))
    with pytest.raises(DataError, match="no cache holds"):
        made.make_pair(0)


def test_caches_without_a_real_face_are_an_error(crops, tmp_path):
    with pytest.raises(DataError, match="real face"):
        stream(without(crops, tmp_path, "real"))


def test_originals_pairs_a_fake_with_its_own_original(crops):
    made = stream(crops, only("originals"), augmentation=STILL)
    [(real, fakes)] = made.faces.originals_with_fakes
    assert real[1].key == "one.png"
    assert [face.key for _, face in fakes] == ["two.png"]


def test_a_stage_can_override_the_augmentation(crops):
    dark = STILL.model_copy(update={"cutout": 1.0})
    stages = [Stage(2, {"textbook": 1.0}), Stage(2, {"textbook": 1.0}, dark)]
    alpha_blend = stream(crops, *stages, augmentation=STILL)
    still = stream(crops, only("textbook"), augmentation=STILL)
    assert same(alpha_blend.make_pair(1), still.make_pair(1))
    assert not same(alpha_blend.make_pair(2), still.make_pair(2))
    assert same(alpha_blend.make_pair(1), still.make_pair(1))


@pytest.mark.parametrize(
    ("power", "weights"),
    [(1.0, [1.0, 2.0, 3.0, 4.0]), (0.0, [1 / 6, 2 / 6, 3 / 6, 1.0]), (0.5, [6**-0.5, 2 * 6**-0.5, 3 * 6**-0.5, 2.0])],
    ids=["media alike", "groups alike", "between"],
)
def test_powers_below_one_balance_groups(power, weights):
    found = faces.scale_sums(np.array([1.0, 2.0, 3.0, 4.0]), ["a", "a", "a", "b"], power)
    assert found == pytest.approx(weights)


def test_small_data_sets_can_be_drawn_as_often_as_large_ones(crops):
    def drawn(power):
        made = stream(crops, data_set_power=power)
        names = [made.faces.real[made.faces.draw_real(np.random.default_rng(seed))][1].dataset for seed in range(600)]
        return {name: names.count(name) / 600 for name in set(names)}

    alike = drawn(0.0)
    assert max(alike.values()) - min(alike.values()) < 0.1
    assert max(drawn(1.0).values()) > max(alike.values()) + 0.1
