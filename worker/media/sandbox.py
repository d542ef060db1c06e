"""
Isolation of decoders beyond resource limits: they end with their worker, gain no privileges and have no network.

It uses util-linux's ``setpriv`` and ``unshare``, which every Linux distribution has. Running code between fork and exec
is unsafe in a process with threads, and Python as a launcher would take ten times as long. What the system does not
support is left out; ``Sandbox.describe`` lists what is active.
"""

import shutil
import subprocess
from dataclasses import dataclass
from functools import lru_cache

TRIAL_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A prefix for command lines, and the protections that it gives."""

    prefix: tuple[str, ...] = ()
    has_no_network: bool = False
    dies_with_parent: bool = False
    """
    Whether the child ends with its parent, or exactly: with the thread that started it, which must outlive the child.
    If the worker is killed in the few milliseconds before ``setpriv`` takes effect, the child ends at its first write
    instead, since nobody reads the pipe.
    """

    def describe(self) -> str:
        """Describe the active protections, for the log."""
        parts = ["no new privileges, ends with its worker"] if self.dies_with_parent else []
        parts += ["no network"] if self.has_no_network else []
        return ", ".join(parts) or "limits alone"


@lru_cache(maxsize=1)
def sandbox() -> Sandbox:
    """Return the strictest sandbox that works on this system; it is determined once per process."""
    return find_sandbox()


def find_sandbox() -> Sandbox:
    """Try the sandboxes, the strictest first; return the first one that works."""
    true, setpriv, unshare = (shutil.which(name) for name in ("true", "setpriv", "unshare"))
    if true is None or setpriv is None:
        return Sandbox()
    bound = (setpriv, "--pdeathsig", "KILL", "--no-new-privs")
    candidates = [Sandbox(bound, dies_with_parent=True)]
    if unshare is not None:
        # Creating a network namespace needs root, or a user namespace where the system allows those.
        for options in (("--map-root-user", "--net"), ("--net",)):
            candidates.insert(0, Sandbox((unshare, *options, *bound), has_no_network=True, dies_with_parent=True))
    return next((candidate for candidate in candidates if _is_available(candidate, true)), Sandbox())


def _is_available(candidate: Sandbox, true: str) -> bool:
    try:
        done = subprocess.run([*candidate.prefix, true], capture_output=True, timeout=TRIAL_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
