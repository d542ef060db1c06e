"""
Data sets of real and swapped faces, each in exactly its published layout, behind one interface.

A reader walks a folder and yields media one at a time: where it is, whether it is fake, what must never be divided
between training and judging it (its *group*: the people in it and the shot it was made from), and the set that the
data set's authors gave it, if they gave one. ``assign_sets`` gives one to the others, by group, and
``SplitDigest`` names the whole division by one hash, which every report carries.

Rössler et al., "FaceForensics++: Learning to Detect Manipulated Facial Images", ICCV 2019; Dolhansky et al., "The
DeepFake Detection Challenge (DFDC) Dataset", 2020, and its "Preview Dataset", 2019; Li, Yang, Sun, Qi and Lyu,
"Celeb-DF: A Large-scale Challenging Dataset for DeepFake Forensics", CVPR 2020.
"""

import csv
import hashlib
import io
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal, get_args

from PIL import Image

from worker.training.data.findings import EDGE_BYTES, Findings, picture_problem
from worker.training.errors import DataError

Label = Literal["real", "fake"]
Set = Literal["train", "validation", "test"]
Region = Literal["whole", "left", "right"]

PICTURES: Final = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".heic", ".avif"})
VIDEOS: Final = frozenset({".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v"})

FF_METHODS: Final = ("Deepfakes", "Face2Face", "FaceShifter", "FaceSwap", "NeuralTextures")
FF_COMPRESSIONS: Final = ("c0", "raw", "c23", "c40")
"""FaceForensics++ calls its uncompressed videos c0 in the paper and in older downloads, raw in newer ones."""

CROP_CACHE: Final = "crop-cache"
"""The kind of data set whose faces are cut out already."""
FACE_CROPS: Final = "face-crops"
"""The kind whose pictures a table tells of."""
CROPS_TABLE: Final = "metadata.csv"
CROPS_COLUMNS: Final = ("file", "label", "original", "group")
"""That the table of ``read_face_crops`` must have."""
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
"""What the table may say, whatever the case of its letters."""
UNKNOWN_ORIGINALS: Final = 0.02
"""Share of the fakes of a ready crop cache whose original may be missing: of more, the keys themselves are wrong."""


@dataclass(frozen=True, slots=True)
class Medium:
    """One image, video, or half of a side-by-side video, with what is known of it."""

    path: Path
    key: str
    """Unique within the data set: its path below the data set's folder, with the region if it is a half."""
    label: Label
    dataset: str
    group: str
    """Media of one group, in one data set, share people or a shot, and always stay in one set."""
    set: Set | None = None
    """Given by the data set's authors, or by ``assign_sets``."""
    method: str = ""
    """How the fake was made, where that is known."""
    compression: str = ""
    region: Region = "whole"
    original: str = ""
    """Key of the real medium that a fake was made from, where that is known."""
    from_video: bool | None = None
    """Whether a picture was cut out of a video, where the data set says so."""

    @property
    def is_video(self) -> bool:
        """As the data set says, or by its name; decoding looks at what is inside."""
        return self.path.suffix.lower() in VIDEOS if self.from_video is None else self.from_video


def read_dfdc(root: Path) -> Iterator[Medium]:
    """
    Read the DeepFake Detection Challenge: folders such as ``dfdc_train_part_0`` with ``metadata.json`` each.

    Entries look like ``{"aagfhgtpmv.mp4": {"label": "FAKE", "split": "train", "original": "vudstovrck.mp4"}}``.
    ``original`` is null or missing where a video is real, and names a video of the same part where it is fake.
    Nothing says who is seen. All that was made from one original lies in one part, so a part is a group; whether an
    actor appears in two of them cannot be told from the data set.
    """
    for metadata in _metadata_files(root):
        folder = metadata.parent
        relative = folder.relative_to(root).as_posix()
        part = folder.name if relative == "." else relative
        for name, entry in sorted(_json_object(metadata).items()):
            if not (folder / name).exists():
                continue  # Parts are often unpacked in pieces.
            yield Medium(
                path=folder / name,
                key=(folder / name).relative_to(root).as_posix(),
                label=_label(entry.get("label"), metadata, name),
                dataset="dfdc",
                group=part,
                set=_dfdc_set(str(entry.get("split", ""))),
                original=_beside(relative, entry.get("original")),
            )


def read_dfdc_preview(root: Path) -> Iterator[Medium]:
    """
    Read the DFDC preview: ``dataset.json`` beside ``original_videos/`` and ``method_A/``, ``method_B/``.

    Keys are paths such as ``method_A/<target>/…/<target>_<swapped>_A_001.mp4``; ``set`` is train or test, ``label``
    real or fake, and ``target_id`` and ``swapped_id`` name the people. Its test set shares none of them with its
    training set. Within one, those who were swapped with each other, and whoever those were swapped with, are a group.
    """
    entries = _json_object(root / "dataset.json")
    crowds = _Crowds(_preview_people(key, entry) for key, entry in entries.items())
    for key, entry in sorted(entries.items()):
        if not (root / key).exists():
            continue
        yield Medium(
            path=root / key,
            key=key,
            label=_label(entry.get("label"), root / "dataset.json", key),
            dataset="dfdc-preview",
            group=crowds.of(_preview_people(key, entry)[0]),
            set="test" if entry.get("set") == "test" else None,
            method=key.split("/", 1)[0] if key.startswith("method_") else "",
        )


def read_faceforensics(root: Path) -> Iterator[Medium]:
    """
    Read FaceForensics++: ``original_sequences/youtube/c23/videos/000.mp4`` and
    ``manipulated_sequences/Deepfakes/c23/videos/000_003.mp4``, every compression and method that is there.

    The official split is taken from ``splits/{train,val,test}.json`` beside them: lists of pairs of videos that were
    swapped with each other. Both, and everything made of them, are one group and stay in one set; without those files
    the names of the fakes say which two belong together. DeepFakeDetection's videos of actors, masks and frames that
    were extracted later are passed over. Whether one person is in two of the thousand videos, nothing says.
    """
    sets = _faceforensics_sets(root)
    official = {one: name for pair, name in sets.items() for one in pair}
    found = [match for path in _media_below(root) if (match := _faceforensics_name(path, root)) is not None]
    crowds = _Crowds([*sets, *((match[4], match[5] or match[4]) for match in found)])
    for match in found:
        kind, source, compression, target, _ = match.groups()
        path = root / match[0]
        yield Medium(
            path=path,
            key=path.relative_to(root).as_posix(),
            label="real" if kind == "original" else "fake",
            dataset="faceforensics",
            group=crowds.of(target),
            set=official.get(target),
            method=source if kind == "manipulated" else "",
            compression=compression,
            original=f"original_sequences/youtube/{compression}/videos/{target}.mp4" if kind == "manipulated" else "",
        )


def read_celeb_df(root: Path) -> Iterator[Medium]:
    """
    Read Celeb-DF v2: ``Celeb-real/id0_0000.mp4``, ``YouTube-real/00000.mp4``,
    ``Celeb-synthesis/id0_id1_0000.mp4`` and ``List_of_testing_videos.txt``.

    Lines of the list look like ``1 YouTube-real/00170.mp4``, where 1 means real. Fakes are called after the person of
    the video, then the person whose face was put there. The list divides videos, not people: nearly every celebrity
    is in it and in other videos as well. A video that is not listed is therefore left out if a person of a listed one
    is in it, which leaves little more than YouTube-real to train on; the data set is one to test with. Without the
    list everything is read, and people who were swapped with each other, by however many steps, are one group.
    """
    listed = root / "List_of_testing_videos.txt"
    test = {_celeb_df_key(line, listed) for line in _lines(listed)} if listed.exists() else set()
    known = {person for key in test for person in _celeb_df_people(key)}
    found: list[tuple[Path, Label, list[str]]] = []
    folders: dict[str, Label] = {"Celeb-real": "real", "YouTube-real": "real", "Celeb-synthesis": "fake"}
    for folder, label in folders.items():
        for path in _media_below(root / folder):
            people = _celeb_df_people(path.stem)
            if path.relative_to(root).as_posix() in test or known.isdisjoint(people):
                found.append((path, label, people))
    crowds = _Crowds(people for _, _, people in found if people)
    for path, label, people in found:
        key = path.relative_to(root).as_posix()
        clip = re.sub(r"^(id\d+)_id\d+_", r"\1_", path.stem)
        yield Medium(
            path=path,
            key=key,
            label=label,
            dataset="celeb-df-v2",
            group=crowds.of(people[0]) if people else path.stem,
            set="test" if key in test else None,
            method="Celeb-synthesis" if label == "fake" else "",
            original=f"Celeb-real/{clip}.mp4" if label == "fake" else "",
        )


def read_pairs(root: Path) -> Iterator[Medium]:
    """
    Read side-by-side videos: the left half is the original, the right half the same shot with a face swapped.

    Files lie in ``train/``, ``validation/`` or ``test/`` of *root*, or in *root* itself, and are called
    ``<person>_<number>``: the person is the group.
    """
    for path in _media_below(root):
        key = path.relative_to(root).as_posix()
        halves: tuple[tuple[Region, Label], ...] = (("left", "real"), ("right", "fake"))
        for region, label in halves:
            yield Medium(
                path=path,
                key=f"{key}#{region}",
                label=label,
                dataset="pairs",
                group=re.sub(r"_\d+$", "", path.stem),
                set=_set_of_folder(key),
                method="swap" if label == "fake" else "",
                region=region,
                original=f"{key}#left" if label == "fake" else "",
            )


def read_labelled(root: Path) -> Iterator[Medium]:
    """
    Read plain folders ``real/`` and ``fake/``, or ``train/real/…`` and so on.

    Files of the same name, whatever their folders, are one group; there are no others.
    """
    for path in _media_below(root):
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
            set=_set_of_folder(key),
        )


def read_real(root: Path) -> Iterator[Medium]:
    """Read a folder of pictures or videos that are all real; files of the same name are a group, and no others are."""
    for path in _media_below(root):
        key = path.relative_to(root).as_posix()
        yield Medium(path, key, "real", dataset=root.name, group=path.stem, set=_set_of_folder(key))


def read_face_crops(root: Path) -> Iterator[Medium]:
    """
    Read a folder of pictures with ``metadata.csv``, whose columns are named in its first line.

    ``file`` (below the folder), ``label`` (real or fake), ``original`` (the ``file`` of the real picture that a fake
    was made from, or that without its ending or folder; may be empty) and ``group`` (the people in it, or the part
    that it comes from) must be there; ``set``, ``method`` and ``is_video`` (the picture is from a video) may be. The
    data set is called after its folder. All rows are looked at before the first medium is given.

    Raises:
        DataError: Naming the rows: a file is missing, is named twice, or is no whole picture; an original is not
            there, or is not real; a value is not allowed; a group is in two sets.
    """
    table, found = root / CROPS_TABLE, Findings()
    media = list(_table_rows(table, found))
    names = _crop_names(media)
    resolved = []
    for where, medium in media:
        keys = names.get(medium.original, set())
        if len(keys) > 1:
            found.add("name an original that several real pictures could be", f"{where} ({medium.original})")
        # One that is not found is kept as it is, and told below.
        resolved.append((where, replace(medium, original=next(iter(keys), medium.original))))
    lost = _check_rows(resolved, found, unset="none")
    for told in lost:
        found.add("name an original that is not there", told)
    found.raise_any(table)
    yield from (medium for _, medium in resolved)


def read_crop_cache(root: Path) -> Iterator[Medium]:
    """
    Read a crop cache that is ready: ``<name>.jsonl`` beside ``<name>.tar``, in *root* or in folders of it.

    Each line of an index has the fields of ``worker.training.data.cache.CachedFace``. Sets are taken from it; groups in
    ``train`` may be held out still. Some real media may have been left out of the cache with fakes made from them
    still there, so that ``UNKNOWN_ORIGINALS`` of the fakes may name an original that is not in it.

    Raises:
        DataError: Naming the rows: one cannot be read, contradicts another of the same medium, or has a value that is
            not allowed; too many originals are not there, or one is not real; a group is in two sets.
    """
    found = Findings()
    media: dict[str, tuple[str, Medium]] = {}
    for index in crop_indices(root):
        for where, row in index_rows(index, root, found):
            medium = _cached_medium(row, index, where, found)
            if medium is None:
                continue
            first = media.setdefault(medium.key, (where, medium))
            if replace(first[1], path=medium.path) != medium:
                found.add("contradict another of the same medium", f"{where} ({medium.key}, {first[0]})")
    rows = list(media.values())
    lost = _check_rows(rows, found, unset="train")
    if len(lost) > UNKNOWN_ORIGINALS * sum(bool(medium.original) for _, medium in rows):
        for told in lost:
            found.add("name an original that is not there", told)
    found.raise_any(root)
    yield from (medium for _, medium in rows)


def crop_indices(root: Path) -> list[Path]:
    """The indices of a ready crop cache, in *root* and in folders of it, in order."""
    return sorted(root.glob("*.jsonl")) + sorted(root.glob("*/*.jsonl"))


def index_rows(index: Path, root: Path, found: Findings) -> Iterator[tuple[str, dict[str, Any]]]:
    """The faces of one index below *root*, each with its place for messages; lines that cannot be read are noted."""
    name = index.relative_to(root).as_posix()
    with index.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            where = f"{name} line {number}"
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if not isinstance(row, dict):
                found.add("are no JSON object", where)
            elif "problem" not in row:
                yield where, row


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
"""By the name that configuration files use."""


CUT_KINDS: Final = frozenset({FACE_CROPS, CROP_CACHE})
"""Whose pictures are of one face each already, and whose tables are looked through before anything is built."""


def read_dataset(kind: str, root: Path) -> Iterator[Medium]:
    """
    Read the data set at *root* with the reader *kind*.

    Raises:
        DataError: There is no such folder or reader; or, while it is read, the folder is not in that layout.
    """
    if kind not in READERS:
        raise DataError(f"{kind!r} is no kind of data set; there are {', '.join(sorted(READERS))}")
    if not root.is_dir():
        raise DataError(f"there is no folder {root}")
    return _some(READERS[kind](root), f"{root} holds nothing in the layout of {kind!r}")


def guess_kind(root: Path) -> str:
    """
    Tell from its layout which reader a folder is for.

    Raises:
        DataError: It looks like none of them, or holds media without a word on which are fake.
    """
    signs: tuple[tuple[str, bool], ...] = (
        ("dfdc-preview", (root / "dataset.json").exists()),
        ("celeb-df-v2", (root / "Celeb-real").is_dir() or (root / "Celeb-synthesis").is_dir()),
        ("faceforensics", (root / "original_sequences").is_dir() or (root / "manipulated_sequences").is_dir()),
        ("dfdc", next(_metadata_files(root), None) is not None),
        (FACE_CROPS, _has_crops_table(root)),
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
    if next(_media_below(root), None) is not None:
        raise DataError(f"{root} does not say which of its media are fake; if none is, say so with --kind real")
    raise DataError(f"{root} is in no known data set's layout")


def assign_sets(media: Iterable[Medium], shares: Mapping[Set, float], *, seed: int = 0) -> Iterator[Medium]:
    """
    Give a set to every medium that has none, by a hash of its group: nothing of one group is ever divided.

    Args:
        shares: Part of the groups that go to ``validation`` and ``test``; the rest is for training.
        seed: Another one gives another division.
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
    One hash of a whole division into sets, whatever the order in which its media come, and without keeping them.

    The sum of the SHA-256 digests of all lines, so that it can be taken from a stream.
    """

    def __init__(self) -> None:
        self._sum = 0
        self.count = 0

    def add(self, medium: Medium) -> None:
        """Take one medium in."""
        line = "\t".join([medium.dataset, medium.key, medium.label, medium.group, medium.set or ""])
        self._sum += int.from_bytes(hashlib.sha256(line.encode()).digest(), "big")
        self.count += 1

    def hexdigest(self) -> str:
        """64 hexadecimal digits."""
        return hashlib.sha256(f"{self.count}/{self._sum % 2**256}".encode()).hexdigest()


class _Crowds:
    """
    Groups of people, or of videos, of whom any two in one couple belong together (union-find).

    Args:
        couples: Names; one alone is a couple with itself.
    """

    def __init__(self, couples: Iterable[Sequence[str]]) -> None:
        self._above: dict[str, str] = {}
        for couple in couples:
            for other in couple[1:]:
                # The smaller name wins, so that a group's name does not depend on the order of its couples.
                low, high = sorted((self.of(couple[0]), self.of(other)))
                self._above[high] = low

    def of(self, name: str) -> str:
        """The group of *name*: its member that comes first in the alphabet."""
        while (above := self._above.get(name, name)) != name:
            name = above
        return name


def _some(media: Iterator[Medium], complaint: str) -> Iterator[Medium]:
    first = next(media, None)
    if first is None:
        raise DataError(complaint)
    yield first
    yield from media


def _metadata_files(root: Path) -> Iterator[Path]:
    if (root / "metadata.json").exists():
        yield root / "metadata.json"
    yield from sorted(root.glob("*/metadata.json"))


def _json_object(path: Path) -> dict[str, dict[str, Any]]:
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON") from error
    if not isinstance(data, dict) or not all(isinstance(entry, dict) for entry in data.values()):
        raise DataError(f"{path} is not an object of objects")
    return data


def _label(value: object, file: Path, name: str) -> Label:
    label = _known_label(value)
    if label is None:
        raise DataError(f"{file}: {name} has the label {value!r}")
    return label


def _known_label(value: object) -> Label | None:
    match str(value).lower():
        case "real":
            return "real"
        case "fake":
            return "fake"
    return None


def _dfdc_set(split: str) -> Set | None:
    match split:
        case "validation" | "validate" | "val":
            return "validation"
        case "test":
            return "test"
    # Every released part says "train"; its own validation set is ours to choose.
    return None


def _beside(folder: str, name: object) -> str:
    if not isinstance(name, str) or not name:
        return ""
    return name if folder == "." else f"{folder}/{name}"


def _preview_people(key: str, entry: Mapping[str, Any]) -> list[str]:
    """Who is in a video of DFDC's preview, the person filmed first; by its folder where the entry says nothing."""
    people = [str(entry[name]) for name in ("target_id", "swapped_id") if entry.get(name)]
    return people or [Path(key).parts[1] if len(Path(key).parts) > 2 else key]


def _has_crops_table(root: Path) -> bool:
    """Whether a table of face crops is there, and not one of other columns under the same name."""
    try:
        with (root / CROPS_TABLE).open(encoding="utf-8-sig", newline="") as file:
            columns = next(csv.reader(file), [])
    except (OSError, ValueError, csv.Error):
        return False
    return set(CROPS_COLUMNS) <= {column.strip() for column in columns}


def _table_rows(table: Path, found: Findings) -> Iterator[tuple[str, Medium]]:
    """The media of a table of face crops with their lines, those that can be understood; mistakes are noted."""
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
            found.add("name a file that another names, too", f"{line} ({medium.key}, {seen[medium.key]})")
            continue
        seen[medium.key] = line
        yield line, medium


def _crop_medium(root: Path, row: Mapping[str, str], line: str, found: Findings) -> Medium | None:
    """The medium of a table's row; None, and noted why, if it says what cannot be."""
    key = PurePosixPath(row["file"]).as_posix()
    where = f"{line} ({row['file']})"
    label, chosen = _known_label(row["label"]), row.get("set", "").lower()
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
        original="" if _names_itself(row["original"], key) else row["original"],
        from_video=from_video,
    )


def _names_itself(original: str, key: str) -> bool:
    return original in {key, PurePosixPath(key).with_suffix("").as_posix(), PurePosixPath(key).stem}


def _crop_names(media: Iterable[tuple[str, Medium]]) -> dict[str, set[str]]:
    """
    By what ``original`` may call it, the keys of the pictures it could be: a whole name wins over a part of one, a real
    picture over a fake one.
    """
    names: dict[str, set[str]] = {}
    for wanted in ("real", "fake"):
        mine = [medium.key for _, medium in media if medium.label == wanted]
        for shortened in (
            {key: {key} for key in mine},
            _by_name(mine, lambda key: PurePosixPath(key).with_suffix("").as_posix()),
            _by_name(mine, lambda key: PurePosixPath(key).stem),
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
    """What is wrong with a picture, as ``Findings.add`` takes it, by the two ends of its file and its header."""
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
    # Pillow knows HEIC and AVIF only after a library was registered, which reading a table is no reason for.
    if problem is None and begin[4:8] != b"ftyp":
        try:
            Image.open(path).close()
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            return "name a picture whose header is damaged"
    return problem


def _cached_medium(row: Mapping[str, Any], index: Path, where: str, found: Findings) -> Medium | None:
    """The medium that a face in a ready cache belongs to; None, and noted why, if it says what cannot be."""
    texts = ("key", "label", "dataset", "group", "set", "method", "compression", "original")
    wrong = [name for name in texts if not isinstance(row.get(name), str)]
    wrong += [name for name in ("key", "dataset", "group") if row.get(name) == ""]
    wrong += ["label"] if row.get("label") not in get_args(Label) else []
    wrong += ["set"] if row.get("set") not in get_args(Set) else []
    wrong += ["is_video"] if not isinstance(row.get("is_video"), bool) else []
    if wrong:
        for name in dict.fromkeys(wrong):
            found.add(f"have no {name} that is allowed", where)
        return None
    return Medium(
        path=index.with_suffix(".tar"),
        key=row["key"],
        label=row["label"],
        dataset=row["dataset"],
        group=row["group"],
        # As with DFDC's parts: who is to be trained on is ours to divide again.
        set=None if row["set"] == "train" else row["set"],
        method=row["method"],
        compression=row["compression"],
        original=row["original"],
        from_video=row["is_video"],
    )


def _check_rows(rows: Sequence[tuple[str, Medium]], found: Findings, *, unset: str) -> list[str]:
    """
    Note what contradicts itself between media that stand in *rows* with their places.

    Args:
        unset: What messages call the set of a medium that has none yet.

    Returns:
        The rows whose original is not there.
    """
    labels = {medium.key: medium.label for _, medium in rows}
    sets: dict[tuple[str, str], Set | None] = {}
    lost = []
    for where, medium in rows:
        first = sets.setdefault((medium.dataset, medium.group), medium.set)
        if first != medium.set:
            told = f"{where} (group {medium.group}: {medium.set or unset}, not {first or unset})"
            found.add("put people into a second set", told)
        if not medium.original:
            continue
        told = f"{where} ({medium.original})"
        if medium.label == "real":
            found.add("are real and name an original", told)
        elif medium.original not in labels:
            lost.append(told)
        elif labels[medium.original] != "real":
            found.add("name an original that is not real", told)
    return lost


def _celeb_df_people(name: str) -> list[str]:
    return re.findall(r"id\d+", name)


def _celeb_df_key(line: str, file: Path) -> str:
    label, _, key = line.strip().partition(" ")
    if label not in {"0", "1"} or not key:
        raise DataError(f"{file}: {line!r} is not a label and a video")
    return key.strip()


def _faceforensics_name(path: Path, root: Path) -> re.Match[str] | None:
    """The parts of a video's name: kind, source, compression, target and donor; None if it is not to be read."""
    match = re.fullmatch(
        r"(original|manipulated)_sequences/([^/]+)/(c0|raw|c23|c40)/videos/(\d{3})(?:_(\d{3}))?\.\w+",
        path.relative_to(root).as_posix(),
    )
    sources = {"original": ("youtube",), "manipulated": FF_METHODS}
    return match if match is not None and match[2] in sources[match[1]] else None


def _faceforensics_sets(root: Path) -> dict[tuple[str, str], Set]:
    names: tuple[tuple[str, Set], ...] = (("train", "train"), ("val", "validation"), ("test", "test"))
    sets: dict[tuple[str, str], Set] = {}
    for file, name in names:
        path = root / "splits" / f"{file}.json"
        if not path.exists():
            continue
        try:
            sets |= {(str(one), str(other)): name for one, other in json.loads(path.read_bytes())}
        except (OSError, ValueError, TypeError) as error:
            raise DataError(f"{path} is not a list of pairs") from error
    return sets


def _set_of_folder(key: str) -> Set | None:
    for part in Path(key).parts[:-1]:
        match part:
            case "train" | "test" | "validation":
                return part
            case "val" | "valid":
                return "validation"
    return None


def _media_below(root: Path) -> Iterator[Path]:
    """Every picture and video below *root*, in order, one folder's names in memory at a time."""
    for folder, folders, files in os.walk(root):
        folders.sort()
        for name in sorted(files):
            if Path(name).suffix.lower() in PICTURES | VIDEOS:
                yield Path(folder, name)


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if line.strip()]
