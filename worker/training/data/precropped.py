"""
Readers of data sets of cropped faces, described row by row in a table or in the index of a crop cache.

People and other programs write these rows, so all are checked before the first medium is yielded.
"""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, Final, get_args

from PIL import Image

from worker.training.data.media import (
    Label,
    Medium,
    Set,
    parse_label,
)
from worker.training.data.row_mistakes import EDGE_BYTES, RowMistakes, picture_problem
from worker.training.errors import DataError

CROP_CACHE: Final = "crop-cache"
"""The kind of a data set that is a prebuilt crop cache."""
FACE_CROPS: Final = "face-crops"
"""The kind of data set whose pictures are described in a table."""
CROPS_TABLE: Final = "metadata.csv"
CROPS_COLUMNS: Final = ("file", "label", "original", "group")
"""Columns that the table of ``read_face_crops`` must have."""
CROPS_SETS: Final[Mapping[str, Set | None]] = {
    "": None,
    "train": "train",
    "validation": "validation",
    "val": "validation",
    "test": "test",
}
CROPS_FROM_VIDEO: Final[Mapping[str, bool]] = {
    **dict.fromkeys(("", "false", "no", "0"), False),
    **dict.fromkeys(("true", "yes", "1"), True),
}
"""Values of the column ``is_video``, in any case."""
UNKNOWN_ORIGINALS: Final = 0.02
"""Largest share of the fakes of a prebuilt crop cache whose original may be missing; a larger share means wrong
keys."""
PRECROPPED_KINDS: Final = frozenset({FACE_CROPS, CROP_CACHE})
"""Kinds whose pictures show one cut face each, and whose tables are checked before anything is built."""


def read_face_crops(root: Path) -> Iterator[Medium]:
    """
    Read a folder of pictures with ``metadata.csv``, whose columns are named in its first line.

    ``file`` (below the folder), ``label`` (real or fake), ``original`` (the ``file`` of the real picture that a fake
    was made from, or that without its ending or folder; may be empty) and ``group`` (the people in it, or the part
    that it comes from) are required; ``set``, ``method`` and ``is_video`` (from a video) are optional. The
    data set is named after its folder. All rows are checked before the first medium is yielded.

    Raises:
        DataError: Naming the rows: a file is missing, is named twice, or is no whole picture; an original is not
            there, or is not real; a value is not allowed; a group is in two sets.
    """
    table, found = root / CROPS_TABLE, RowMistakes()
    media = list(_table_rows(table, found))
    names = _crop_names(media)
    resolved = []
    for where, medium in media:
        keys = names.get(medium.original, set())
        if len(keys) > 1:
            found.add("name an original that several real pictures could be", f"{where} ({medium.original})")
        # An original that is not found is kept as it is, and reported below.
        resolved.append((where, replace(medium, original=next(iter(keys), medium.original))))
    lost = _check_rows(resolved, found, unset="none")
    for where in lost:
        found.add("name an original that is not there", where)
    found.raise_if_any(table)
    yield from (medium for _, medium in resolved)


def read_crop_cache(root: Path) -> Iterator[Medium]:
    """
    Read a prebuilt crop cache: ``<name>.jsonl`` beside ``<name>.tar``, in *root* or in folders of it.

    Each line of an index has the fields of ``worker.training.data.cache.CachedFace``. Sets are taken from it; groups in
    ``train`` may still be held out. The cache may lack some originals of its fakes, at most
    ``UNKNOWN_ORIGINALS`` of them.

    Raises:
        DataError: Naming the rows: one cannot be read, contradicts another of the same medium, or has a value that is
            not allowed; too many originals are not there, or one is not real; a group is in two sets.
    """
    found = RowMistakes()
    media: dict[str, tuple[str, Medium]] = {}
    for index in list_crop_indices(root):
        for where, row in read_index_rows(index, root, found):
            medium = _cached_medium(row, index, where, found)
            if medium is None:
                continue
            first = media.setdefault(medium.key, (where, medium))
            if replace(first[1], path=medium.path) != medium:
                found.add("contradict another of the same medium", f"{where} ({medium.key}, {first[0]})")
    rows = list(media.values())
    lost = _check_rows(rows, found, unset="train")
    if len(lost) > UNKNOWN_ORIGINALS * sum(bool(medium.original) for _, medium in rows):
        for where in lost:
            found.add("name an original that is not there", where)
    found.raise_if_any(root)
    yield from (medium for _, medium in rows)


def list_crop_indices(root: Path) -> list[Path]:
    """List the indices of a prebuilt crop cache, in *root* and in its folders, in order."""
    return sorted(root.glob("*.jsonl")) + sorted(root.glob("*/*.jsonl"))


def read_index_rows(index: Path, root: Path, found: RowMistakes) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the faces of an index below *root*, each with its position for messages; bad lines go to *found*."""
    name = index.relative_to(root).as_posix()
    with index.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            where = f"{name} line {number}"
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if not isinstance(row, dict):
                found.add("are not JSON objects", where)
            elif "problem" not in row:
                yield where, row


def has_crops_table(root: Path) -> bool:
    """Return whether *root* has a table of face crops, and not one of other columns under the same name."""
    try:
        with (root / CROPS_TABLE).open(encoding="utf-8-sig", newline="") as file:
            columns = next(csv.reader(file), [])
    except (OSError, ValueError, csv.Error):
        return False
    return set(CROPS_COLUMNS) <= {column.strip() for column in columns}


def _table_rows(table: Path, found: RowMistakes) -> Iterator[tuple[str, Medium]]:
    """Yield the media of a table of face crops with their lines; mistakes go to *found*."""
    try:
        text = table.read_text(encoding="utf-8-sig")
        lines = csv.DictReader(io.StringIO(text, newline=""), restval="", strict=True)
        columns = [column.strip() for column in lines.fieldnames or []]
        lines.fieldnames = columns
        rows = [(f"line {lines.line_num}", row) for row in lines]
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{table} cannot be read as CSV: {error}") from error
    missing = [column for column in CROPS_COLUMNS if column not in columns]
    if missing:
        raise DataError(f"{table} has no column {', '.join(missing)}; it needs {', '.join(CROPS_COLUMNS)}")
    seen: dict[str, str] = {}
    for line, row in rows:
        if None in row:
            found.add("have more values than there are columns", line)
            continue
        medium = _crop_medium(table.parent, {name: value.strip() for name, value in row.items()}, line, found)
        if medium is None:
            continue
        if medium.key in seen:
            found.add("name a file that another row names", f"{line} ({medium.key}, {seen[medium.key]})")
            continue
        seen[medium.key] = line
        yield line, medium


def _crop_medium(root: Path, row: Mapping[str, str], line: str, found: RowMistakes) -> Medium | None:
    """Return the medium of a table's row, or None if the row has mistakes, which go to *found*."""
    key = PurePosixPath(row["file"]).as_posix()
    where = f"{line} ({row['file']})"
    label, chosen = parse_label(row["label"]), row.get("set", "").lower()
    from_video = CROPS_FROM_VIDEO.get(row.get("is_video", "").lower())
    mistakes = {
        "name no file": not row["file"],
        "name a file outside the folder": key.startswith("/") or ".." in key.split("/"),
        "have a label that is neither real nor fake": label is None,
        "have no group": not row["group"],
        "have a set that is none of train, validation and test": chosen not in CROPS_SETS,
        "have an is_video that is neither true nor false": from_video is None,
    }
    wrong = [mistake for mistake, is_made in mistakes.items() if is_made]
    for mistake in wrong:
        found.add(mistake, where)
    if wrong or label is None:
        return None
    problem = _file_problem(root / key)
    if problem is not None:
        found.add(problem, where)
    return Medium(
        path=root / key,
        key=key,
        label=label,
        dataset=root.resolve().name,
        group=row["group"],
        set=CROPS_SETS[chosen],
        method=row.get("method", ""),
        original="" if _is_own_name(row["original"], key) else row["original"],
        from_video=from_video,
    )


def _is_own_name(original: str, key: str) -> bool:
    return original in {key, PurePosixPath(key).with_suffix("").as_posix(), PurePosixPath(key).stem}


def _crop_names(media: Iterable[tuple[str, Medium]]) -> dict[str, set[str]]:
    """
    Map each name that ``original`` may use to the keys it could mean: a whole name takes precedence over a part of
    one, and a real picture over a fake one.
    """
    names: dict[str, set[str]] = {}
    for wanted in ("real", "fake"):
        keys_of_label = [medium.key for _, medium in media if medium.label == wanted]
        for shortened in (
            {key: {key} for key in keys_of_label},
            _by_name(keys_of_label, lambda key: PurePosixPath(key).with_suffix("").as_posix()),
            _by_name(keys_of_label, lambda key: PurePosixPath(key).stem),
        ):
            for name, keys in shortened.items():
                names.setdefault(name, keys)
    return names


def _by_name(keys: Iterable[str], shorten: Callable[[str], str]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for key in keys:
        found.setdefault(shorten(key), set()).add(key)
    return found


def _file_problem(path: Path) -> str | None:
    """Check the two ends and the header of a picture's file; return its mistake, as ``RowMistakes.add`` takes it."""
    try:
        with path.open("rb") as file:
            begin = file.read(EDGE_BYTES)
            file.seek(max(0, path.stat().st_size - EDGE_BYTES))
            end = file.read(EDGE_BYTES)
    except FileNotFoundError:
        return "name a file that is not there"
    except OSError:
        return "name a file that cannot be read"
    problem = picture_problem(begin, end)
    # Pillow reads HEIC and AVIF only with a plugin, which reading a table should not need.
    if problem is None and begin[4:8] != b"ftyp":
        try:
            Image.open(path).close()
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            return "name a picture whose header is damaged"
    return problem


def _cached_medium(row: Mapping[str, Any], index: Path, where: str, found: RowMistakes) -> Medium | None:
    """Return the medium of a face in a prebuilt cache, or None if its row has mistakes, which go to *found*."""
    texts = ("key", "label", "dataset", "group", "set", "method", "compression", "original")
    wrong = [name for name in texts if not isinstance(row.get(name), str)]
    wrong += [name for name in ("key", "dataset", "group") if row.get(name) == ""]
    wrong += ["label"] if row.get("label") not in get_args(Label) else []
    wrong += ["set"] if row.get("set") not in get_args(Set) else []
    wrong += ["is_video"] if not isinstance(row.get("is_video"), bool) else []
    if wrong:
        for name in dict.fromkeys(wrong):
            found.add(f"have an invalid or missing {name}", where)
        return None
    return Medium(
        path=index.with_suffix(".tar"),
        key=row["key"],
        label=row["label"],
        dataset=row["dataset"],
        group=row["group"],
        # As for the parts of DFDC, the recipe may divide the training set again.
        set=None if row["set"] == "train" else row["set"],
        method=row["method"],
        compression=row["compression"],
        original=row["original"],
        from_video=row["is_video"],
    )


def _check_rows(rows: Sequence[tuple[str, Medium]], found: RowMistakes, *, unset: str) -> list[str]:
    """
    Report contradictions between the media of *rows*, each with its position, to *found*.

    Args:
        unset: Word in messages for the set of a medium that has none yet.

    Returns:
        The rows whose original is missing.
    """
    labels = {medium.key: medium.label for _, medium in rows}
    sets: dict[tuple[str, str], Set | None] = {}
    lost = []
    for where, medium in rows:
        first = sets.setdefault((medium.dataset, medium.group), medium.set)
        if first != medium.set:
            row = f"{where} (group {medium.group}: {medium.set or unset}, not {first or unset})"
            found.add("put people into a second set", row)
        if not medium.original:
            continue
        row = f"{where} ({medium.original})"
        if medium.label == "real":
            found.add("are real and name an original", row)
        elif medium.original not in labels:
            lost.append(row)
        elif labels[medium.original] != "real":
            found.add("name an original that is not real", row)
    return lost
