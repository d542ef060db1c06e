"""How many processors there are for a process to use."""

import os


def available_cores() -> int:
    """
    The processors that this process may run on, at least 1.

    Where the system tells no process its own share, as macOS does not, these are all of the machine.
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
