"""From a recipe's sources to crop caches, and to the hash of the division into sets that every report carries."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from worker.training.autoencoders import paint_faces
from worker.training.cache import CacheSettings, build_cache
from worker.training.datasets import Medium, SplitDigest, assign_sets, guess_kind, read_dataset
from worker.training.errors import DataError
from worker.training.recipes import Recipe, Source
from worker.training.splits import SPLIT_FILE


def media_of(source: Source, data: Path) -> Iterator[Medium]:
    """
    Every medium of *source*, below the folder *data*, with its set.

    Raises:
        DataError: The folder is missing or not in the source's layout.
    """
    media = read_dataset(source.kind, data / source.path)
    for medium in assign_sets(media, source.hold_out, seed=source.seed):
        chosen = source.sets.get(medium.group)
        yield replace(medium, set=chosen) if chosen is not None else medium


def build_caches(recipe: Recipe, data: Path, caches: Path, *, processes: int = 1) -> list[Path]:
    """
    Build the crop cache of every source below *caches*, or finish building it.

    Returns:
        Their folders, in the recipe's order. Beside each cache's shards stands ``split.json``: the hash of the
        division into sets and how many media there are in each.

    Raises:
        DataError: A source cannot be read, or a cache was built with other settings or another division.
    """
    folders = []
    for source in recipe.sources:
        folder = caches / "-".join(source.path.parts)
        build_source_cache(source, data, folder, recipe.cache, processes=processes)
        folders.append(folder)
    return folders


def build_source_cache(source: Source, data: Path, folder: Path, settings: CacheSettings, *, processes: int) -> None:
    """
    Build the crop cache of one source in *folder*, or finish building it, with ``split.json`` beside its shards.

    Raises:
        DataError: It cannot be read, or the cache was built with other settings or another division.
    """
    folder.mkdir(parents=True, exist_ok=True)
    count = claim_split(source, data, folder)
    build_cache(media_of(source, data), folder, settings, processes=processes, total=count)


def build_plain_cache(root: Path, caches: Path, *, kind: str | None = None, processes: int = 1) -> Path:
    """
    Build the crop cache of the data set at *root* below *caches*, as a recipe would that says nothing else of it.

    Raises:
        DataError: The folder is in no known layout, or cannot be read.
    """
    root = root.resolve()
    if not root.is_dir():
        raise DataError(f"there is no folder {root}")
    folder = caches / root.name
    source = Source(kind=kind or guess_kind(root), path=Path(root.name))
    build_source_cache(source, root.parent, folder, CacheSettings(), processes=processes)
    return folder


def claim_split(source: Source, data: Path, folder: Path) -> int:
    """
    Write down in *folder* how *source* is divided into sets.

    Returns:
        How many media there are.

    Raises:
        DataError: It cannot be read, or the folder was claimed for another division.
    """
    digest, counts = SplitDigest(), dict[str, int]()
    for medium in media_of(source, data):
        digest.add(medium)
        counts[medium.set or "train"] = counts.get(medium.set or "train", 0) + 1
    _claim(folder / SPLIT_FILE, {"sha256": digest.hexdigest(), "media": dict(sorted(counts.items()))})
    return digest.count


def paint_for(recipe: Recipe, caches: Sequence[Path], folder: Path) -> list[Path]:
    """The caches below *folder* that the recipe's autoencoders paint after *caches*, if its mixtures want any."""
    if not recipe.is_painted:
        return []
    return paint_faces(caches, folder, recipe.autoencoders, seed=recipe.seed)


def _claim(path: Path, split: dict[str, object]) -> None:
    if not path.exists():
        path.write_text(json.dumps(split, indent=2) + "\n")
    elif json.loads(path.read_bytes()) != split:
        raise DataError(f"{path.parent} was built with another division into sets; take another folder or delete it")
