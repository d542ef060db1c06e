"""
Readers of published data sets, each in exactly the layout that its authors chose.

Rössler et al., "FaceForensics++: Learning to Detect Manipulated Facial Images", ICCV 2019; Dolhansky et al., "The
DeepFake Detection Challenge (DFDC) Dataset", 2020, and its "Preview Dataset", 2019; Li, Yang, Sun, Qi and Lyu,
"Celeb-DF: A Large-scale Challenging Dataset for DeepFake Forensics", CVPR 2020.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from worker.training.data.media import Label, Medium, Set, find_media, parse_label
from worker.training.errors import DataError

FF_METHODS: Final = ("Deepfakes", "Face2Face", "FaceShifter", "FaceSwap", "NeuralTextures")
FF_COMPRESSIONS: Final = ("c0", "raw", "c23", "c40")
"""FaceForensics++ calls its uncompressed videos c0 in the paper and in older downloads, raw in newer ones."""


def read_dfdc(root: Path) -> Iterator[Medium]:
    """
    Read the DeepFake Detection Challenge: folders such as ``dfdc_train_part_0`` with ``metadata.json`` each.

    Entries look like ``{"aagfhgtpmv.mp4": {"label": "FAKE", "split": "train", "original": "vudstovrck.mp4"}}``.
    ``original`` is null or missing where a video is real, and names a video of the same part where it is fake.
    The data set does not name its actors. All videos made from one original are in one part, so a part is a group;
    whether an actor appears in two parts is not known.
    """
    for metadata in find_dfdc_metadata(root):
        folder = metadata.parent
        relative = folder.relative_to(root).as_posix()
        part = folder.name if relative == "." else relative
        for name, entry in sorted(_read_json_object(metadata).items()):
            if not (folder / name).exists():
                continue  # Parts are often unpacked in pieces.
            yield Medium(
                path=folder / name,
                key=(folder / name).relative_to(root).as_posix(),
                label=_require_label(entry.get("label"), metadata, name),
                dataset="dfdc",
                group=part,
                set=_dfdc_set(str(entry.get("split", ""))),
                original=_sibling_key(relative, entry.get("original")),
            )


def read_dfdc_preview(root: Path) -> Iterator[Medium]:
    """
    Read the DFDC preview: ``dataset.json`` beside ``original_videos/`` and ``method_A/``, ``method_B/``.

    Keys are paths such as ``method_A/<target>/…/<target>_<swapped>_A_001.mp4``; ``set`` is train or test, ``label``
    real or fake, and ``target_id`` and ``swapped_id`` name the people. Its test set shares none of them with its
    training set. Within a set, all people who are connected by swaps are one group.
    """
    entries = _read_json_object(root / "dataset.json")
    clusters = _Clusters(_preview_people(key, entry) for key, entry in entries.items())
    for key, entry in sorted(entries.items()):
        if not (root / key).exists():
            continue
        yield Medium(
            path=root / key,
            key=key,
            label=_require_label(entry.get("label"), root / "dataset.json", key),
            dataset="dfdc-preview",
            group=clusters.find(_preview_people(key, entry)[0]),
            set="test" if entry.get("set") == "test" else None,
            method=key.split("/", 1)[0] if key.startswith("method_") else "",
        )


def read_faceforensics(root: Path) -> Iterator[Medium]:
    """
    Read FaceForensics++: ``original_sequences/youtube/c23/videos/000.mp4`` and
    ``manipulated_sequences/Deepfakes/c23/videos/000_003.mp4``, every compression and method that is there.

    The official split is taken from ``splits/{train,val,test}.json`` beside them: lists of pairs of videos that were
    swapped with each other. Both, and everything made of them, are one group and stay in one set; without those files
    the names of the fakes show which two belong together. DeepFakeDetection's videos of actors, masks and extracted
    frames are skipped. Whether a person is in two of the thousand videos is not known.
    """
    sets = _faceforensics_sets(root)
    official = {one: name for pair, name in sets.items() for one in pair}
    found = [match for path in find_media(root) if (match := _faceforensics_name(path, root)) is not None]
    clusters = _Clusters([*sets, *((match[4], match[5] or match[4]) for match in found)])
    for match in found:
        kind, source, compression, target, _ = match.groups()
        path = root / match[0]
        yield Medium(
            path=path,
            key=path.relative_to(root).as_posix(),
            label="real" if kind == "original" else "fake",
            dataset="faceforensics",
            group=clusters.find(target),
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
    is in it, which leaves little more than YouTube-real to train on: the data set is meant for testing. Without the
    list everything is read, and people who were swapped with each other, by however many steps, are one group.
    """
    listed = root / "List_of_testing_videos.txt"
    test = {_celeb_df_key(line, listed) for line in _read_lines(listed)} if listed.exists() else set()
    known = {person for key in test for person in _celeb_df_people(key)}
    found: list[tuple[Path, Label, list[str]]] = []
    folders: dict[str, Label] = {"Celeb-real": "real", "YouTube-real": "real", "Celeb-synthesis": "fake"}
    for folder, label in folders.items():
        for path in find_media(root / folder):
            people = _celeb_df_people(path.stem)
            if path.relative_to(root).as_posix() in test or known.isdisjoint(people):
                found.append((path, label, people))
    clusters = _Clusters(people for _, _, people in found if people)
    for path, label, people in found:
        key = path.relative_to(root).as_posix()
        clip = re.sub(r"^(id\d+)_id\d+_", r"\1_", path.stem)
        yield Medium(
            path=path,
            key=key,
            label=label,
            dataset="celeb-df-v2",
            group=clusters.find(people[0]) if people else path.stem,
            set="test" if key in test else None,
            method="Celeb-synthesis" if label == "fake" else "",
            original=f"Celeb-real/{clip}.mp4" if label == "fake" else "",
        )


class _Clusters:
    """
    Groups of people or videos, connected by the pairs that they are in (union-find).

    Args:
        pairs: Names that belong together; a name may be alone.
    """

    def __init__(self, pairs: Iterable[Sequence[str]]) -> None:
        self._parents: dict[str, str] = {}
        for pair in pairs:
            for other in pair[1:]:
                # The smaller name wins, so that a group's name does not depend on the order of its pairs.
                low, high = sorted((self.find(pair[0]), self.find(other)))
                self._parents[high] = low

    def find(self, name: str) -> str:
        """Return the name of the group of *name*: its member that comes first in the alphabet."""
        while (parent := self._parents.get(name, name)) != name:
            name = parent
        return name


def find_dfdc_metadata(root: Path) -> Iterator[Path]:
    """Yield the ``metadata.json`` files of DFDC: in *root*, then in its folders."""
    if (root / "metadata.json").exists():
        yield root / "metadata.json"
    yield from sorted(root.glob("*/metadata.json"))


def _read_json_object(path: Path) -> dict[str, dict[str, Any]]:
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON") from error
    if not isinstance(data, dict) or not all(isinstance(entry, dict) for entry in data.values()):
        raise DataError(f"{path} is not an object of objects")
    return data


def _require_label(value: object, file: Path, name: str) -> Label:
    label = parse_label(value)
    if label is None:
        raise DataError(f"{file}: {name} has the label {value!r}")
    return label


def _dfdc_set(split: str) -> Set | None:
    match split:
        case "validation" | "validate" | "val":
            return "validation"
        case "test":
            return "test"
    # Every released part says "train"; the recipe holds out a validation set itself.
    return None


def _sibling_key(folder: str, name: object) -> str:
    if not isinstance(name, str) or not name:
        return ""
    return name if folder == "." else f"{folder}/{name}"


def _preview_people(key: str, entry: Mapping[str, Any]) -> list[str]:
    """Return the people in a video of DFDC's preview, the target first, or its folder if the entry names nobody."""
    people = [str(entry[name]) for name in ("target_id", "swapped_id") if entry.get(name)]
    return people or [Path(key).parts[1] if len(Path(key).parts) > 2 else key]


def _celeb_df_people(name: str) -> list[str]:
    return re.findall(r"id\d+", name)


def _celeb_df_key(line: str, file: Path) -> str:
    label, _, key = line.strip().partition(" ")
    if label not in {"0", "1"} or not key:
        raise DataError(f"{file}: {line!r} is not a label and a video")
    return key.strip()


def _faceforensics_name(path: Path, root: Path) -> re.Match[str] | None:
    """Match a video's name: kind, source, compression, target and donor; None if the video is skipped."""
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


def _read_lines(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if line.strip()]
