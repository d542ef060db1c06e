"""The data sets that a checkpoint is evaluated on, each with the cache of its crops."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.manifests import Manifest
from worker.training.data.cache import CacheSettings
from worker.training.data.datasets import guess_kind
from worker.training.data.media import Medium
from worker.training.data.sources import Source, build_source_cache, read_source_media
from worker.training.data.splits import SPLIT_FILE
from worker.training.errors import DataError
from worker.training.fitting.inputs import build_caches
from worker.training.fitting.recipes import Recipe


@dataclass(frozen=True, slots=True)
class EvaluationSource:
    """A data set and the cache of its crops."""

    cache: Path
    source: Source
    data: Path
    """Folder that contains the source's path."""

    def media(self) -> Iterator[Medium]:
        """Yield every medium, scored or not, with its set."""
        return read_source_media(self.source, self.data)

    @property
    def split(self) -> dict[str, Any]:
        """The hash of its division into sets, and the number of media in each."""
        split: dict[str, Any] = json.loads((self.cache / SPLIT_FILE).read_bytes())
        return split


def recipe_sources(recipe: Recipe, data: Path, caches: Path, *, processes: int = 1) -> list[EvaluationSource]:
    """
    Return the sources of *recipe* below the folder *data*, with their crops cut.

    Raises:
        DataError: As ``build_caches`` raises it.
    """
    folders = build_caches(recipe, data, caches, processes=processes)
    return [EvaluationSource(folder, source, data) for folder, source in zip(folders, recipe.sources, strict=True)]


def folder_source(
    root: Path, manifest: Manifest, caches: Path, *, kind: str | None = None, processes: int = 1
) -> EvaluationSource:
    """
    Return the data set at *root*, with its crops cut at *manifest*'s sampling and limits.

    Media without an official set count as ``train``. The cache's name depends on folder, kind and settings.

    Raises:
        DataError: The folder is in no known layout, or cannot be read.
    """
    root = root.resolve()
    if not root.is_dir():
        raise DataError(f"there is no folder {root}")
    source = Source(kind=kind or guess_kind(root), path=Path(root.name))
    limits = manifest.preprocessing
    settings = CacheSettings(
        sample_fps=manifest.sampling.sample_fps,
        min_face_px=limits.min_face_px,
        min_sharpness=limits.min_sharpness,
        min_confidence=limits.min_confidence,
        detector_thresholds=limits.detector_thresholds,
    )
    identity = json.dumps([str(root), source.kind, settings.model_dump(mode="json")], sort_keys=True)
    folder = caches / f"{root.name}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
    build_source_cache(source, root.parent, folder, settings, processes=processes)
    return EvaluationSource(folder, source, root.parent)
