"""
Data sets of real and swapped faces behind one interface.

A reader walks a folder and yields media one at a time: path, label, the *group* that must never be divided between
training and evaluation (the people in it and the shot it was made from), and the set that the authors of the data set
assigned, if any. ``splits.assign_sets`` assigns a set to the others, by group.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from worker.training.data.folders import read_labelled, read_pairs, read_real
from worker.training.data.media import Medium, media_below
from worker.training.data.precropped import (
    CROP_CACHE,
    FACE_CROPS,
    crop_indices,
    has_crops_table,
    read_crop_cache,
    read_face_crops,
)
from worker.training.data.published import (
    dfdc_metadata,
    read_celeb_df,
    read_dfdc,
    read_dfdc_preview,
    read_faceforensics,
)
from worker.training.errors import DataError

READERS: Final[Mapping[str, Callable[[Path], Iterator[Medium]]]] = {
    "dfdc": read_dfdc,
    "dfdc-preview": read_dfdc_preview,
    "faceforensics": read_faceforensics,
    "celeb-df-v2": read_celeb_df,
    "pairs": read_pairs,
    "labelled": read_labelled,
    "real": read_real,
    FACE_CROPS: read_face_crops,
    CROP_CACHE: read_crop_cache,
}
"""Readers by the name that recipes use for their kind of data set."""


def read_dataset(kind: str, root: Path) -> Iterator[Medium]:
    """
    Read the data set at *root* with the reader *kind*.

    Raises:
        DataError: There is no such folder or reader; or, while it is read, the folder is not in that layout.
    """
    if kind not in READERS:
        raise DataError(f"{kind!r} is not a kind of data set; the kinds are {', '.join(sorted(READERS))}")
    if not root.is_dir():
        raise DataError(f"there is no folder {root}")
    return _some(READERS[kind](root), f"{root} holds nothing in the layout of {kind!r}")


def guess_kind(root: Path) -> str:
    """
    Determine from its layout which reader a folder is for.

    Raises:
        DataError: It is in none of their layouts, or holds media that nothing labels.
    """
    signs: tuple[tuple[str, bool], ...] = (
        ("dfdc-preview", (root / "dataset.json").exists()),
        ("celeb-df-v2", (root / "Celeb-real").is_dir() or (root / "Celeb-synthesis").is_dir()),
        ("faceforensics", (root / "original_sequences").is_dir() or (root / "manipulated_sequences").is_dir()),
        ("dfdc", next(dfdc_metadata(root), None) is not None),
        (FACE_CROPS, has_crops_table(root)),
        (CROP_CACHE, any(index.with_suffix(".tar").exists() for index in crop_indices(root))),
        (
            "labelled",
            any(path.is_dir() for name in ("real", "fake") for path in (root / name, *root.glob(f"*/{name}"))),
        ),
        ("pairs", root.name.startswith("pairs") or root.parent.name.startswith("pairs")),
    )
    for kind, holds in signs:
        if holds:
            return kind
    if next(media_below(root), None) is not None:
        raise DataError(f"{root} does not say which of its media are fake; if none is, say so with --kind real")
    raise DataError(f"{root} is in no known data set's layout")


def _some(media: Iterator[Medium], complaint: str) -> Iterator[Medium]:
    first = next(media, None)
    if first is None:
        raise DataError(complaint)
    yield first
    yield from media
