"""Readers of data sets whose labels follow from the names of folders and files alone."""

import re
from collections.abc import Iterator
from pathlib import Path

from worker.training.data.media import Label, Medium, Region, find_media, infer_set


def read_side_by_side(root: Path) -> Iterator[Medium]:
    """
    Read side-by-side videos: the left half is the original, the right half the same shot with a face swapped.

    Files are in ``train/``, ``validation/`` or ``test/`` of *root*, or in *root* itself, and are named
    ``<person>_<number>``: the person is the group.
    """
    for path in find_media(root):
        key = path.relative_to(root).as_posix()
        halves: tuple[tuple[Region, Label], ...] = (("left", "real"), ("right", "fake"))
        for region, label in halves:
            yield Medium(
                path=path,
                key=f"{key}#{region}",
                label=label,
                dataset="pairs",
                group=re.sub(r"_\d+$", "", path.stem),
                set=infer_set(key),
                method="swap" if label == "fake" else "",
                region=region,
                original=f"{key}#left" if label == "fake" else "",
            )


def read_labelled(root: Path) -> Iterator[Medium]:
    """
    Read plain folders ``real/`` and ``fake/``, or ``train/real/…`` and so on.

    Files of the same name are one group, whatever their folders.
    """
    for path in find_media(root):
        key = path.relative_to(root).as_posix()
        labels = [part for part in Path(key).parts[:-1] if part in {"real", "fake"}]
        if not labels:
            continue
        yield Medium(
            path=path,
            key=key,
            label="real" if labels[-1] == "real" else "fake",
            dataset=root.name,
            group=path.stem,
            set=infer_set(key),
        )


def read_real(root: Path) -> Iterator[Medium]:
    """Read a folder of pictures or videos that are all real; files of the same name are one group."""
    for path in find_media(root):
        key = path.relative_to(root).as_posix()
        yield Medium(path, key, "real", dataset=root.name, group=path.stem, set=infer_set(key))
