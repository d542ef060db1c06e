"""The number of cores that a process can use."""

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

CONTROL_GROUPS: Final = Path("/sys/fs/cgroup")
OWN_GROUPS: Final = Path("/proc/self/cgroup")
"""Where Linux has control groups, and where it says in which ones a process is (cgroups(7))."""


def available_cores() -> int:
    """
    Return the number of cores that this process may use, at least 1.

    It is the number of those that it may run on, or less where its container or service is limited to less processor
    time: more threads would only be stopped in turn. A part of a core counts as one. On systems without CPU affinity,
    such as macOS, it is the number of all cores.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min([cores, *_find_quotas()])))


def _find_quotas() -> Iterator[float]:
    """Yield the limits of processor time of this process's control group and of those around it, in cores."""
    try:
        lines = OWN_GROUPS.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            top = CONTROL_GROUPS
        elif "cpu" in controllers.split(","):
            top = CONTROL_GROUPS / "cpu"
        else:
            continue
        # A container may see its own group as the top, and the path is then none that it has.
        group = top / path.lstrip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(top):
                with contextlib.suppress(OSError, ValueError):
                    yield _read_version_1(folder) if controllers else _read_version_2(folder)


def _read_version_1(folder: Path) -> float:
    quota_us = int((folder / "cpu.cfs_quota_us").read_text())
    return quota_us / int((folder / "cpu.cfs_period_us").read_text()) if quota_us > 0 else math.inf


def _read_version_2(folder: Path) -> float:
    quota_us, period_us = (folder / "cpu.max").read_text().split()
    return math.inf if quota_us == "max" else int(quota_us) / int(period_us)
