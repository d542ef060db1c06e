"""
Readers of data sets of real and swapped faces.

A reader walks a folder and yields media one at a time: path, label, *group*, and the set that the authors of the data
set assigned, if any. Media of one group share people or a shot, and are never divided between training and evaluation.
``splits.assign_sets`` assigns a set to the others, by group.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from worker.training.data.folders import read_labelled, read_real, read_side_by_side
from worker.training.data.media import Medium, find_media
from worker.training.data.precropped import (
    CROP_CACHE,
    FACE_CROPS,
    has_crops_table,
    list_crop_indices,
    read_crop_cache,
    read_face_crops,
)
from worker.training.data.published import (
    find_dfdc_metadata,
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
    "pairs": read_side_by_side,
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
    return _require_any(READERS[kind](root), f"{root} holds no media in the layout of {kind!r}")


def guess_kind(root: Path) -> str:
    """
    Detect from its layout which reader a folder needs.

    Raises:
        DataError: No reader fits, or its media have no labels.
    """
    signs: tuple[tuple[str, bool], ...] = (
        ("dfdc-preview", (root / "dataset.json").exists()),
        ("celeb-df-v2", (root / "Celeb-real").is_dir() or (root / "Celeb-synthesis").is_dir()),
        ("faceforensics", (root / "original_sequences").is_dir() or (root / "manipulated_sequences").is_dir()),
        ("dfdc", next(find_dfdc_metadata(root), None) is not None),
        (FACE_CROPS, has_crops_table(root)),
        (CROP_CACHE, any(index.with_suffix(".tar").exists() for index in list_crop_indices(root))),
        (
            "labelled",
            any(path.is_dir() for name in ("real", "fake") for path in (root / name, *root.glob(f"*/{name}"))),
        ),
        ("pairs", root.name.startswith("pairs") or root.parent.name.startswith("pairs")),
    )
    for kind, holds in signs:
        if holds:
            return kind
    if next(find_media(root), None) is not None:
        raise DataError(f"{root} does not label its media; if all of them are real, use --kind real")
    raise DataError(f"{root} has no known layout; use --kind, or see the list of layouts in docs/training.md")


def _require_any(media: Iterator[Medium], message: str) -> Iterator[Medium]:
    first = next(media, None)
    if first is None:
        raise DataError(message)
    yield first
    yield from media
