"""
Which ring each test is in, and which tests share a process; nothing else says so but a mark on a single test.

Every test is in one of three rings, which are marks of pytest: ``push``, ``merge`` and ``nightly``. A mark on the test
decides; otherwise what it needs; otherwise where it is; ``push`` otherwise. docs/testing.md says what each is for.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[1]
RINGS: Final = ("push", "merge", "nightly")
PLACES: Final = {
    "tests/e2e/test_upgrade.py": "merge",
    "tests/faults": "nightly",
    "tests/helm": "merge",
    "tests/images": "merge",
    "tests/load": "nightly",
    "tests/mutants": "nightly",
    "tests/nodes": "merge",
}
"""File or folder → ring of the tests in it."""
NEEDS: Final = {"s3_server": "merge"}
"""Fixture → ring of the tests that use it. The S3 server is built by Go, which a push does not wait for."""
GROUPS: Final = {"stack": "stack", "s3_server": "s3", "crops": "crops"}
"""Fixture of a whole session that is dear → name of the group of tests that use it, which share one process."""
FIRST: Final = ("stack", "tests/unit/worker/training/fitting/test_train.py", "crops")
"""Groups that take longest, so that the others fill the gaps at the end."""


def arrange(items: list[pytest.Item], *, is_spread: bool) -> None:
    """
    Mark each of *items* with its ring and with its group, and order them for several processes if there are.

    A group is a file, unless it has a name of its own: fixtures of a module are made once then, and tests of a file
    that share something beyond their process, such as ports, do not meet.
    """
    for item in items:
        if not any(item.get_closest_marker(ring) for ring in RINGS):
            item.add_marker(_ring(item))
        if not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(_group(item)))
    if is_spread:
        order = {name: number for number, name in enumerate(FIRST)}
        items.sort(key=lambda item: order.get(_group(item), len(order)))


def bound_threads(processes: int) -> None:
    """Have libraries in this process and in those that it starts use its share of the cores, and no more."""
    share = max(1, len(os.sched_getaffinity(0)) // processes)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"):
        os.environ.setdefault(name, str(share))


def _ring(item: pytest.Item) -> str:
    needed = [ring for fixture, ring in NEEDS.items() if fixture in _fixtures(item)]
    placed = [ring for place, ring in PLACES.items() if f"{_file(item)}/".startswith(f"{place}/")]
    return max([*needed, *placed, RINGS[0]], key=RINGS.index)


def _group(item: pytest.Item) -> str:
    return next((group for fixture, group in GROUPS.items() if fixture in _fixtures(item)), _file(item))


def _file(item: pytest.Item) -> str:
    return item.path.relative_to(ROOT).as_posix()


def _fixtures(item: pytest.Item) -> Iterable[str]:
    return getattr(item, "fixturenames", ())
