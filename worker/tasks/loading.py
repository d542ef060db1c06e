"""Caches of what worker processes load for the checkpoints that jobs have pinned."""

import json
from collections.abc import Callable
from functools import lru_cache
from typing import TypeVar

from shared.manifests import Manifest

Loaded = TypeVar("Loaded")


def cache_by_manifest(load: Callable[[Manifest], Loaded], *, max_loaded: int) -> Callable[[Manifest], Loaded]:
    """
    Wrap *load* so that its results are kept for the *max_loaded* most recently used manifests.

    The key is the whole manifest and not its name: two jobs may have pinned different weights or calibrations of the
    same name.
    """

    @lru_cache(maxsize=max_loaded)
    def get(pinned: str) -> Loaded:
        return load(Manifest.model_validate_json(pinned))

    def find(manifest: Manifest) -> Loaded:
        return get(json.dumps(manifest.pin(), sort_keys=True))

    return find
