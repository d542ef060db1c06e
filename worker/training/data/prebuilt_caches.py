"""
Prebuilt crop caches, which are linked and not copied.

The pictures stay in their tar files, which may be read-only. For each shard, the folder of caches gets an index with
the sets of the recipe's source, and a link to the tar: together an ordinary crop cache, even if the prebuilt one
consists of several folders.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

from worker.training.data.cache import SETTINGS_FILE, CachedFace
from worker.training.data.media import Set
from worker.training.data.precropped import list_crop_indices, read_index_rows
from worker.training.data.row_mistakes import EDGE_BYTES, RowMistakes, picture_problem
from worker.training.errors import DataError


def check_pictures(root: Path) -> None:
    """
    Check every row of the prebuilt crop cache in *root* and both ends of its picture, without decoding it.

    Damage that only decoding shows is found by ``CropCache.read_picture``.

    Raises:
        DataError: Naming the rows: one lacks a field of ``CachedFace``, or its place in the tar holds no picture.
    """
    found = RowMistakes()
    for index in list_crop_indices(root):
        tar = index.with_suffix(".tar")
        try:
            file = os.open(tar, os.O_RDONLY)
        except OSError as error:
            raise DataError(f"{index} has no readable {tar.name} beside it") from error
        try:
            size = os.fstat(file).st_size
            for where, row in read_index_rows(index, root, found):
                try:
                    face = CachedFace.from_line(json.dumps(row))
                except (KeyError, TypeError, ValueError):
                    found.add("do not describe a face of a crop cache", where)
                    continue
                problem = _picture_problem(file, size, face, index.stem)
                if problem is not None:
                    found.add(problem, f"{where} ({face.key})")
        finally:
            os.close(file)
    found.raise_if_any(root)


def _picture_problem(file: int, size: int, face: CachedFace, shard: str) -> str | None:
    if face.shard != shard:
        return "name another shard"
    if not all(isinstance(value, int) for value in (face.offset, face.length)):
        return "have no valid offset and length"
    if face.offset < 0 or face.length <= 0 or face.offset + face.length > size:
        return "name a position outside the tar"
    begin = os.pread(file, min(EDGE_BYTES, face.length), face.offset)
    end = os.pread(file, min(EDGE_BYTES, face.length), face.offset + max(0, face.length - EDGE_BYTES))
    return picture_problem(begin, end)


def link_cache(root: Path, folder: Path, sets: Mapping[str, Set]) -> None:
    """
    Make *folder* a crop cache that links to the prebuilt one in *root*; files that are up to date are not changed.

    Args:
        sets: Set of each medium, by its key.

    Raises:
        DataError: Two indices would get one name, or the folder holds a cache that was built there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / SETTINGS_FILE).exists():
        raise DataError(f"{folder} holds a crop cache that was built there; choose another folder or delete this one")
    names: dict[str, Path] = {}
    for index in list_crop_indices(root):
        # Names are derived from paths so that adding a folder changes no other name.
        name = "-".join(index.relative_to(root).with_suffix("").parts)
        if name in names:
            raise DataError(f"{index} and {names[name]} would both be called {name}")
        names[name] = index
    for name, index in names.items():
        _link(index.with_suffix(".tar"), folder / f"{name}.tar")
        _write(_lines(index, name, sets), folder / f"{name}.jsonl")
    for old in folder.glob("*.jsonl"):
        if old.stem not in names:
            old.unlink()


def _lines(index: Path, shard: str, sets: Mapping[str, Set]) -> str:
    lines = []
    # Keys may hold other characters that end a line for str.splitlines.
    for line in index.read_text().split("\n"):
        if not line:
            continue
        row = json.loads(line)
        if "problem" in row:
            # Readers recognise such rows by their first field.
            row = {"problem": row["problem"], **row}
        else:
            face = CachedFace.from_line(line)
            row = asdict(replace(face, shard=shard, set=sets[face.key]))
        lines.append(f"{json.dumps(row)}\n")
    return "".join(lines)


def _link(target: Path, link: Path) -> None:
    target = target.resolve()
    if link.is_symlink() and link.readlink() == target:
        return
    made = link.with_name(f"{link.name}.{os.getpid()}.partial")
    made.symlink_to(target)
    made.rename(link)


def _write(text: str, path: Path) -> None:
    """Replace *path* as a whole unless it is up to date: another run may be reading it."""
    if path.exists() and path.read_text() == text:
        return
    made = path.with_name(f"{path.name}.{os.getpid()}.partial")
    made.write_text(text)
    made.rename(path)
