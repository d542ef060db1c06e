"""
What decoders are kept from beyond limits: outliving their worker, gaining rights, and the network.

By util-linux's ``setpriv`` and ``unshare``, which every Linux distribution has: code between fork and exec would be
unsafe in a process with threads, and an interpreter as launcher would take ten times as long. What a system does not
offer is left out; ``Sandbox.describe`` tells what is in force.
"""

import shutil
import subprocess
from dataclasses import dataclass
from functools import lru_cache

TRIAL_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Sandbox:
    """Goes before a command."""

    prefix: tuple[str, ...] = ()
    has_no_network: bool = False
    dies_with_parent: bool = False
    """
    With the thread that started it, to be exact: it must not end before the child does. A worker that is killed in the
    few milliseconds before ``setpriv`` has asked for the signal leaves a child that ends at its first write instead,
    for nobody reads its pipe.
    """

    def describe(self) -> str:
        """For the log."""
        parts = ["no new privileges, ends with its worker"] if self.dies_with_parent else []
        parts += ["no network"] if self.has_no_network else []
        return ", ".join(parts) or "limits alone"


@lru_cache(maxsize=1)
def sandbox() -> Sandbox:
    """The strictest that works here, found out by trying; once a process."""
    true, setpriv, unshare = (shutil.which(name) for name in ("true", "setpriv", "unshare"))
    if true is None or setpriv is None:
        return Sandbox()
    bound = (setpriv, "--pdeathsig", "KILL", "--no-new-privs")
    candidates = [Sandbox(bound, dies_with_parent=True)]
    if unshare is not None:
        # A namespace of networks is root's to make, or anybody's within a namespace of users where those are allowed.
        for options in (("--map-root-user", "--net"), ("--net",)):
            candidates.insert(0, Sandbox((unshare, *options, *bound), has_no_network=True, dies_with_parent=True))
    return next((candidate for candidate in candidates if _is_available(candidate, true)), Sandbox())


def _is_available(candidate: Sandbox, true: str) -> bool:
    try:
        done = subprocess.run([*candidate.prefix, true], capture_output=True, timeout=TRIAL_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
