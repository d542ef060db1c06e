"""The pool of cached faces, from which the faces of real/fake pairs are drawn."""

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
DONOR_CANDIDATES: Final = 24
"""Faces that are drawn, of which the one whose pose is nearest to the target's becomes the donor."""
MAX_COUNTED_FACES: Final = 12
"""Largest number of faces that a medium's weight counts, so that a video weighs as much as a few still images."""
MAX_KEPT_PICTURES: Final = 8192
"""Decoded pictures that each loader process keeps: 1 to 2 GB."""


class FacePool:
    """
    The faces of one set in some crop caches.

    Args:
        caches: Folders of crops.
        set_name: Faces of this set are used.
        real_from: Draw real faces of these data sets alone; of all, if empty.
        data_set_power: Power of the weight of a data set's real media; see ``fitting.recipes.SamplingBalance``.
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
        """Real faces that fakes are made from; their indices are the *numbers* of other methods."""
        labelled: dict[str, list[Face]] = {"real": [], "fake": []}
        halves: dict[tuple[str, float], dict[str, list[Face]]] = {}
        for cache in map(CropCache, caches):
            for face in cache.read_faces():
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
        self._by_medium = _group_by_medium(self.real)
        self.originals_with_fakes = _match_originals(self.real, labelled["fake"])
        """Real faces, each with all fakes that were made from it."""
        faked = {face.dataset for _, face in labelled["fake"]}
        self._labelled_media = {
            # Real pictures of the data sets that have fakes: a network would recognise others by their data set.
            "real": _group_by_medium([row for row in labelled["real"] if row[1].dataset in faked]),
            "fake": _group_by_medium(labelled["fake"]),
        }
        self.side_by_side = _match_halves(halves)
        """For each side-by-side clip, the real and the fake version of each face."""
        self.generated = labelled["fake"] + [fake for rows in self.side_by_side for _, fake in rows]
        """Faces made by the generators of the data sets."""
        self.poses, self.generated_poses = (
            np.array([_pose_vector(face.landmarks_px) for _, face in rows]) for rows in (self.real, self.generated)
        )

    def draw_real(self, rng: Generator) -> int:
        """Draw the number of a real face, by the powers that the pool was made with."""
        media = self._by_medium
        weights = self._medium_weights()
        rows = media[min(int(np.searchsorted(weights, rng.random() * weights[-1])), len(media) - 1)]
        return self._numbers[rows[int(rng.integers(len(rows)))][1]]

    def draw_donor(self, rows: Sequence[Face], poses: NDArray[np.float64], number: int, rng: Generator) -> int:
        """
        Draw faces of other people than real face *number* from *rows*, and return the one with the nearest pose.

        Args:
            poses: (N, 6), a row for each of *rows*.

        Returns:
            Its index in *rows*.

        Raises:
            DataError: There are no rows.
        """
        if not rows:
            raise DataError("a mixture needs faces made by a generator, and no cache holds any")
        target = self.real[number][1]
        drawn = rng.integers(len(rows), size=DONOR_CANDIDATES)
        candidates = [row for row in drawn if rows[row][1].group != target.group]
        if not candidates:
            candidates = [drawn[0]]
        distances = np.abs(poses[candidates] - self.poses[number]).sum(axis=1)
        return int(candidates[int(distances.argmin())])

    def draw_side_by_side(self, rng: Generator, purpose: str) -> tuple[Face, Face]:
        """
        Draw the real and the fake version of one face from the halves of a side-by-side frame.

        Raises:
            DataError: There are none; the message names the *purpose*.
        """
        if not self.side_by_side:
            raise DataError(f"a mixture needs {purpose}")
        frames = self.side_by_side[int(rng.integers(len(self.side_by_side)))]
        return frames[int(rng.integers(len(frames)))]

    def draw_original_with_fakes(self, rng: Generator) -> tuple[Face, list[Face]]:
        """
        Draw a real face and all fakes that were made from it.

        Raises:
            DataError: There are none.
        """
        if not self.originals_with_fakes:
            raise DataError("a mixture needs fakes with their originals, and no cache holds any")
        # Drawn by original, so that its frequency does not depend on its number of fakes.
        return self.originals_with_fakes[int(rng.integers(len(self.originals_with_fakes)))]

    def draw_labelled(self, label: Literal["real", "fake"], rng: Generator) -> Face:
        """
        Draw a face of a data set that has both labels.

        Raises:
            DataError: There are none.
        """
        media = self._labelled_media[label]
        if not media:
            raise DataError(
                f"a mixture needs labelled pictures, and no cache holds {label} ones of a data set with both labels"
            )
        medium = media[int(rng.integers(len(media)))]
        return medium[int(rng.integers(len(medium)))]

    def load_picture(self, row: Face) -> Picture:
        """Return the cached picture of a face, (H, W, 3) uint8 RGB, decoded at most once while it is kept."""
        cache, face = row
        # Shards of every cache have the same names, and their first pictures are at the same offset.
        key = (cache.folder, face.shard, face.offset)
        if key not in self._pictures:
            if len(self._pictures) >= MAX_KEPT_PICTURES:
                self._pictures.pop(next(iter(self._pictures)))  # The oldest entry.
            self._pictures[key] = cache.read_picture(face)
        return self._pictures[key]

    def _medium_weights(self) -> NDArray[np.float64]:
        if not hasattr(self, "_weights"):
            self._numbers = {face: number for number, (_, face) in enumerate(self.real)}
            counts = np.array([min(len(rows), MAX_COUNTED_FACES) for rows in self._by_medium], np.float64)
            faces = [rows[0][1] for rows in self._by_medium]
            data_set_power, person_power = self._powers
            people = scale_sums(counts, [f"{face.dataset}/{face.group}" for face in faces], person_power)
            self._weights = np.cumsum(scale_sums(people, [face.dataset for face in faces], data_set_power))
        return self._weights


def _group_by_medium(rows: Sequence[Face]) -> list[list[Face]]:
    media: dict[str, list[Face]] = {}
    for row in rows:
        media.setdefault(f"{row[1].dataset}/{row[1].key}", []).append(row)
    return [media[key] for key in sorted(media)]


def _match_originals(real: Sequence[Face], fakes: Sequence[Face]) -> list[tuple[Face, list[Face]]]:
    """Match real faces with the fakes made from them: same time, and the real face's video as their original."""
    fakes_of: dict[tuple[str, str, float], list[Face]] = {}
    for cache, face in fakes:
        if face.original:
            fakes_of.setdefault((face.dataset, face.original, face.time_s), []).append((cache, face))
    originals = {(face.dataset, face.key, face.time_s): (cache, face) for cache, face in real}
    return [(originals[key], rows) for key, rows in sorted(fakes_of.items()) if key in originals]


def _match_halves(halves: Mapping[tuple[str, float], dict[str, list[Face]]]) -> list[list[tuple[Face, Face]]]:
    """Match the faces at the same position of both halves of a frame, for each clip: (real, fake)."""
    pairs: dict[str, list[tuple[Face, Face]]] = {}
    for (key, _), both in halves.items():
        for fake in both["fake"]:
            near = min(both["real"], key=lambda row: row[1].distance_to(fake[1]), default=None)
            if near is not None and near[1].distance_to(fake[1]) < SAME_FACE:
                pairs.setdefault(key, []).append((near, fake))
    return [pairs[key] for key in sorted(pairs)]


def scale_sums(weights: NDArray[np.float64], names: Sequence[str], power: float) -> NDArray[np.float64]:
    """Scale *weights* so that the sum over each name is raised to *power*."""
    _, numbers = np.unique(np.array(names), return_inverse=True)
    sums = np.bincount(numbers, weights)
    return np.asarray(weights * sums[numbers] ** (power - 1.0), np.float64)


def _pose_vector(landmarks: Landmarks) -> NDArray[np.float64]:
    """Normalise landmarks by place, size and roll to (6,): the pose of the head and the opening of the mouth."""
    marks = np.array(landmarks, np.float64)
    eyes = marks[1] - marks[0]
    unit = max(float(np.hypot(*eyes)), 1e-6)
    turn = np.array([[eyes[0], eyes[1]], [-eyes[1], eyes[0]]]) / unit**2
    return np.asarray(((marks[2:] - marks[:2].mean(axis=0)) @ turn.T).reshape(-1), np.float64)
