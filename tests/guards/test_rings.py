"""The assignments in ``tests.rings`` are of existing files: one that moved would fall back into the ring of a push."""

import os

import pytest

from tests.rings import FIRST, GROUPS, NEEDS, PLACES, RINGS, ROOT, file_of, fixtures_of, group_of

FILES = [name for names in GROUPS.values() for name in names]


def test_every_file_and_folder_that_is_assigned_exists():
    names = [*PLACES, *FILES, *(name for name in FIRST if "/" in name)]
    assert [name for name in names if not (ROOT / name).exists()] == []


def test_assignments_name_existing_rings_and_groups(request):
    known = {line.partition(":")[0] for line in request.config.getini("markers")}
    assert set(RINGS) <= known
    assert {*PLACES.values(), *NEEDS.values()} <= set(RINGS)
    assert {name for name in FIRST if "/" not in name} <= set(GROUPS)
    assert len(set(FILES)) == len(FILES)


def test_every_test_is_in_one_ring_and_in_the_group_of_its_fixture(request):
    for item in request.session.items:
        [ring] = [ring for ring in RINGS if item.get_closest_marker(ring)]
        for fixture in {"stack", "crops", "judged"} & set(fixtures_of(item)) if ring == "push" else ():
            assert group_of(file_of(item)) == fixture, item.nodeid


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="there is one process")
@pytest.mark.parametrize("number", range(3))
def test_the_tests_of_a_group_share_one_process(number, tmp_path_factory):
    """Each run leaves the name of its process in a shared folder: a group in two processes would leave two names."""
    folder = tmp_path_factory.getbasetemp().parent / "processes-of-one-group"
    folder.mkdir(exist_ok=True)
    (folder / os.environ["PYTEST_XDIST_WORKER"]).touch()
    assert len(list(folder.iterdir())) == 1, number
