"""An index of painted faces by the real face that each was painted from."""

from collections.abc import Sequence
from pathlib import Path

from worker.training.data.cache import CachedFace, CropCache
from worker.training.errors import DataError
from worker.training.fakes.generators.painting import PaintedKind, face_name

Row = tuple[CropCache, CachedFace]


class PaintedFaceIndex:
    """
    Finds the painted versions of real faces.

    Args:
        folders: Caches that ``painting.paint_faces`` wrote.
        faces: The real faces, whose indices are the *numbers* of other methods.
    """

    def __init__(self, folders: Sequence[Path], faces: Sequence[CachedFace]) -> None:
        by_name: dict[str, dict[str, list[Row]]] = {}
        for cache in map(CropCache, folders):
            for face in cache.read_faces():
                by_name.setdefault(face.dataset, {}).setdefault(face.original, []).append((cache, face))
        self._made: dict[str, dict[int, list[Row]]] = {}
        for number, name in enumerate(map(face_name, faces)):
            for kind, made in by_name.items():
                if name in made:
                    self._made.setdefault(kind, {})[number] = made[name]

    def find_painted(self, kind: PaintedKind, number: int) -> list[Row]:
        """Return the versions of a face that networks of *kind* painted; empty if there are none."""
        return self._made.get(kind, {}).get(number, [])

    def list_originals(self, kind: PaintedKind) -> list[int]:
        """
        Return the numbers of the faces that networks of *kind* painted, in order.

        Raises:
            DataError: They painted none.
        """
        # If the division into sets changed after painting, some real faces have no painted version.
        numbers = list(self._made.get(kind, {}))
        if not numbers:
            raise DataError(f"a mixture needs {kind} faces, and no network painted any of this set")
        return numbers
