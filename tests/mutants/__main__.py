"""
``python -m tests.mutants --count N --seed S``: hostile files, through the api's inspection and the worker's.

Ends with one JSON line, and with status 1 if a file killed or hung a process, or was answered by neither a result nor
a code. The same seed makes the same files.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from tests.mutants.corpus import make_originals, mutants
from tests.mutants.running import look_at_all


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for files that were not answered")
    given = parser.parse_args()
    os.environ.setdefault("SVT_LOG", "1")  # The AV1 encoder tells much.
    with tempfile.TemporaryDirectory(prefix="dfs-mutants-") as temporary:
        made = Path(temporary) / "made"
        made.mkdir()
        folder = given.keep or Path(temporary) / "mutants"
        folder.mkdir(parents=True, exist_ok=True)
        files = mutants(make_originals(made), given.count, given.seed)
        outcome = look_at_all(files, folder, len(os.sched_getaffinity(0)))
    print(json.dumps({"seed": given.seed, **vars(outcome)}))  # noqa: T201
    return 0 if outcome.answered == outcome.files else 1


if __name__ == "__main__":
    sys.exit(main())
