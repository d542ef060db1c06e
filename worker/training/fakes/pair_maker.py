"""The maker of real/fake pairs: a real picture and its fake with the same augmentation, and the fake's mask."""

import copy
import math
from collections.abc import Sequence
from typing import Final, Literal

import cv2
import numpy as np
from numpy.random import Generator

from worker.detection.faces import Box, square_around
from worker.training.fakes.alignment import align_real_to_fake, measure_visible_difference
from worker.training.fakes.augmentation import Augmentation
from worker.training.fakes.blending import Blend, Style, alpha_blend, part_mask, self_blend, swap
from worker.training.fakes.faces import DONOR_CANDIDATES, Face, FacePool
from worker.training.fakes.generators.painted_faces import PaintedFaceIndex
from worker.training.fakes.generators.painting import PaintedKind, locate_part
from worker.training.fakes.kinds import WHOLE_SQUARE_KINDS, Kind
from worker.training.fakes.pasting import paste_exactly, paste_square
from worker.training.fakes.pictures import Landmarks, Mask, Picture

OWN_FACE_SHARE: Final = 0.6
"""Share of painted faces that are blended into their own picture; the others go into another person's."""
WHOLE_SQUARE_SHARE: Final = 0.5
"""Share of decoded and restored faces that are pasted as whole squares; the others are blended by a face mask."""
SPARE_MARGIN: Final = 0.1
"""Margin around the crop, as a share of the face, that moving the crop may need."""


class RealFakePairMaker:
    """
    Makes real/fake pairs from a pool of faces and their painted versions.

    Args:
        size_px: Side of the crops.
        margin: Around a face's box, as a share of its larger side.
        whole: Share of decoded and restored faces that are pasted as whole squares.
    """

    def __init__(
        self,
        faces: FacePool,
        painted_faces: PaintedFaceIndex,
        *,
        size_px: int,
        margin: float,
        whole: float = WHOLE_SQUARE_SHARE,
    ) -> None:
        self.faces = faces
        self.painted_faces = painted_faces
        self._size_px = size_px
        self._cells = mask_cells(size_px)
        self._margin = margin
        self._whole = whole

    def make(self, kind: Kind, augmentation: Augmentation, rng: Generator) -> tuple[list[Picture], Mask]:
        """
        Make a pair of *kind*.

        Returns:
            The real and the fake picture, (S, S, 3) uint8 each, and the (C, C) float32 mask of the fake in [0, 1], or
            -1 everywhere where it is not known.

        Raises:
            DataError: The pool holds no faces for this kind.
        """
        match kind:
            case "pairs":
                return self._make_side_by_side_pair(augmentation, rng)
            case "parts":
                return self._make_parts_pair(augmentation, rng)
            case "originals":
                return self._make_original_pair(augmentation, rng), self.make_unknown_mask()
            case "labelled":
                return self._make_labelled_pair(augmentation, rng), self.make_unknown_mask()
        blend, box = self.blend(kind, augmentation, rng)
        mask = self._crop_mask(blend.mask, augmentation, box, copy.deepcopy(rng))
        return self.augment([blend.real, blend.fake], augmentation, box, rng), mask

    def blend(self, kind: Kind, augmentation: Augmentation, rng: Generator) -> tuple[Blend, Box]:
        """
        Make a pseudo-fake of *kind* and blend it into a real picture.

        Args:
            augmentation: Only its jitter is used, to decide how much of the picture is kept.

        Returns:
            The blend, and the box of its face.

        Raises:
            DataError: The pool holds no faces for this kind.
        """
        faces = self.faces
        match kind:
            case "painted" | "decoded" | "restored" | "inpainted":
                return self._blend_painted(kind, augmentation, rng)
            case "swap" | "transplant":
                number = faces.draw_real(rng)
                picture, box, marks = self.load_cut(faces.real[number], augmentation)
                if kind == "swap":
                    donor = faces.real[faces.draw_donor(faces.real, faces.poses, number, rng)]
                else:
                    donor = faces.generated[faces.draw_donor(faces.generated, faces.generated_poses, number, rng)]
                source, _, source_marks = self._load_whole(donor)
                # The traces of a generator are to be learnt, so little is done to a face that one made.
                source_is: Literal["real", "swapped"] = "real" if kind == "swap" else "swapped"
                return swap(picture, marks, source, source_marks, rng, source_is=source_is), box
            case "textbook" | "subtle":
                picture, box, marks = self.load_cut(faces.real[faces.draw_real(rng)], augmentation)
                style: Style = kind
                return self_blend(picture, marks, rng, style), box
        raise ValueError(f"pairs of the kind {kind!r} are not blended")

    def make_unknown_mask(self) -> Mask:
        """Return the mask of a fake whose changed area is unknown: (C, C), all -1."""
        return np.full((self._cells, self._cells), -1.0, np.float32)

    def _crop_mask(self, mask: Mask, augmentation: Augmentation, box: Box, rng: Generator) -> Mask:
        return augmentation.crop_mask(mask, box, rng, cells=self._cells, margin=self._margin)

    def augment(self, pictures: list[Picture], augmentation: Augmentation, box: Box, rng: Generator) -> list[Picture]:
        """Crop *pictures* around *box* to (S, S, 3) and apply the same changes to all of them."""
        return augmentation.apply(pictures, box, rng, size_px=self._size_px, margin=self._margin)

    def _make_side_by_side_pair(self, augmentation: Augmentation, rng: Generator) -> tuple[list[Picture], Mask]:
        real, fake = self.faces.draw_side_by_side(rng, "side-by-side videos, and no cache holds any")
        seed = int(rng.integers(2**31))
        pictures = self._augment_at_own_boxes((real, fake), augmentation, seed)
        fake_picture = self.faces.load_picture(fake)
        moved = align_real_to_fake(self.faces.load_picture(real), real[1], fake_picture, fake[1])
        mask = measure_visible_difference(moved, fake_picture)
        return pictures, self._crop_mask(mask, augmentation, fake[1].box_px, np.random.default_rng(seed))

    def _make_parts_pair(self, augmentation: Augmentation, rng: Generator) -> tuple[list[Picture], Mask]:
        real, fake = self.faces.draw_side_by_side(rng, "parts of swapped faces, and no cache holds side-by-side videos")
        picture, box, marks = self._load_whole(fake)
        moved = align_real_to_fake(self.faces.load_picture(real), real[1], picture, fake[1])
        changed = measure_visible_difference(moved, picture)
        mask = part_mask(picture.shape[:2], marks, rng)
        placed = self._crop_mask(mask * changed, augmentation, box, copy.deepcopy(rng))
        return self.augment([moved, alpha_blend(picture, moved, mask)], augmentation, box, rng), placed

    def _make_original_pair(self, augmentation: Augmentation, rng: Generator) -> list[Picture]:
        """Make a pair of a data set's fake and its original, each cropped at its own detected face."""
        real, fakes = self.faces.draw_original_with_fakes(rng)
        seed = int(rng.integers(2**31))
        return self._augment_at_own_boxes((real, fakes[int(rng.integers(len(fakes)))]), augmentation, seed)

    def _augment_at_own_boxes(self, rows: Sequence[Face], augmentation: Augmentation, seed: int) -> list[Picture]:
        """Crop each picture at its own detected face, as serving does, and augment all in the same way."""
        pictures = []
        for row in rows:
            picture, box, _ = self._load_whole(row)
            pictures += self.augment([picture], augmentation, box, np.random.default_rng(seed))
        return pictures

    def _make_labelled_pair(self, augmentation: Augmentation, rng: Generator) -> list[Picture]:
        """Make a pair of unrelated faces at one size: in some data sets the sizes of the classes differ."""
        rows = [self.faces.draw_labelled("real", rng), self.faces.draw_labelled("fake", rng)]
        sides = [max(face.box_px[2] - face.box_px[0], face.box_px[3] - face.box_px[1]) for _, face in rows]
        wanted = min(sides) * rng.uniform(0.7, 1.0)
        seed = int(rng.integers(2**31))
        pictures = []
        for row, side in zip(rows, sides, strict=True):
            picture, box, _ = self._load_whole(row)
            factor = wanted / side
            smaller = np.asarray(
                cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA), np.uint8
            )
            left, top, right, bottom = (value * factor for value in box)
            scaled = (left, top, right, bottom)
            pictures += self.augment([smaller], augmentation, scaled, np.random.default_rng(seed))
        return pictures

    def _blend_painted(self, kind: PaintedKind, augmentation: Augmentation, rng: Generator) -> tuple[Blend, Box]:
        """Paste or blend a painted face into its own picture, or blend it into another person's."""
        # No number is drawn for other kinds, so that pairs of older recipes do not change.
        if kind == "inpainted" or (kind in WHOLE_SQUARE_KINDS and rng.random() < self._whole):
            number = self._draw_painted_number(kind, rng)
            row, paintings = self.faces.real[number], self.painted_faces.find_painted(kind, number)
            target, box, _ = self._load_whole(row)
            picture = self.faces.load_picture(paintings[int(rng.integers(len(paintings)))])
            place = locate_part(row[1], target.shape)
            # What was painted within a mask is already blended, and fits its place to the pixel.
            blend = (
                paste_exactly(target, picture, place) if kind == "inpainted" else paste_square(target, picture, place)
            )
            return blend, box
        number = self.faces.draw_real(rng)
        picture, box, marks = self.load_cut(self.faces.real[number], augmentation)
        source, _, source_marks = self._load_whole(self.draw_painted_face(kind, number, rng))
        return swap(picture, marks, source, source_marks, rng, source_is="painted"), box

    def _draw_painted_number(self, kind: PaintedKind, rng: Generator) -> int:
        """Draw real faces until one has a painted version; after ``DONOR_CANDIDATES`` draws, take any that has."""
        originals = self.painted_faces.list_originals(kind)
        for _ in range(DONOR_CANDIDATES):
            number = self.faces.draw_real(rng)
            if self.painted_faces.find_painted(kind, number):
                return number
        return originals[int(rng.integers(len(originals)))]

    def draw_painted_face(self, kind: PaintedKind, number: int, rng: Generator) -> Face:
        """Draw a painted version of real face *number*, or of another person's face in a similar pose."""
        faces, originals = self.faces, self.painted_faces.list_originals(kind)
        made = self.painted_faces.find_painted(kind, number)
        if not made or rng.random() >= OWN_FACE_SHARE:
            rows, poses = [faces.real[original] for original in originals], faces.poses[originals]
            made = self.painted_faces.find_painted(kind, originals[faces.draw_donor(rows, poses, number, rng)])
        return made[int(rng.integers(len(made)))]

    def _load_whole(self, row: Face) -> tuple[Picture, Box, Landmarks]:
        """Load a cached picture, with its face's box and landmarks."""
        return self.faces.load_picture(row), row[1].box_px, row[1].landmarks_px

    def load_cut(self, row: Face, augmentation: Augmentation) -> tuple[Picture, Box, Landmarks]:
        """Load the part of a cached picture that the crop may need, with its face's box and landmarks."""
        picture, face = self.faces.load_picture(row), row[1]
        x, y, side = square_around(face.box_px, self._margin + 2 * augmentation.jitter + SPARE_MARGIN)
        if x < 0 or y < 0 or x + side > picture.shape[1] or y + side > picture.shape[0]:
            return picture, face.box_px, face.landmarks_px
        part = np.ascontiguousarray(picture[y : y + side, x : x + side])
        left, top, right, bottom = face.box_px
        marks = [(a - x, b - y) for a, b in face.landmarks_px]
        return part, (left - x, top - y, right - x, bottom - y), marks


def mask_cells(size_px: int) -> int:
    """Return the cells per side of the masks of crops of *size_px*: an EfficientNet's feature map at a sixteenth."""
    return math.ceil(size_px / 16)
