import cv2
import numpy as np
import pytest

from tests.unit.worker.training.conftest import ASTRONAUT, HOPPER
from worker.training.fakes.blending import (
    LANDMARKS,
    OUTLINES,
    blend_in_style,
    blend_poisson,
    face_mask,
    fit_affine,
    inner_face_mask,
    map_outline,
    match_colours,
    self_blend,
    swap,
)

STYLES = ("textbook", "subtle")
SEEDS = range(4)
SMALL = ASTRONAUT.scaled(0.25)


def blend(kind, seed, portrait=ASTRONAUT, donor=HOPPER):
    rng = np.random.default_rng(seed)
    if kind in STYLES:
        return self_blend(portrait.picture, portrait.landmarks, rng, kind)
    source_is = {"swap": "real", "painted": "painted", "transplant": "swapped"}[kind]
    return swap(portrait.picture, portrait.landmarks, donor.picture, donor.landmarks, rng, source_is=source_is)


KINDS = pytest.mark.parametrize("kind", [*STYLES, "swap", "painted", "transplant"])


@pytest.mark.parametrize("style", STYLES)
def test_a_mask_is_soft_and_between_0_and_1(style):
    for seed in SEEDS:
        mask = face_mask((280, 260), ASTRONAUT.landmarks, np.random.default_rng(seed), style)
        assert mask.shape == (280, 260)
        assert mask.dtype == np.float32
        assert mask.min() >= 0.0
        assert 0.49 < mask.max() <= 1.0
        # Nowhere does it rise by more than a part of its height from a pixel to the next.
        assert max(np.abs(np.diff(mask, axis=0)).max(), np.abs(np.diff(mask, axis=1)).max()) < 0.34 * mask.max()


@pytest.mark.parametrize("style", STYLES)
def test_a_mask_covers_the_mouth_and_leaves_the_corners(style):
    nose, mouth = ASTRONAUT.landmarks[2], np.mean(ASTRONAUT.landmarks[3:], axis=0)
    for seed in SEEDS:
        mask = face_mask((280, 280), ASTRONAUT.landmarks, np.random.default_rng(seed), style)
        x, y = ((np.array(nose) + mouth) / 2).round().astype(int)
        assert mask[y, x] > 0.6 * mask.max()
        assert mask[[0, 0, -1, -1], [0, -1, 0, -1]].max() < 0.02


def test_masks_are_all_different():
    masks = {
        face_mask((64, 64), ASTRONAUT.scaled(64 / 280).landmarks, np.random.default_rng(s), "subtle").tobytes()
        for s in SEEDS
    }
    assert len(masks) == len(SEEDS)


@KINDS
def test_a_fake_equals_the_real_picture_where_its_mask_is_0_and_hardly_differs_where_it_is_faint(kind):
    outside = 0
    for seed in SEEDS:
        made = blend(kind, seed)
        assert made.fake.shape == made.real.shape == (*made.mask.shape, 3) == ASTRONAUT.picture.shape
        assert made.fake.dtype == made.real.dtype == np.uint8
        clear = made.mask == 0.0
        outside += clear.sum()
        assert np.array_equal(made.fake[clear], made.real[clear])
        assert not np.array_equal(made.fake, made.real)
        # A smoothed seam reaches a little further than what is pasted in.
        faint = made.mask < 1e-5
        assert cv2.absdiff(made.fake, made.real)[faint].max() <= 1
    assert outside > len(SEEDS) * 280 * 280 / 10


@pytest.mark.parametrize("kind", ["subtle", "swap", "transplant"])
def test_the_real_picture_is_untouched_where_only_the_source_is_changed(kind):
    for seed in SEEDS:
        assert np.array_equal(blend(kind, seed).real, ASTRONAUT.picture)


def test_textbook_changes_the_target_about_as_often_as_the_source():
    touched = sum(not np.array_equal(blend("textbook", seed, SMALL).real, SMALL.picture) for seed in range(40))
    # Four standard deviations of a fair coin.
    assert abs(touched - 20) <= 4 * np.sqrt(10)


@KINDS
def test_a_blend_follows_from_its_seed(kind):
    before = ASTRONAUT.picture.copy()
    first, again, other = blend(kind, 5), blend(kind, 5), blend(kind, 6)
    assert np.array_equal(first.fake, again.fake)
    assert np.array_equal(first.mask, again.mask)
    assert not np.array_equal(first.fake, other.fake)
    assert np.array_equal(ASTRONAUT.picture, before)


@pytest.mark.parametrize("kind", [*STYLES, "swap"])
@pytest.mark.parametrize("shift", [(-120, 0), (150, 20), (0, -110), (30, 150), (-300, -300)], ids=str)
def test_landmarks_at_or_beyond_the_border_are_accepted(kind, shift):
    landmarks = [(x + shift[0], y + shift[1]) for x, y in ASTRONAUT.landmarks]
    rng = np.random.default_rng(0)
    if kind in STYLES:
        made = self_blend(ASTRONAUT.picture, landmarks, rng, kind)
    else:
        made = swap(ASTRONAUT.picture, landmarks, HOPPER.picture, HOPPER.landmarks, rng)
    assert made.fake.shape == ASTRONAUT.picture.shape
    assert np.isfinite(made.mask).all()


@KINDS
def test_a_face_of_40_px_is_blended_too(kind):
    # The astronaut's face is 89 px wide, and 40 px in a crop with the cache's margin is a picture of 80.
    small = ASTRONAUT.scaled(40 / 89)
    part = small.picture[10:90, 15:95]
    landmarks = [(x - 15, y - 10) for x, y in small.landmarks]
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        if kind in STYLES:
            made = self_blend(part, landmarks, rng, kind)
        else:
            made = swap(part, landmarks, HOPPER.picture, HOPPER.landmarks, rng)
        assert made.fake.shape == (80, 80, 3)
        assert cv2.absdiff(made.fake, made.real).max() > 2


def spotted(portrait):
    """A dark picture with a bright spot at every landmark."""
    picture = np.full_like(portrait.picture, 20)
    for x, y in portrait.landmarks:
        cv2.circle(picture, (round(x), round(y)), 7, (240, 240, 240), -1, cv2.LINE_AA)
    return picture


def test_a_swap_aligns_the_landmarks_of_source_and_target():
    unit = np.hypot(*np.subtract(ASTRONAUT.landmarks[1], ASTRONAUT.landmarks[0]))
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        made = swap(np.full_like(ASTRONAUT.picture, 60), ASTRONAUT.landmarks, spotted(HOPPER), HOPPER.landmarks, rng)
        bright = made.fake.astype(float).mean(axis=2)
        for x, y in ASTRONAUT.landmarks[2:]:
            reach = round(0.4 * unit)
            left, top = round(x) - reach, round(y) - reach
            window = bright[top : top + 2 * reach + 1, left : left + 2 * reach + 1]
            weights = np.clip(window - np.percentile(window, 80), 0, None)
            rows, columns = np.indices(window.shape)
            found = (left + (weights * columns).sum() / weights.sum(), top + (weights * rows).sum() / weights.sum())
            # Two faces are no affine maps of each other, so a rest of some pixels is left.
            assert np.hypot(found[0] - x, found[1] - y) < 0.25 * unit


@pytest.mark.parametrize("similar", [True, False])
def test_the_fit_finds_a_map_that_exists(similar):
    wanted = LANDMARKS @ np.array([[12.0, -5.0], [5.0, 12.0]], np.float32) + np.array([40.0, 90.0], np.float32)
    matrix = fit_affine(LANDMARKS, wanted, similar=similar)
    assert np.allclose(LANDMARKS @ matrix[:, :2].T + matrix[:, 2], wanted, atol=1e-3)


def test_a_similar_fit_does_not_shear():
    matrix = fit_affine(np.float32(HOPPER.landmarks), np.float32(ASTRONAUT.landmarks), similar=True)
    assert matrix[0, 0] == pytest.approx(matrix[1, 1])
    assert matrix[0, 1] == pytest.approx(-matrix[1, 0])


def turned(angle):
    """Landmarks of the mean face, turned about its upright axis by degrees, the nose standing out by 0.45."""
    turn = np.deg2rad(angle)
    depth = np.array([0.0, 0.0, 0.45, 0.0, 0.0])
    x = LANDMARKS[:, 0] * np.cos(turn) + depth * np.sin(turn)
    return np.column_stack([x, LANDMARKS[:, 1]]) * 50.0 + 140.0


def test_the_outline_of_a_frontal_face_is_symmetric_about_it():
    points = map_outline(OUTLINES["face"], turned(0))
    assert np.allclose(points, OUTLINES["face"] * 50 + 140, atol=0.01)


@pytest.mark.parametrize("angle", [-45, -25, 25, 45])
def test_the_outline_of_a_turned_face_ends_nearer_to_the_nose(angle):
    points = map_outline(OUTLINES["face"], turned(angle)) - 140
    towards, away = (points[:, 0].max(), -points[:, 0].min())[:: 1 if angle > 0 else -1]
    eye = 25 * np.cos(np.deg2rad(angle))
    assert eye < towards < 0.8 * away


@pytest.mark.parametrize("opacity", [0.5, 0.75, 1.0])
def test_a_seam_is_smoothed_where_the_mask_rises_and_not_where_it_is_flat(opacity):
    rng = np.random.default_rng(2)
    target, source = (rng.integers(0, 255, (96, 96, 3), np.uint8) for _ in range(2))
    mask = np.zeros((96, 96), np.float32)
    mask[24:72, 24:72] = 1.0
    mask = cv2.GaussianBlur(mask, (0, 0), 3.0) * np.float32(opacity)
    plain, flat = target + (source.astype(float) - target) * mask[..., None], np.s_[42:54, 42:54]
    smoothed = 0
    for seed in range(12):
        made = blend_in_style(source, target, mask, np.random.default_rng(seed), "subtle")
        assert np.abs(made.fake[flat] - plain[flat]).max() < 3
        smoothed += np.abs(made.fake - plain).max() > 20
    assert 0 < smoothed < 12


def test_swapped_faces_are_opaque():
    for seed in SEEDS:
        assert blend("swap", seed, SMALL).mask.max() == pytest.approx(1.0)


def test_matched_colours_have_the_mean_and_deviation_of_the_target():
    mask = inner_face_mask((280, 280), ASTRONAUT.landmarks)
    rng = np.random.default_rng(1)
    source = cv2.GaussianBlur(rng.integers(60, 190, (280, 280, 3), np.uint8), (0, 0), 1.0)
    target = np.clip(source.astype(float) * (0.8, 0.9, 0.75) + (30, 0, 40), 0, 255).astype(np.uint8)

    def measures(picture):
        mean, deviation = cv2.meanStdDev(cv2.cvtColor(picture, cv2.COLOR_RGB2LAB), mask=np.uint8(mask))
        return np.concatenate([mean, deviation])[:, 0]

    assert np.abs(measures(source) - measures(target)).max() > 5
    assert measures(match_colours(source, target, mask)) == pytest.approx(measures(target), abs=1.0)


def test_colour_matching_limits_the_change_of_deviation():
    mask = np.ones((64, 64), np.float32)
    rng = np.random.default_rng(1)
    flat = rng.integers(124, 132, (64, 64, 1), np.uint8).repeat(3, axis=2)
    loud = rng.integers(0, 255, (64, 64, 1), np.uint8).repeat(3, axis=2)
    assert match_colours(flat, loud, mask).std() == pytest.approx(1.6 * flat.std(), rel=0.15)
    assert match_colours(loud, flat, mask).std() == pytest.approx(0.6 * loud.std(), rel=0.15)


def test_colours_outside_the_mask_do_not_count():
    mask = inner_face_mask((280, 280), ASTRONAUT.landmarks)
    target = ASTRONAUT.picture.copy()
    target[mask == 0] = (0, 255, 0)
    matched = match_colours(HOPPER.picture, target, mask)
    assert np.array_equal(matched, match_colours(HOPPER.picture, ASTRONAUT.picture, mask))


def test_poisson_blending_changes_nothing_where_the_mask_is_0():
    for seed in SEEDS:
        mask = face_mask((280, 280), ASTRONAUT.landmarks, np.random.default_rng(seed), "subtle")
        seam = blend_poisson(HOPPER.picture, ASTRONAUT.picture, mask)
        assert np.array_equal(seam[mask == 0], ASTRONAUT.picture[mask == 0])
        assert cv2.absdiff(seam, ASTRONAUT.picture).max() > 30


def test_poisson_blending_is_skipped_for_small_or_border_masks():
    mask = np.zeros((280, 280), np.float32)
    mask[100:110, 100:110] = 1.0
    assert blend_poisson(HOPPER.picture, ASTRONAUT.picture, mask) is None
