"""The hash of a data set's division into sets, as it stands beside its crop cache."""

import json
from collections.abc import Sequence
from pathlib import Path

SPLIT_FILE = "split.json"


def split_digest(caches: Sequence[Path]) -> str:
    """One hash over the divisions of several caches; empty where none is known."""
    digests = []
    for folder in caches:
        path = folder / SPLIT_FILE
        if path.exists():
            digests.append(str(json.loads(path.read_bytes())["sha256"]))
    return "+".join(digest[:16] for digest in digests)
