"""What ``tests.rings`` names is there: a file that moved would fall back into the ring of a push unseen."""

import pytest

from tests.rings import FIRST, GROUPS, NEEDS, PLACES, RINGS, ROOT


@pytest.mark.parametrize("name", [*PLACES, *(name for name in FIRST if "/" in name)])
def test_a_place_is_there(name):
    assert (ROOT / name).exists()


def test_rings_and_groups_are_ones_that_there_are(request):
    known = {line.partition(":")[0] for line in request.config.getini("markers")}
    assert set(RINGS) <= known
    assert {*PLACES.values(), *NEEDS.values()} <= set(RINGS)
    assert {name for name in FIRST if "/" not in name} <= set(GROUPS.values())


def test_a_test_is_in_one_ring_and_one_group(request):
    for item in request.session.items:
        assert sum(item.get_closest_marker(ring) is not None for ring in RINGS) == 1, item.nodeid
        assert item.get_closest_marker("xdist_group") is not None
