import cv2
import numpy as np
import pytest

from tests.unit.worker.training.conftest import ASTRONAUT, HOPPER
from worker.detection.faces import crop_face
from worker.training.fakes.augmentation import Augmentation, draw_colour_map, make_colour_change
from worker.training.fakes.transcoding import make_h264, make_jpeg

CHANCES = ("flip", "rescale", "blur", "noise", "sharpen", "jpeg", "h264", "colour", "cutout")
NONE = Augmentation(jitter=0.0, **dict.fromkeys(CHANCES, 0.0))


def apply(augmentation, *portraits, seed=0, size_px=96, box=None):
    rng = np.random.default_rng(seed)
    pictures = [portrait.picture for portrait in portraits]
    return augmentation.apply(pictures, box or portraits[0].box, rng, size_px=size_px, margin=0.2)


def loss(picture, changed):
    return float(np.abs(picture.astype(float) - changed).mean())


@pytest.mark.parametrize("chance", [*CHANCES, "chain"])
def test_identical_pictures_are_changed_identically_by_every_change(chance):
    (plain,) = apply(NONE, HOPPER)
    certain = NONE.model_copy(update={chance: 1.0, "jitter": 0.06})
    for seed in range(2):
        one, other = apply(certain, HOPPER, HOPPER, seed=seed)
        assert np.array_equal(one, other)
        assert not np.array_equal(one, plain)


def test_identical_pictures_are_changed_identically_by_changes_together():
    certain = Augmentation(**dict.fromkeys(("flip", "rescale", "blur", "noise", "sharpen", "colour", "cutout"), 1.0))
    one, other = apply(certain, ASTRONAUT, ASTRONAUT)
    assert np.array_equal(one, other)


@pytest.mark.parametrize("size_px", [64, 97, 160])
@pytest.mark.parametrize("box", [ASTRONAUT.box, (-20.0, -30.0, 60.0, 50.0), (250, 250, 300, 300), (100, 100, 112, 115)])
def test_crops_are_uint8_of_the_requested_size(size_px, box):
    for chances in (("jpeg", "flip"), ("h264", "colour", "cutout"), ("chain",)):
        certain = Augmentation(**dict.fromkeys(chances, 1.0))
        for changed in apply(certain, ASTRONAUT, HOPPER, size_px=size_px, box=box):
            assert changed.shape == (size_px, size_px, 3)
            assert changed.dtype == np.uint8
            assert changed.flags["C_CONTIGUOUS"]


def test_without_changes_the_crop_equals_the_serving_crop():
    (crop,) = apply(NONE, ASTRONAUT, size_px=155)
    # The native square is 155 px; scaling it to its own size changes nothing.
    assert np.array_equal(crop, crop_face(ASTRONAUT.picture, ASTRONAUT.box, size_px=155, margin=0.2))


def test_pictures_are_not_changed_in_place():
    before = ASTRONAUT.picture.copy()
    apply(Augmentation(**dict.fromkeys(set(CHANCES) - {"h264"}, 1.0)), ASTRONAUT)
    apply(NONE, ASTRONAUT, size_px=155)
    assert np.array_equal(ASTRONAUT.picture, before)


def test_jitter_moves_and_scales_the_crop():
    crops = {apply(NONE.model_copy(update={"jitter": 0.1}), ASTRONAUT, seed=seed)[0].tobytes() for seed in range(10)}
    assert len(crops) == 10


@pytest.mark.parametrize("chance", CHANCES)
def test_each_change_is_made_with_its_probability(chance):
    (plain,) = apply(NONE, ASTRONAUT)

    def share(value, count):
        changed = [apply(NONE.model_copy(update={chance: value}), ASTRONAUT, seed=seed)[0] for seed in range(count)]
        return np.mean([not np.array_equal(plain, picture) for picture in changed])

    assert share(0.0, 1) == 0.0
    # Rescaling by hardly anything, and recolouring by hardly anything, may change nothing.
    assert share(1.0, 6) > 0.8
    assert 0.1 < share(0.5, 12) < 0.9


def test_a_flip_is_the_mirror_image():
    (plain,), (flipped,) = apply(NONE, ASTRONAUT), apply(NONE.model_copy(update={"flip": 1.0}), ASTRONAUT)
    assert np.array_equal(flipped, plain[:, ::-1])


def test_blur_and_rescaling_remove_detail_and_noise_and_sharpening_add_it():
    def detail(chance, seed):
        changed = NONE if chance is None else NONE.model_copy(update={chance: 1.0})
        return cv2.Laplacian(apply(changed, HOPPER, seed=seed)[0], cv2.CV_32F).std()

    for seed in range(3):
        plain = detail(None, seed)
        assert detail("blur", seed) < plain
        assert detail("noise", seed) > plain
        assert detail("sharpen", seed) > plain
    rescaled = [detail("rescale", seed) for seed in range(4)]
    assert np.mean(rescaled) < detail(None, 0)


def test_a_cutout_is_one_grey_rectangle_of_bounded_size():
    (plain,) = apply(NONE, ASTRONAUT)
    places = set()
    for seed in range(8):
        (cut,) = apply(NONE.model_copy(update={"cutout": 1.0}), ASTRONAUT, seed=seed)
        changed = np.argwhere((cut != plain).any(axis=2))
        (top, left), (bottom, right) = changed.min(axis=0), changed.max(axis=0)
        part = cut[top : bottom + 1, left : right + 1]
        assert part.min() == part.max()
        assert max(part.shape[:2]) <= 0.35 * 96
        places.add((top, left))
    assert len(places) > 4


def recoloured(value, seed):
    picture = np.full((8, 8, 3), value, np.uint8)
    return make_colour_change(draw_colour_map(np.random.default_rng(seed)))(picture)[0, 0].astype(float)


def test_brightness_contrast_and_fancy_pca_are_drawn():
    offsets, contrasts = [], []
    for seed in range(60):
        dark, grey, light = (recoloured(value, seed) for value in (96, 128, 160))
        offsets.append(grey - 128)
        contrasts.append((light - dark).mean() / 64)
    offsets = np.array(offsets)
    # Brightness moves all channels by up to 20, fancy PCA adds its own 5.5 standard deviations to all of them …
    assert 10 < np.abs(offsets.mean(axis=1)).max() < 20 + 4 * 6
    # … and, as greys stay grey under the other changes, is all that moves them apart.
    assert np.ptp(offsets, axis=1).max() >= 1
    assert min(contrasts) < 0.87
    assert max(contrasts) > 1.13


def test_saturation_and_hue_are_drawn():
    saturations, hues = [], []
    for seed in range(60):
        red = make_colour_change(draw_colour_map(np.random.default_rng(seed)))(
            np.full((4, 4, 3), (150, 110, 110), np.uint8)
        )[0, 0]
        saturations.append(float(np.ptp(red.astype(float))))
        hues.append(float(red[1]) - float(red[2]))
    assert min(saturations) < 32
    assert max(saturations) > 46
    assert min(hues) < -2
    assert max(hues) > 2


def test_stronger_jpeg_loses_more():
    lost = [loss(ASTRONAUT.picture, make_jpeg(quality)(ASTRONAUT.picture)) for quality in (95, 80, 60, 45, 30)]
    assert lost == sorted(lost)
    assert lost[-1] > 1.5 * lost[0] > 0


def test_chroma_at_half_resolution_loses_more_colour():
    picture = np.random.default_rng(1).integers(0, 255, (64, 64, 3), np.uint8)

    def lost(coarse):
        planes = [cv2.cvtColor(p, cv2.COLOR_RGB2YCrCb) for p in (picture, make_jpeg(90, coarse_chroma=coarse)(picture))]
        return loss(planes[0][..., 1:], planes[1][..., 1:])

    assert lost(coarse=True) > 2 * lost(coarse=False)


def test_h264_at_a_rising_rate_factor_loses_more():
    lost = [loss(ASTRONAUT.picture, make_h264(crf)(ASTRONAUT.picture)) for crf in (18, 24, 30, 36)]
    assert lost == sorted(lost)
    assert lost[-1] > 2 * lost[0] > 0


@pytest.mark.parametrize("shape", [(64, 64), (33, 71), (155, 154)])
def test_h264_returns_the_picture_and_not_the_previous_frame(shape):
    picture = cv2.resize(HOPPER.picture, shape[::-1], interpolation=cv2.INTER_AREA)
    changed = make_h264(18)(picture)
    assert changed.shape == picture.shape
    assert loss(picture, changed) < loss(np.roll(picture, 1, axis=1), changed)


def test_every_quality_rate_and_chroma_sampling_is_reached():
    augmentation = Augmentation(jpeg=0.7, h264=0.3)
    drawn = [augmentation.draw_native(np.random.default_rng(seed)) for seed in range(1500)]
    jpegs = [compression for changes in drawn for compression in changes.jpegs]
    assert {quality for quality, _ in jpegs} == set(range(30, 96))
    assert {coarse for _, coarse in jpegs} == {False, True}
    assert {changes.crf for changes in drawn} == {None, *range(18, 37)}
    # Some are compressed as JPEG twice; none both as JPEG and as H.264.
    assert {len(changes.jpegs) for changes in drawn} == {0, 1, 2}
    assert all((changes.crf is None) == bool(changes.jpegs) for changes in drawn)


def test_the_compression_that_was_drawn_is_applied(monkeypatch):
    applied = []

    def record(quality, *, coarse_chroma):
        applied.append((quality, coarse_chroma))
        return lambda picture: picture

    monkeypatch.setattr("worker.training.fakes.augmentation.make_jpeg", record)
    certain = NONE.model_copy(update={"jpeg": 1.0})
    apply(certain, ASTRONAUT, seed=3)
    rng = np.random.default_rng(3)
    rng.random(4)  # The position and the mirroring of the crop are drawn first.
    assert applied == certain.draw_native(rng).jpegs


def test_a_chain_replaces_all_other_changes_at_native_size():
    chained = NONE.model_copy(update={"chain": 1.0})
    others = chained.model_copy(update=dict.fromkeys(("rescale", "blur", "noise", "sharpen", "jpeg"), 1.0))
    changed = apply(chained, ASTRONAUT)
    assert not np.array_equal(changed, apply(NONE, ASTRONAUT))
    assert np.array_equal(changed, apply(others, ASTRONAUT))


def test_without_chains_no_random_number_is_drawn_for_them():
    drawn, counted = np.random.default_rng(3), np.random.default_rng(3)
    NONE.apply([HOPPER.picture], HOPPER.box, drawn, size_px=32, margin=0.2)
    # Four for position and mirroring, four for changes, one each for compression, colour and cutout.
    counted.random(11)
    assert drawn.random() == counted.random()
