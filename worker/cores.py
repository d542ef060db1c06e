"""The number of cores that a process can use."""

import os


def available_cores() -> int:
    """
    Return the number of cores that this process may run on, at least 1.

    On systems without CPU affinity, such as macOS, it is the number of all cores.
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
