"""An index of paintings by the real face that they show."""

from collections.abc import Sequence
from pathlib import Path

from worker.training.data.cache import CachedFace, CropCache
from worker.training.errors import DataError
from worker.training.fakes.generators.painting import PaintedKind, face_name

Row = tuple[CropCache, CachedFace]


class Paintings:
    """
    Paintings of some real faces.

    Args:
        folders: Caches that ``painting.paint_faces`` wrote.
        faces: The real faces, whose places are the *numbers* of other methods.
    """

    def __init__(self, folders: Sequence[Path], faces: Sequence[CachedFace]) -> None:
        by_name: dict[str, dict[str, list[Row]]] = {}
        for cache in map(CropCache, folders):
            for face in cache.faces():
                by_name.setdefault(face.dataset, {}).setdefault(face.original, []).append((cache, face))
        self._made: dict[str, dict[int, list[Row]]] = {}
        for number, name in enumerate(map(face_name, faces)):
            for kind, made in by_name.items():
                if name in made:
                    self._made.setdefault(kind, {})[number] = made[name]

    def of(self, kind: PaintedKind, number: int) -> list[Row]:
        """Return the paintings of a face by the networks of *kind*; empty if they did not paint it."""
        return self._made.get(kind, {}).get(number, [])

    def originals(self, kind: PaintedKind) -> list[int]:
        """
        Return the numbers of the faces that networks of *kind* painted, in order.

        Raises:
            DataError: They painted none.
        """
        # If people were divided into sets anew after they were painted, some real faces have no painting.
        numbers = list(self._made.get(kind, {}))
        if not numbers:
            raise DataError(f"a mixture wants {kind} faces, and no network painted any of this set's")
        return numbers
