"""
The division of data sets into training, validation and test sets, by whole groups.

``assign_sets`` gives a set to media that have none, and ``SplitDigest`` identifies the whole division by one hash,
which is stored beside the crop cache and in every report.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from worker.training.data.media import (
    Medium,
    Set,
)

SPLIT_FILE: Final = "split.json"


def assign_sets(media: Iterable[Medium], shares: Mapping[Set, float], *, seed: int = 0) -> Iterator[Medium]:
    """
    Assign a set to every medium that has none, by a hash of its group, so that no group is ever divided.

    Args:
        shares: Shares of the groups that go to ``validation`` and ``test``; the rest is for training.
        seed: Seed of the division.
    """
    for medium in media:
        if medium.set is not None:
            yield medium
            continue
        digest = hashlib.sha256(f"{seed}/{medium.dataset}/{medium.group}".encode()).digest()
        place = int.from_bytes(digest[:8], "big") / 2**64
        chosen: Set = "train"
        for name in ("validation", "test"):
            share = shares.get(name, 0.0)
            if place < share:
                chosen = name
                break
            place -= share
        yield replace(medium, set=chosen)


class SplitDigest:
    """
    One hash of a whole division into sets, independent of the order of its media.

    It is the sum of the SHA-256 digests of a line for each medium, so that it can be taken from a stream.
    """

    def __init__(self) -> None:
        self._sum = 0
        self.count = 0

    def add(self, medium: Medium) -> None:
        """Add one medium."""
        line = "\t".join([medium.dataset, medium.key, medium.label, medium.group, medium.set or ""])
        self._sum += int.from_bytes(hashlib.sha256(line.encode()).digest(), "big")
        self.count += 1

    def hexdigest(self) -> str:
        """Return the hash as 64 hexadecimal digits."""
        return hashlib.sha256(f"{self.count}/{self._sum % 2**256}".encode()).hexdigest()


def split_digest(caches: Sequence[Path]) -> str:
    """Combine the hashes of the divisions of several caches; empty where none is recorded."""
    digests = []
    for folder in caches:
        path = folder / SPLIT_FILE
        if path.exists():
            digests.append(str(json.loads(path.read_bytes())["sha256"]))
    return "+".join(digest[:16] for digest in digests)
