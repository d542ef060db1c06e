"""Explained faces as the PDF of a report shows them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

MAX_PEOPLE: Final = 6
MAX_THUMBNAILS: Final = 4
"""Faces of a person over time, beside the one that is explained. The report as a page shows all."""


@dataclass(frozen=True, slots=True)
class Faces:
    """Explained people, and the images of their faces."""

    people: Sequence[Mapping[str, Any]] = ()
    """As ``api.web.explained.describe_explained`` returns them, with names of images as their sources."""
    images: Mapping[str, bytes] = field(default_factory=dict)
    """WebP by name: all that *people* name."""
    people_left_out: int = 0
    thumbnails_left_out: int = 0
    """Faces over time that are left out, of the people who are in."""

    def explain_left_out(self) -> str | None:
        """Return what is not shown as a sentence; None if all is."""
        parts = [
            f"{count} {one if count == 1 else many}"
            for count, one, many in (
                (self.people_left_out, "person", "people"),
                (self.thumbnails_left_out, "face of the people above", "faces of the people above"),
            )
            if count
        ]
        if not parts:
            return None
        return f"Left out here: {' and '.join(parts)}. The report as a page shows all that are explained."
