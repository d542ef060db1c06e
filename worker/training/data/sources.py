"""Crop caches of a recipe's sources, and the hash of their division into sets, which every report carries."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from worker.training.data.cache import CacheSettings, CropCache
from worker.training.data.cutting import build_cache
from worker.training.data.datasets import READERS, guess_kind, read_dataset
from worker.training.data.folder_settings import record_settings
from worker.training.data.media import Medium, Set
from worker.training.data.prebuilt_caches import check_pictures, link_cache
from worker.training.data.precropped import CROP_CACHE, FACE_CROPS, PRECROPPED_KINDS
from worker.training.data.row_mistakes import RowMistakes
from worker.training.data.splits import SPLIT_FILE, SplitDigest, assign_sets
from worker.training.errors import DataError


class Source(BaseModel):
    """One data set of a recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str = Field(pattern="^(" + "|".join(READERS) + ")$")
    path: Path
    """Path below the data folder that the command names; its last part names the data set in reports."""
    hold_out: dict[Set, Annotated[float, Field(ge=0.0, le=1.0)]] = {}
    """Share of the groups without an official set that go to ``validation`` and ``test``."""
    seed: int = 0
    """Seed of that division."""
    sets: dict[str, Set] = {}
    """Sets of individual groups, by name; they take precedence over the shares."""
    seen: bool = False
    """Whether weights that were trained elsewhere saw it: ``ship`` then neither calibrates nor evaluates them on it."""
    about: str = ""
    """Description and origin, for the model card."""
    terms: str = ""
    """Terms of use, for the model card."""


def read_source_media(source: Source, data: Path) -> Iterator[Medium]:
    """
    Yield every medium of *source*, below the folder *data*, with its set.

    Raises:
        DataError: The folder is missing or not in the source's layout.
    """
    media = read_dataset(source.kind, data / source.path)
    for medium in assign_sets(media, source.hold_out, seed=source.seed):
        chosen = source.sets.get(medium.group)
        yield replace(medium, set=chosen) if chosen is not None else medium


def build_source_caches(
    sources: Sequence[Source], data: Path, caches: Path, settings: CacheSettings, *, processes: int = 1
) -> list[Path]:
    """
    Build the crop cache of every source below *caches*, or finish building it.

    Returns:
        Their folders, in the order of *sources*. Each cache has a ``split.json``, with the hash of the
        division into sets and the number of media in each. For a prebuilt crop cache, the folder holds links to its
        pictures.

    Raises:
        DataError: A source cannot be read or has mistakes, or a cache was built with other settings or another
            division.
    """
    check_sources(sources, data)
    folders = []
    for source in sources:
        folder = caches / "-".join(source.path.parts)
        _build(source, data, folder, settings, processes=processes)
        folders.append(folder)
    return folders


def check_sources(sources: Sequence[Source], data: Path) -> None:
    """
    Check the *sources* of cropped faces for mistakes, before hours are spent on cutting the others.

    People and other programs write their tables, so a person may be in two sets, in one source or across sources.

    Raises:
        DataError: Naming the rows.
    """
    found = RowMistakes()
    sets: dict[tuple[str, str], str] = {}
    for source in sources:
        if source.kind not in PRECROPPED_KINDS:
            continue
        if source.kind == CROP_CACHE:
            check_pictures(data / source.path)
        media = {medium.key: medium for medium in read_source_media(source, data)}
        for medium in media.values():
            where, chosen = f"{source.path.as_posix()}/{medium.key}", str(medium.set)
            first = sets.setdefault((medium.dataset, medium.group), chosen)
            if first != chosen:
                found.add("put people into a second set", f"{where} (group {medium.group}: {chosen}, not {first})")
            original = media.get(medium.original)
            if original is not None and original.set != medium.set:
                row = f"{where} ({chosen}, and {original.key} in {original.set})"
                found.add("are in another set than their original", row)
    found.raise_if_any(data)


def build_source_cache(source: Source, data: Path, folder: Path, settings: CacheSettings, *, processes: int) -> None:
    """
    Build the crop cache of one source in *folder*, or finish building it, with ``split.json`` beside its shards.

    Raises:
        DataError: It cannot be read or has mistakes, or the cache was built with other settings or another division.
    """
    check_sources([source], data)
    _build(source, data, folder, settings, processes=processes)


def _build(source: Source, data: Path, folder: Path, settings: CacheSettings, *, processes: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    count = record_split(source, data, folder)
    if source.kind == CROP_CACHE:
        link_source(source, data, folder)
        return
    build_cache(read_source_media(source, data), folder, settings, processes=processes, total=count)
    if source.kind == FACE_CROPS:
        _refuse_damaged(folder)


def _refuse_damaged(folder: Path) -> None:
    """Reject a cache that lists damaged pictures of a table: they were not decoded before cutting."""
    found = RowMistakes()
    for problem in CropCache(folder).read_problems():
        if problem["problem"] != "no_usable_face":
            found.add("name a picture that cannot be decoded", f"{problem['key']} ({problem['problem']})")
    found.raise_if_any(folder, "; repair them, then delete this folder")


def link_source(source: Source, data: Path, folder: Path) -> None:
    """
    Make *folder* a crop cache of the pictures of *source*, which is a prebuilt crop cache, with the sets of *source*.

    Raises:
        DataError: It cannot be read, or the folder holds a cache that was built there.
    """
    sets: dict[str, Set] = {medium.key: medium.set or "train" for medium in read_source_media(source, data)}
    link_cache(data / source.path, folder, sets)


def build_plain_cache(root: Path, caches: Path, *, kind: str | None = None, processes: int = 1) -> Path:
    """
    Build the crop cache of the data set at *root* below *caches*, with the settings that a recipe has by default.

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


def record_split(source: Source, data: Path, folder: Path) -> int:
    """
    Record in *folder* how *source* is divided into sets.

    Returns:
        The number of media.

    Raises:
        DataError: It cannot be read, or the folder is recorded for another division.
    """
    digest, counts = SplitDigest(), dict[str, int]()
    keys, originals = set[str](), list[str]()
    for medium in read_source_media(source, data):
        digest.add(medium)
        counts[medium.set or "train"] = counts.get(medium.set or "train", 0) + 1
        if source.kind == CROP_CACHE:
            keys.add(medium.key)
            originals += [medium.original] if medium.original else []
    split: dict[str, object] = {"sha256": digest.hexdigest(), "media": dict(sorted(counts.items()))}
    if source.kind == CROP_CACHE:
        # A few are tolerated (see ``read_crop_cache``); reports show their number.
        split["unknown_originals"] = sum(original not in keys for original in originals)
    record_settings(folder / SPLIT_FILE, split, "another division into sets")
    return digest.count
