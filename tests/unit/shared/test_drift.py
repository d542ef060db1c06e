import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.drift import BINS, bin_shares, population_stability_index

SCORES = st.lists(st.floats(0, 1), min_size=1, max_size=200)


def test_scores_are_binned_in_tenths_and_one_is_in_the_last_bin():
    assert bin_shares([0.0, 0.05, 0.1, 0.95, 1.0]) == [0.4, 0.2, 0, 0, 0, 0, 0, 0, 0, 0.4]
    assert bin_shares([]) == [0.0] * BINS


def test_the_index_equals_the_published_formula():
    # Two bins, computed by hand: 0.2 ln(0.7 / 0.5) + -0.2 ln(0.3 / 0.5).
    assert population_stability_index([0.7, 0.3], [0.5, 0.5]) == pytest.approx(0.2 * math.log(0.7 / 0.3))


@given(SCORES, SCORES)
def test_the_index_is_zero_for_equal_shares_finite_and_symmetric(ours, theirs):
    now, then = bin_shares(ours), bin_shares(theirs)
    assert population_stability_index(now, now) == 0
    index = population_stability_index(now, then)
    assert 0 <= index < 100
    assert index == pytest.approx(population_stability_index(then, now))


def test_different_numbers_of_bins_are_refused():
    with pytest.raises(ValueError, match="2 bins"):
        population_stability_index([1.0, 0.0], [1.0] * 3)
