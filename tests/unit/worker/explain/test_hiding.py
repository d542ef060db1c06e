import numpy as np
import pytest

from worker.explain.hiding import blurred, hide, hottest_area

VALUES = np.random.default_rng(0).random((20, 20), np.float32)
CROP = np.random.default_rng(1).integers(0, 256, (112, 112, 3), np.uint8)


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (0.05, 20), (0.5, 200), (1.0, 400)])
def test_the_hottest_area_has_exactly_its_share_and_the_highest_values(share, count):
    area = hottest_area(VALUES, share)
    assert np.count_nonzero(area) == count
    assert not area.any() or area.all() or VALUES[area].min() > VALUES[~area].max()


def test_equal_values_count_row_by_row():
    assert np.flatnonzero(hottest_area(np.zeros((4, 4), np.float32), 0.25)).tolist() == [0, 1, 2, 3]


def test_hiding_blurs_the_area_and_leaves_what_is_far_from_it():
    area = np.zeros((112, 112), np.bool_)
    area[30:70, 30:70] = True
    hidden = hide(CROP, area)
    assert np.array_equal(hidden[90:], CROP[90:])
    assert np.abs(hidden[45:55, 45:55] - blurred(CROP)[45:55, 45:55]).max() <= 0.51
    assert hidden[40:60, 40:60].std() < 0.2 * CROP.std()


def test_another_fill_is_shown_where_it_is_given():
    area = np.ones((112, 112), np.bool_)
    assert np.all(hide(CROP, area, np.full(CROP.shape, 300.0, np.float32)) == 255)
    assert np.array_equal(hide(CROP, ~area), CROP)
