"""The cached faces that couples are made of, by what they are drawn for, and the draws themselves."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from worker.training.data.cache import SAME_FACE, CachedFace, CropCache
from worker.training.errors import DataError
from worker.training.fakes.pictures import Landmarks, Picture

Face = tuple[CropCache, CachedFace]
"""A face, and the cache that holds its picture."""
CANDIDATES: Final = 24
"""Faces that are drawn, of which the one whose pose is nearest to the target's becomes the donor."""
MAX_FACES_COUNTED: Final = 12
"""Faces of a medium beyond which it is drawn no more often: a video counts as much as a few still images."""
MAX_PICTURES: Final = 8192
"""Decoded pictures that each loader process keeps: 1 to 2 GB."""


class FacePool:
    """
    The faces of one set in some crop caches.

    Args:
        caches: Folders of crops.
        set_name: Faces of this set are used.
        real_from: Draw real faces of these data sets alone; of all, if empty.
        data_set_power: Power of the weight of a data set's real media; see ``fitting.recipes.Draws``.
        person_power: The same for the people within a data set.

    Raises:
        DataError: No cache holds a real face of that set.
    """

    def __init__(
        self,
        caches: Sequence[Path],
        *,
        set_name: str,
        real_from: Sequence[str] = (),
        data_set_power: float = 1.0,
        person_power: float = 1.0,
    ) -> None:
        self._powers = data_set_power, person_power
        self._pictures: dict[tuple[Path, str, int], Picture] = {}
        self.real: list[Face] = []
        """Real faces that fakes are made of; their places here are the *numbers* of other methods."""
        labelled: dict[str, list[Face]] = {"real": [], "fake": []}
        halves: dict[tuple[str, float], dict[str, list[Face]]] = {}
        for cache in map(CropCache, caches):
            for face in cache.faces():
                if face.set != set_name:
                    continue
                if face.label == "real" and (not real_from or face.dataset in real_from):
                    self.real.append((cache, face))
                if face.dataset == "pairs":
                    both = halves.setdefault((face.key.rsplit("#", 1)[0], face.time_s), {"real": [], "fake": []})
                    both[face.label].append((cache, face))
                else:
                    labelled[face.label].append((cache, face))
        if not self.real:
            raise DataError(f"no cache holds a real face of the set {set_name!r}")
        self._by_medium = _grouped(self.real)
        self._families = _families(self.real, labelled["fake"])
        faked = {face.dataset for _, face in labelled["fake"]}
        self._labelled_media = {
            # Real pictures of the data sets that have fakes: a network would recognise others by their data set.
            "real": _grouped([row for row in labelled["real"] if row[1].dataset in faked]),
            "fake": _grouped(labelled["fake"]),
        }
        self._pairs = _facing(halves)
        self.generated = labelled["fake"] + [fake for rows in self._pairs for _, fake in rows]
        """Faces that generators of the data sets made."""
        self.poses, self.generated_poses = (
            np.array([_pose(face.landmarks_px) for _, face in rows]) for rows in (self.real, self.generated)
        )

    def draw_real(self, rng: Generator) -> int:
        """Draw the number of a real face, by the powers that the pool was made with."""
        media = self._by_medium
        weights = self._medium_weights()
        rows = media[min(int(np.searchsorted(weights, rng.random() * weights[-1])), len(media) - 1)]
        return self._numbers[rows[int(rng.integers(len(rows)))][1]]

    def draw_donor(self, rows: Sequence[Face], poses: NDArray[np.float64], number: int, rng: Generator) -> int:
        """
        Draw faces in *rows* of other people than real face *number*, and choose the one whose pose is nearest to it.

        Args:
            poses: (N, 6), a row for each of *rows*.

        Returns:
            Its place in *rows*.

        Raises:
            DataError: There are no rows.
        """
        if not rows:
            raise DataError("a mixture wants faces that a generator made, and no cache holds any")
        target = self.real[number][1]
        drawn = rng.integers(len(rows), size=CANDIDATES)
        candidates = [row for row in drawn if rows[row][1].group != target.group]
        if not candidates:
            candidates = [drawn[0]]
        distances = np.abs(poses[candidates] - self.poses[number]).sum(axis=1)
        return int(candidates[int(distances.argmin())])

    def draw_pair(self, rng: Generator, purpose: str) -> tuple[Face, Face]:
        """
        Draw the two faces at one place of a side-by-side frame, real before fake.

        Raises:
            DataError: There are none; the message names the *purpose*.
        """
        if not self._pairs:
            raise DataError(f"a mixture wants {purpose}")
        frames = self._pairs[int(rng.integers(len(self._pairs)))]
        return frames[int(rng.integers(len(frames)))]

    def draw_family(self, rng: Generator) -> tuple[Face, list[Face]]:
        """
        Draw a real face and all fakes that were made from it.

        Raises:
            DataError: There are none.
        """
        if not self._families:
            raise DataError("a mixture wants fakes beside their originals, and no cache holds any")
        # By original: however many fakes were made from one, it is seen as often as any other.
        return self._families[int(rng.integers(len(self._families)))]

    def draw_labelled(self, label: Literal["real", "fake"], rng: Generator) -> Face:
        """
        Draw a face of a data set that has both labels.

        Raises:
            DataError: There are none.
        """
        media = self._labelled_media[label]
        if not media:
            raise DataError(f"a mixture wants labelled pictures, and no cache holds {label} ones of such a data set")
        medium = media[int(rng.integers(len(media)))]
        return medium[int(rng.integers(len(medium)))]

    def picture(self, row: Face) -> Picture:
        """Return the cached picture of a face, (H, W, 3) uint8 RGB, decoded at most once while it is kept."""
        cache, face = row
        # Shards of every cache have the same names, and their first pictures are at the same offset.
        key = (cache.folder, face.shard, face.offset)
        if key not in self._pictures:
            if len(self._pictures) >= MAX_PICTURES:
                self._pictures.pop(next(iter(self._pictures)))  # The one that has been kept longest.
            self._pictures[key] = cache.picture(face)
        return self._pictures[key]

    def _medium_weights(self) -> NDArray[np.float64]:
        if not hasattr(self, "_weights"):
            self._numbers = {face: number for number, (_, face) in enumerate(self.real)}
            counts = np.array([min(len(rows), MAX_FACES_COUNTED) for rows in self._by_medium], np.float64)
            faces = [rows[0][1] for rows in self._by_medium]
            data_set_power, person_power = self._powers
            people = _to_power(counts, [f"{face.dataset}/{face.group}" for face in faces], person_power)
            self._weights = np.cumsum(_to_power(people, [face.dataset for face in faces], data_set_power))
        return self._weights


def _grouped(rows: Sequence[Face]) -> list[list[Face]]:
    media: dict[str, list[Face]] = {}
    for row in rows:
        media.setdefault(f"{row[1].dataset}/{row[1].key}", []).append(row)
    return [media[key] for key in sorted(media)]


def _families(real: Sequence[Face], fakes: Sequence[Face]) -> list[tuple[Face, list[Face]]]:
    """Match real faces with the fakes made from them: same time, and the real face's video as their original."""
    made: dict[tuple[str, str, float], list[Face]] = {}
    for cache, face in fakes:
        if face.original:
            made.setdefault((face.dataset, face.original, face.time_s), []).append((cache, face))
    originals = {(face.dataset, face.key, face.time_s): (cache, face) for cache, face in real}
    return [(originals[key], rows) for key, rows in sorted(made.items()) if key in originals]


def _facing(halves: Mapping[tuple[str, float], dict[str, list[Face]]]) -> list[list[tuple[Face, Face]]]:
    """Match, for each clip, the faces of both halves that are at one place of one frame: (real, fake)."""
    pairs: dict[str, list[tuple[Face, Face]]] = {}
    for (key, _), both in halves.items():
        for fake in both["fake"]:
            near = min(both["real"], key=lambda row: row[1].distance(fake[1]), default=None)
            if near is not None and near[1].distance(fake[1]) < SAME_FACE:
                pairs.setdefault(key, []).append((near, fake))
    return [pairs[key] for key in sorted(pairs)]


def _to_power(weights: NDArray[np.float64], names: Sequence[str], power: float) -> NDArray[np.float64]:
    """Scale *weights* so that the sum over each name becomes that sum to *power*."""
    _, numbers = np.unique(np.array(names), return_inverse=True)
    sums = np.bincount(numbers, weights)
    return np.asarray(weights * sums[numbers] ** (power - 1.0), np.float64)


def _pose(landmarks: Landmarks) -> NDArray[np.float64]:
    """Normalise landmarks by place, size and roll to (6,): the pose of the head and the opening of the mouth."""
    marks = np.array(landmarks, np.float64)
    eyes = marks[1] - marks[0]
    unit = max(float(np.hypot(*eyes)), 1e-6)
    turn = np.array([[eyes[0], eyes[1]], [-eyes[1], eyes[0]]]) / unit**2
    return np.asarray(((marks[2:] - marks[:2].mean(axis=0)) @ turn.T).reshape(-1), np.float64)
