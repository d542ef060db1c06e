"""Makes one couple of a given kind: a real picture and a fake, both with the same augmentation, and the fake's mask."""

import copy
import math
from collections.abc import Sequence
from typing import Final, Literal

import cv2
import numpy as np
from numpy.random import Generator

from worker.detection.faces import Box, square_around
from worker.training.fakes.aligned import moved_onto, visible_difference
from worker.training.fakes.augment import Augmentation
from worker.training.fakes.blending import Blend, Style, mixed, part_mask, self_blend, swap
from worker.training.fakes.faces import CANDIDATES, Face, FacePool
from worker.training.fakes.generators.painting import PaintedKind, part_place
from worker.training.fakes.generators.paintings import Paintings
from worker.training.fakes.kinds import SQUARES, Kind
from worker.training.fakes.pasting import lay_over, paste
from worker.training.fakes.pictures import Landmarks, Mask, Picture

OWN: Final = 0.6
"""Share of painted faces that are put back where they were; the others are another person's."""
WHOLE: Final = 0.5
"""Share of decoded and restored faces that are pasted as whole squares; the others are seen through a face mask."""
SPARE: Final = 0.1
"""Margin around the crop, as a share of the face, that moving the crop may need."""


class CoupleMaker:
    """
    Makes couples from the faces of a pool and the paintings of those faces.

    Args:
        size_px: Side of the crops.
        margin: Around a face's box, as a share of its larger side.
        whole: Share of decoded and restored faces that are pasted as whole squares.
    """

    def __init__(
        self, faces: FacePool, paintings: Paintings, *, size_px: int, margin: float, whole: float = WHOLE
    ) -> None:
        self.faces = faces
        self.paintings = paintings
        self._size_px = size_px
        self._cells = mask_cells(size_px)
        self._margin = margin
        self._whole = whole

    def make(self, kind: Kind, augmentation: Augmentation, rng: Generator) -> tuple[list[Picture], Mask]:
        """
        Make a couple of *kind*.

        Returns:
            The real and the fake picture, (S, S, 3) uint8 each, and the (C, C) float32 mask of the fake in [0, 1], or
            -1 everywhere where it is not known.

        Raises:
            DataError: The pool holds no faces for this kind.
        """
        match kind:
            case "pairs":
                return self._pair(augmentation, rng)
            case "parts":
                return self._part(augmentation, rng)
            case "originals":
                return self._original_couple(augmentation, rng), self.unknown_mask()
            case "labelled":
                return self._labelled_couple(augmentation, rng), self.unknown_mask()
        blend, box = self.blend(kind, augmentation, rng)
        mask = self._place(blend.mask, augmentation, box, copy.deepcopy(rng))
        return self._augment([blend.real, blend.fake], augmentation, box, rng), mask

    def blend(self, kind: Kind, augmentation: Augmentation, rng: Generator) -> tuple[Blend, Box]:
        """
        Blend a fake of *kind*, which is not of a data set, into a real picture.

        Args:
            augmentation: How far it moves the crop decides how much of the picture is kept; nothing else is applied.

        Returns:
            The blend, and the box of its face.

        Raises:
            DataError: The pool holds no faces for this kind.
        """
        faces = self.faces
        match kind:
            case "painted" | "decoded" | "restored" | "inpainted":
                return self._painted(kind, augmentation, rng)
            case "swap" | "transplant":
                number = faces.draw_real(rng)
                picture, box, marks = self._cut(faces.real[number], augmentation)
                if kind == "swap":
                    donor = faces.real[faces.draw_donor(faces.real, faces.poses, number, rng)]
                else:
                    donor = faces.generated[faces.draw_donor(faces.generated, faces.generated_poses, number, rng)]
                source, _, source_marks = self._whole_picture(donor)
                # The traces of a generator are to be learnt, so little is done to a face that one made.
                source_is: Literal["real", "swapped"] = "real" if kind == "swap" else "swapped"
                return swap(picture, marks, source, source_marks, rng, source_is=source_is), box
            case "textbook" | "subtle":
                picture, box, marks = self._cut(faces.real[faces.draw_real(rng)], augmentation)
                style: Style = kind
                return self_blend(picture, marks, rng, style), box
        raise ValueError(f"couples of the kind {kind!r} are not blended")

    def unknown_mask(self) -> Mask:
        """Return the mask of a fake of which nothing says where it was changed: (C, C), all -1."""
        return np.full((self._cells, self._cells), -1.0, np.float32)

    def _place(self, mask: Mask, augmentation: Augmentation, box: Box, rng: Generator) -> Mask:
        return augmentation.place(mask, box, rng, cells=self._cells, margin=self._margin)

    def _augment(self, pictures: list[Picture], augmentation: Augmentation, box: Box, rng: Generator) -> list[Picture]:
        return augmentation.apply(pictures, box, rng, size_px=self._size_px, margin=self._margin)

    def _pair(self, augmentation: Augmentation, rng: Generator) -> tuple[list[Picture], Mask]:
        real, fake = self.faces.draw_pair(rng, "pairs of aligned frames, and no cache holds any")
        seed = int(rng.integers(2**31))
        pictures = self._each_at_its_box((real, fake), augmentation, seed)
        fake_picture = self.faces.picture(fake)
        moved = moved_onto(self.faces.picture(real), real[1], fake_picture, fake[1])
        mask = visible_difference(moved, fake_picture)
        return pictures, self._place(mask, augmentation, fake[1].box_px, np.random.default_rng(seed))

    def _part(self, augmentation: Augmentation, rng: Generator) -> tuple[list[Picture], Mask]:
        real, fake = self.faces.draw_pair(rng, "parts of swapped faces, and no cache holds any pairs")
        picture, box, marks = self._whole_picture(fake)
        moved = moved_onto(self.faces.picture(real), real[1], picture, fake[1])
        changed = visible_difference(moved, picture)
        mask = part_mask(picture.shape[:2], marks, rng)
        placed = self._place(mask * changed, augmentation, box, copy.deepcopy(rng))
        return self._augment([moved, mixed(picture, moved, mask)], augmentation, box, rng), placed

    def _original_couple(self, augmentation: Augmentation, rng: Generator) -> list[Picture]:
        """A data set's fake and the picture that it was made from, each cropped where its own face was found."""
        real, fakes = self.faces.draw_family(rng)
        seed = int(rng.integers(2**31))
        return self._each_at_its_box((real, fakes[int(rng.integers(len(fakes)))]), augmentation, seed)

    def _each_at_its_box(self, rows: Sequence[Face], augmentation: Augmentation, seed: int) -> list[Picture]:
        """Crop each where the detector finds its face, as serving does, and augment all alike."""
        pictures = []
        for row in rows:
            picture, box, _ = self._whole_picture(row)
            pictures += self._augment([picture], augmentation, box, np.random.default_rng(seed))
        return pictures

    def _labelled_couple(self, augmentation: Augmentation, rng: Generator) -> list[Picture]:
        """A real and a fake face, resized to one size first: in some data sets the sizes of the classes differ."""
        rows = [self.faces.draw_labelled("real", rng), self.faces.draw_labelled("fake", rng)]
        sides = [max(face.box_px[2] - face.box_px[0], face.box_px[3] - face.box_px[1]) for _, face in rows]
        wanted = min(sides) * rng.uniform(0.7, 1.0)
        seed = int(rng.integers(2**31))
        pictures = []
        for row, side in zip(rows, sides, strict=True):
            picture, box, _ = self._whole_picture(row)
            factor = wanted / side
            smaller = np.asarray(
                cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA), np.uint8
            )
            left, top, right, bottom = (value * factor for value in box)
            scaled = (left, top, right, bottom)
            pictures += self._augment([smaller], augmentation, scaled, np.random.default_rng(seed))
        return pictures

    def _painted(self, kind: PaintedKind, augmentation: Augmentation, rng: Generator) -> tuple[Blend, Box]:
        """A painted face, pasted as a whole or blended back, or another person's blended in."""
        # The draw is skipped for other kinds, so that older recipes get the couples that they always got.
        if kind == "inpainted" or (kind in SQUARES and rng.random() < self._whole):
            number = self._painted_number(kind, rng)
            row, paintings = self.faces.real[number], self.paintings.of(kind, number)
            target, box, _ = self._whole_picture(row)
            picture = self.faces.picture(paintings[int(rng.integers(len(paintings)))])
            place = part_place(row[1], target.shape)
            # What was painted within a mask is already blended, and fits its place to the pixel.
            blend = lay_over(target, picture, place) if kind == "inpainted" else paste(target, picture, place)
            return blend, box
        number = self.faces.draw_real(rng)
        picture, box, marks = self._cut(self.faces.real[number], augmentation)
        source, _, source_marks = self._whole_picture(self._painting(kind, number, rng))
        return swap(picture, marks, source, source_marks, rng, source_is="painted"), box

    def _painted_number(self, kind: PaintedKind, rng: Generator) -> int:
        """Draw real faces as for other kinds until one was painted; after ``CANDIDATES`` draws, any painted one."""
        originals = self.paintings.originals(kind)
        for _ in range(CANDIDATES):
            number = self.faces.draw_real(rng)
            if self.paintings.of(kind, number):
                return number
        return originals[int(rng.integers(len(originals)))]

    def _painting(self, kind: PaintedKind, number: int, rng: Generator) -> Face:
        """Draw a painting of real face *number*, or of another person's face in a similar pose."""
        faces, originals = self.faces, self.paintings.originals(kind)
        made = self.paintings.of(kind, number)
        if not made or rng.random() >= OWN:
            rows, poses = [faces.real[original] for original in originals], faces.poses[originals]
            made = self.paintings.of(kind, originals[faces.draw_donor(rows, poses, number, rng)])
        return made[int(rng.integers(len(made)))]

    def _whole_picture(self, row: Face) -> tuple[Picture, Box, Landmarks]:
        """A cached picture, with its face's box and landmarks."""
        return self.faces.picture(row), row[1].box_px, row[1].landmarks_px

    def _cut(self, row: Face, augmentation: Augmentation) -> tuple[Picture, Box, Landmarks]:
        """A cached picture, cut down to what the crop can need, with its face's box and landmarks."""
        picture, face = self.faces.picture(row), row[1]
        x, y, side = square_around(face.box_px, self._margin + 2 * augmentation.jitter + SPARE)
        if x < 0 or y < 0 or x + side > picture.shape[1] or y + side > picture.shape[0]:
            return picture, face.box_px, face.landmarks_px
        part = np.ascontiguousarray(picture[y : y + side, x : x + side])
        left, top, right, bottom = face.box_px
        marks = [(a - x, b - y) for a, b in face.landmarks_px]
        return part, (left - x, top - y, right - x, bottom - y), marks


def mask_cells(size_px: int) -> int:
    """Return the cells a side of the masks of crops of *size_px*: an EfficientNet's map at a sixteenth."""
    return math.ceil(size_px / 16)
