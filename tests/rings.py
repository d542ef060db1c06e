"""
The assignment of tests to rings and of files to processes.

Every test is in one of three rings, which are marks of pytest: ``push``, ``merge`` and ``nightly``. A mark on the test
itself decides; without one, the latest ring that its fixtures (``NEEDS``) or its place (``PLACES``) ask for, or
``push``. docs/testing.md says what each ring is for.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import pytest
from xdist.scheduler import LoadScopeScheduling

from worker.cores import available_cores

ROOT: Final = Path(__file__).resolve().parents[1]
RINGS: Final = ("push", "merge", "nightly")
PLACES: Final = {
    "tests/e2e/test_typescript.py": "merge",
    "tests/e2e/test_upgrade.py": "merge",
    "tests/e2e/test_wheels.py": "merge",
    "tests/browser": "nightly",
    "tests/faults": "nightly",
    "tests/helm": "merge",
    "tests/images": "merge",
    "tests/load": "nightly",
    "tests/mutants": "nightly",
    "tests/nodes": "merge",
}
"""File or folder → ring of its tests."""
NEEDS: Final = {"s3_server": "merge"}
"""Fixture → ring of the tests that use it. The S3 server is built by Go, which a push does not wait for."""

_TRAINING: Final = "tests/unit/worker/training"
GROUPS: Final = {
    "stack": (
        *("tests/e2e/test_crashes.py", "tests/e2e/test_service.py", "tests/e2e/test_command_line.py"),
        *("tests/e2e/test_backup.py", "tests/e2e/test_benchmark.py", "tests/e2e/test_reuse.py"),
        *("tests/e2e/test_reports.py", "tests/e2e/test_evidence.py", "tests/e2e/test_explanations.py"),
        *("tests/e2e/test_streams.py", "tests/e2e/test_clients.py", "tests/e2e/test_mcp.py"),
        "tests/e2e/test_integrations.py",
        *("tests/e2e/test_batches.py", "tests/e2e/test_examples.py", "tests/e2e/test_typescript.py"),
        "tests/e2e/test_webhooks.py",
        *("tests/integration/api/test_http.py", "tests/integration/api/test_bodies.py"),
        *("tests/integration/api/test_memory.py", "tests/integration/api/test_openapi.py"),
        "tests/integration/test_audit.py",
    ),
    "crops": (
        *(f"{_TRAINING}/fakes/test_pair_stream.py", f"{_TRAINING}/fakes/test_painting.py"),
        *(f"{_TRAINING}/data/test_cache.py", f"{_TRAINING}/evaluation/test_pseudo_fakes.py"),
        f"{_TRAINING}/evaluation/test_contact_sheet.py",
    ),
    "judged": (
        *(f"{_TRAINING}/evaluation/test_evaluate.py", f"{_TRAINING}/evaluation/test_report.py"),
        *(f"{_TRAINING}/evaluation/test_robustness.py", f"{_TRAINING}/scoring/test_scored_media.py"),
        f"{_TRAINING}/evaluation/test_heat_maps.py",
    ),
    "s3": (
        *("tests/integration/api/test_direct.py", "tests/unit/api/test_storage.py"),
        *("tests/unit/shared/storage/test_protocol.py", "tests/unit/shared/storage/test_s3.py"),
    ),
}
"""Name → files that share one process, because every process makes the expensive fixture of that name for itself."""
FIRST: Final = ("stack", f"{_TRAINING}/fitting/test_trainer.py", "crops", "judged", "tests/nodes/test_nodes.py")
"""The longest groups, which start first, so that short ones fill the gaps at the end."""

_GROUP_OF: Final = {file: group for group, files in GROUPS.items() for file in files}


class Scheduler(LoadScopeScheduling):
    """
    Scheduler that gives whole groups to processes, in the order of collection.

    xdist's own ``--dist loadgroup`` writes groups into the names of tests. From pytest 9.2 on these are ignored without
    a warning, and the tests of a group are spread over all processes.
    """

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid.partition("::")[0])


def group_of(file: str) -> str:
    """Return the group of *file*: a name in ``GROUPS``, or the file itself."""
    return _GROUP_OF.get(file, file)


def arrange(items: list[pytest.Item], *, is_spread: bool) -> None:
    """Mark each of *items* with its ring; with several processes, sort the longest groups to the front."""
    for item in items:
        if not any(item.get_closest_marker(ring) for ring in RINGS):
            item.add_marker(_ring(item))
    if is_spread:
        order = {name: number for number, name in enumerate(FIRST)}
        items.sort(key=lambda item: order.get(group_of(file_of(item)), len(order)))


def bound_threads(processes: int) -> None:
    """Limit the threads of libraries, in this process and those that it starts, to a share of the cores for each."""
    share = max(1, available_cores() // processes)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"):
        os.environ.setdefault(name, str(share))


def file_of(item: Any) -> str:
    """Return the file of a test, relative to the root of the project."""
    return str(item.path.relative_to(ROOT).as_posix())


def fixtures_of(item: Any) -> Iterable[str]:
    """Return the names of the fixtures that a test uses."""
    return getattr(item, "fixturenames", ())


def _ring(item: pytest.Item) -> str:
    needed = [ring for fixture, ring in NEEDS.items() if fixture in fixtures_of(item)]
    placed = [ring for place, ring in PLACES.items() if f"{file_of(item)}/".startswith(f"{place}/")]
    return max([*needed, *placed, RINGS[0]], key=RINGS.index)
