"""
What training sees: couples of a real picture and a fake one that went through the same augmentation.

The couple with a given number is always the same, whatever process makes it and whatever was made before it, so that
training can go on from any number after an interruption.
"""

import copy
import math
from bisect import bisect
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, Final, Literal, Self, get_args

import cv2
import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from worker.detection.faces import Box, square_around
from worker.training.data.cache import SAME_FACE, CachedFace, CropCache
from worker.training.errors import DataError
from worker.training.fakes.augment import Augmentation
from worker.training.fakes.blending import Blend, Landmarks, Mask, Picture, Style, mixed, part_mask, self_blend, swap
from worker.training.fakes.generators.painting import PaintedKind, part_place
from worker.training.fakes.generators.paintings import Paintings
from worker.training.fakes.on_device import left_to_loaders
from worker.training.fakes.pasting import lay_over, paste

Kind = Literal[
    "textbook",
    "subtle",
    "painted",
    "decoded",
    "restored",
    "inpainted",
    "swap",
    "transplant",
    "pairs",
    "parts",
    "originals",
    "labelled",
]
"""
Self-blended in two styles, painted in the four ways of ``generators.painting.PaintedKind``, swapped between two people,
a face that a generator made put into a real picture, halves of one video frame, parts of its swapped half laid over its
original, fakes of a data set beside the very pictures that they were made from, pictures labelled by others.

Where few people are swapped into many pictures, whole swapped faces teach who they are: a network that knows them by
heart is no judge of others. Their parts do not tell.
"""
Mixture = Mapping[Kind, float]
ALIGNED: Final[frozenset[Kind]] = frozenset(
    {"textbook", "subtle", *get_args(PaintedKind), "swap", "transplant", "pairs", "parts", "originals"}
)
"""Kinds whose two pictures differ by the swap alone."""
OWN: Final = 0.6
"""Share of painted faces that are put back where they were; the others are another person's."""
WHOLE: Final = 0.5
"""Share of decoded and restored faces that are pasted as whole squares, where they were; others are seen through a face
mask."""
SQUARES: Final[frozenset[Kind]] = frozenset({"decoded", "restored"})
DONORS: Final = 24
"""How many faces are looked at for one that is turned like the target."""
NOISE: Final = 3.0
"""Mean difference, in grey levels, that compression alone makes between the halves of a pair."""
CHANGE: Final = 6.0
"""Grey levels beyond that at which a pixel counts as changed altogether."""
PICTURES_KEPT: Final = 8192
"""Decoded, by each loader process: 1 to 2 GB."""
ROOM: Final = 0.1
"""Around the crop, as a share of the face, that moving it may need."""


class Stage:
    """
    A stretch of training with one mixture.

    Args:
        couples: How many it lasts.
        mixture: Kinds and their weights.
        augmentation: In place of that of the whole stream.
    """

    def __init__(self, couples: int, mixture: Mixture, augmentation: Augmentation | None = None) -> None:
        self.couples = couples
        self.augmentation = augmentation
        self.kinds = sorted(mixture)
        self.limits = list(accumulate(mixture[kind] for kind in self.kinds))

    def draw(self, rng: Generator) -> Kind:
        """A kind, as often as its weight says."""
        return self.kinds[min(bisect(self.limits, rng.random() * self.limits[-1]), len(self.kinds) - 1)]


class Couples(IterableDataset[tuple[Tensor, Tensor, Tensor]]):
    """
    An endless, repeatable stream of couples.

    Args:
        caches: Folders of crops; faces of the set *set_name* are used.
        stages: The last one never ends.
        shuffle_labels: Swap the two pictures of a couple at random: there is then nothing to learn, as a test wants.
        first: Number of the first batch of this rank.
        real_from: Make fakes of the real faces of these data sets alone; of all, if empty.
        painted: Folders of crops that ``generators.painting.paint_faces`` made of the faces in *caches*.
        data_set_power: Of what the real media of a data set count; see ``fitting.recipes.Draws``.
        person_power: Likewise of a person within a data set.
        leave: Leave to ``on_device.OnDevice`` what it does.
        whole: Share of decoded and restored faces that are pasted as whole squares.

    Yields:
        Batches: (2B, 3, S, S) uint8, B real pictures and their B fakes in the same order; (B,) float32, 1 where
        the two of a couple are aligned; and (B, C, C) float32, how much of each cell of a fake was changed, or -1
        where that is not known.
    """

    _given: partial[Self]

    def __init__(
        self,
        caches: Sequence[Path],
        stages: Sequence[Stage],
        augmentation: Augmentation,
        *,
        size_px: int,
        margin: float,
        batch: int = 16,
        seed: int = 0,
        set_name: str = "train",
        first: int = 0,
        rank: int = 0,
        ranks: int = 1,
        shuffle_labels: bool = False,
        real_from: Sequence[str] = (),
        painted: Sequence[Path] = (),
        data_set_power: float = 1.0,
        person_power: float = 1.0,
        leave: bool = False,
        whole: float = WHOLE,
    ) -> None:
        self._leave = leave
        self._whole = whole
        self._powers = data_set_power, person_power
        self._stages = list(stages)
        self._usual_augmentation = self._augmentation = augmentation
        self._size_px = size_px
        self._cells = mask_cells(size_px)
        self._margin = margin
        self._batch = batch
        self._seed = seed
        self._first, self._rank, self._ranks = first, rank, ranks
        self._shuffle_labels = shuffle_labels
        self._pictures: dict[tuple[Path, str, int], Picture] = {}
        self._load([CropCache(folder) for folder in caches], set_name, frozenset(real_from))
        self._paintings = Paintings(painted, [face for _, face in self._real])

    def __new__(cls, *given: Any, **named: Any) -> Self:
        """Keep what it is made of: see ``__reduce__``."""
        made = super().__new__(cls)
        made._given = partial(cls, *given, **named)
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process reads the index of the crops anew, sooner than it would be sent to it."""
        return self._given, ()

    def _load(self, caches: Sequence[CropCache], set_name: str, real_from: frozenset[str]) -> None:
        self._real: list[tuple[CropCache, CachedFace]] = []
        self._labelled: dict[str, list[tuple[CropCache, CachedFace]]] = {"real": [], "fake": []}
        halves: dict[tuple[str, float], dict[str, list[tuple[CropCache, CachedFace]]]] = {}
        for cache in caches:
            for face in cache.faces():
                if face.set != set_name:
                    continue
                if face.label == "real" and (not real_from or face.dataset in real_from):
                    self._real.append((cache, face))
                if face.dataset == "pairs":
                    both = halves.setdefault((face.key.rsplit("#", 1)[0], face.time_s), {"real": [], "fake": []})
                    both[face.label].append((cache, face))
                else:
                    self._labelled[face.label].append((cache, face))
        if not self._real:
            raise DataError(f"no cache holds a real face of the set {set_name!r}")
        self._by_medium = _grouped(self._real)
        self._families = _families(self._real, self._labelled["fake"])
        self._labelled_media = {
            # Real pictures of the data sets that have fakes: others would be told by their data set.
            "real": _grouped([row for row in self._labelled["real"] if row[1].dataset in self._faked()]),
            "fake": _grouped(self._labelled["fake"]),
        }
        self._pairs = _facing(halves)
        self._made = self._labelled["fake"] + [fake for rows in self._pairs for _, fake in rows]
        self._poses, self._made_poses = (
            np.array([_pose(face.landmarks_px) for _, face in rows]) for rows in (self._real, self._made)
        )

    def _faked(self) -> set[str]:
        return {face.dataset for _, face in self._labelled["fake"]}

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        cv2.setNumThreads(1)
        worker = get_worker_info()
        # Loader processes are asked in turn, so each makes every nth batch, and batches come in order.
        step = self._ranks * (worker.num_workers if worker else 1)
        number = self._first * self._ranks + self._rank + (worker.id * self._ranks if worker else 0)
        while True:
            yield self.batch(number)
            number += step

    def batch(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """The batch with this number."""
        rows = [self.couple(number * self._batch + row) for row in range(self._batch)]
        pictures = torch.stack([pictures for pictures, _, _ in rows], dim=1)  # (2, B, 3, S, S)
        aligned, masks = (torch.stack([row[place] for row in rows]) for place in (1, 2))
        return pictures.flatten(0, 1), aligned, masks

    def couple(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """
        The couple with this number: (2, 3, S, S) uint8, real before fake, whether they are aligned, and the (C, C)
        mask of the fake.
        """
        rng = np.random.default_rng((self._seed, number))
        stage = self._stage(number)
        kind = stage.draw(rng)
        self._augmentation = stage.augmentation or self._usual_augmentation
        if self._leave:
            self._augmentation = left_to_loaders(self._augmentation, self._seed, number)
        pictures, mask = self._draw(kind, rng)
        if self._shuffle_labels and rng.random() < 0.5:
            pictures.reverse()
            mask = self._unknown()
        planes = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
        return planes, torch.tensor(float(kind in ALIGNED)), torch.from_numpy(mask)

    def _stage(self, number: int) -> Stage:
        for stage in self._stages:
            if number < stage.couples:
                return stage
            number -= stage.couples
        return self._stages[-1]

    def _draw(self, kind: Kind, rng: Generator) -> tuple[list[Picture], Mask]:
        match kind:
            case "pairs":
                return self._pair(rng)
            case "parts":
                return self._part(rng)
            case "originals":
                return self._original_couple(rng), self._unknown()
            case "labelled":
                return self._labelled_couple(rng), self._unknown()
            case "swap":
                number = self._real_number(rng)
                picture, box, marks = self._face(self._real[number])
                donor = self._real[self._donor(self._real, self._poses, number, rng)]
                source, _, source_marks = self._face(donor, whole=True)
                blend = swap(picture, marks, source, source_marks, rng)
            case "painted" | "decoded" | "restored" | "inpainted":
                blend, box = self._painted(kind, rng)
            case "transplant":
                number = self._real_number(rng)
                picture, box, marks = self._face(self._real[number])
                donor = self._made[self._donor(self._made, self._made_poses, number, rng)]
                source, _, source_marks = self._face(donor, whole=True)
                # What the generator left behind is what is to be learnt, so little is done to its face.
                blend = swap(picture, marks, source, source_marks, rng, source_is="swapped")
            case "textbook" | "subtle":
                picture, box, marks = self._face(self._real[self._real_number(rng)])
                style: Style = kind
                blend = self_blend(picture, marks, rng, style)
        mask = self._placed(blend.mask, box, copy.deepcopy(rng))
        return self._changed([blend.real, blend.fake], box, rng), mask

    def _placed(self, mask: Mask, box: Box, rng: Generator) -> Mask:
        return self._augmentation.place(mask, box, rng, cells=self._cells, margin=self._margin)

    def _unknown(self) -> Mask:
        return np.full((self._cells, self._cells), -1.0, np.float32)

    def _changed(self, pictures: list[Picture], box: Box, rng: Generator) -> list[Picture]:
        return self._augmentation.apply(pictures, box, rng, size_px=self._size_px, margin=self._margin)

    def _pair(self, rng: Generator) -> tuple[list[Picture], Mask]:
        if not self._pairs:
            raise DataError("a mixture wants pairs of aligned frames, and no cache holds any")
        frames = self._pairs[int(rng.integers(len(self._pairs)))]
        real, fake = frames[int(rng.integers(len(frames)))]
        seed = int(rng.integers(2**31))
        pictures = self._each_where_found((real, fake), seed)
        moved = _moved(self._picture(real), real[1], self._picture(fake), fake[1])
        mask = _difference(moved, self._picture(fake))
        return pictures, self._placed(mask, fake[1].box_px, np.random.default_rng(seed))

    def _part(self, rng: Generator) -> tuple[list[Picture], Mask]:
        if not self._pairs:
            raise DataError("a mixture wants parts of swapped faces, and no cache holds any pairs")
        frames = self._pairs[int(rng.integers(len(self._pairs)))]
        real, fake = frames[int(rng.integers(len(frames)))]
        picture, box, marks = self._face(fake, whole=True)
        moved = _moved(self._picture(real), real[1], picture, fake[1])
        changed = _difference(moved, picture)
        mask = part_mask(picture.shape[:2], marks, rng)
        placed = self._placed(mask * changed, box, copy.deepcopy(rng))
        return self._changed([moved, mixed(picture, moved, mask)], box, rng), placed

    def _original_couple(self, rng: Generator) -> list[Picture]:
        """A data set's fake and the picture that it was made from, each cropped where its own face was found."""
        if not self._families:
            raise DataError("a mixture wants fakes beside their originals, and no cache holds any")
        # By original: however many fakes were made of one, it is seen as often as any other.
        real, fakes = self._families[int(rng.integers(len(self._families)))]
        seed = int(rng.integers(2**31))
        return self._each_where_found((real, fakes[int(rng.integers(len(fakes)))]), seed)

    def _each_where_found(self, rows: Sequence[tuple[CropCache, CachedFace]], seed: int) -> list[Picture]:
        """Each cropped where the detector finds the face in it, as in serving, and all changed alike."""
        pictures = []
        for row in rows:
            picture, box, _ = self._face(row, whole=True)
            pictures += self._changed([picture], box, np.random.default_rng(seed))
        return pictures

    def _labelled_couple(self, rng: Generator) -> list[Picture]:
        """A real and a fake face, brought to one size first: in some data sets the classes differ in theirs."""
        rows = []
        for label in ("real", "fake"):
            media = self._labelled_media[label]
            if not media:
                raise DataError(
                    f"a mixture wants labelled pictures, and no cache holds {label} ones of such a data set"
                )
            medium = media[int(rng.integers(len(media)))]
            rows.append(medium[int(rng.integers(len(medium)))])
        sides = [max(face.box_px[2] - face.box_px[0], face.box_px[3] - face.box_px[1]) for _, face in rows]
        wanted = min(sides) * rng.uniform(0.7, 1.0)
        seed = int(rng.integers(2**31))
        pictures = []
        for row, side in zip(rows, sides, strict=True):
            picture, box, _ = self._face(row, whole=True)
            factor = wanted / side
            smaller = np.asarray(
                cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA), np.uint8
            )
            left, top, right, bottom = (value * factor for value in box)
            pictures += self._changed([smaller], (left, top, right, bottom), np.random.default_rng(seed))
        return pictures

    def _real_number(self, rng: Generator) -> int:
        """A real face: a video counts like a few stills, and data sets and people as ``recipes.Draws`` says."""
        media = self._by_medium
        weights = self._medium_weights()
        rows = media[min(int(np.searchsorted(weights, rng.random() * weights[-1])), len(media) - 1)]
        return self._numbers[rows[int(rng.integers(len(rows)))][1]]

    def _medium_weights(self) -> NDArray[np.float64]:
        if not hasattr(self, "_weights"):
            self._numbers = {face: number for number, (_, face) in enumerate(self._real)}
            counts = np.array([min(len(rows), 12) for rows in self._by_medium], np.float64)
            faces = [rows[0][1] for rows in self._by_medium]
            data_set_power, person_power = self._powers
            people = _to_power(counts, [f"{face.dataset}/{face.group}" for face in faces], person_power)
            self._weights = np.cumsum(_to_power(people, [face.dataset for face in faces], data_set_power))
        return self._weights

    def _painted(self, kind: PaintedKind, rng: Generator) -> tuple[Blend, Box]:
        """A painted face, pasted as a whole or blended back, or another person's blended in."""
        # For other kinds nothing is drawn, so that older recipes see what they saw.
        if kind == "inpainted" or (kind in SQUARES and rng.random() < self._whole):
            number = self._painted_number(kind, rng)
            row, paintings = self._real[number], self._paintings.of(kind, number)
            target, box, _ = self._face(row, whole=True)
            picture = self._picture(paintings[int(rng.integers(len(paintings)))])
            place = part_place(row[1], target.shape)
            # What was painted within a mask is already blended, and fits its place to the pixel.
            blend = lay_over(target, picture, place) if kind == "inpainted" else paste(target, picture, place)
            return blend, box
        number = self._real_number(rng)
        picture, box, marks = self._face(self._real[number])
        source, _, source_marks = self._face(self._painting(kind, number, rng), whole=True)
        return swap(picture, marks, source, source_marks, rng, source_is="painted"), box

    def _painted_number(self, kind: PaintedKind, rng: Generator) -> int:
        """A real face that was painted, drawn like others as far as that goes."""
        originals = self._paintings.originals(kind)
        for _ in range(DONORS):
            number = self._real_number(rng)
            if self._paintings.of(kind, number):
                return number
        return originals[int(rng.integers(len(originals)))]

    def _painting(self, kind: PaintedKind, number: int, rng: Generator) -> tuple[CropCache, CachedFace]:
        """What one of the networks made of real face *number*, or of somebody else's who is turned like it."""
        originals = self._paintings.originals(kind)
        made = self._paintings.of(kind, number)
        if not made or rng.random() >= OWN:
            rows, poses = [self._real[original] for original in originals], self._poses[originals]
            made = self._paintings.of(kind, originals[self._donor(rows, poses, number, rng)])
        return made[int(rng.integers(len(made)))]

    def _donor(
        self, rows: Sequence[tuple[CropCache, CachedFace]], poses: NDArray[np.float64], number: int, rng: Generator
    ) -> int:
        """Of some faces of other people in *rows*, the one whose landmarks lie most like real face *number*'s."""
        if not rows:
            raise DataError("a mixture wants faces that a generator made, and no cache holds any")
        target = self._real[number][1]
        drawn = rng.integers(len(rows), size=DONORS)
        candidates = [row for row in drawn if rows[row][1].group != target.group]
        if not candidates:
            candidates = [drawn[0]]
        distances = np.abs(poses[candidates] - self._poses[number]).sum(axis=1)
        return int(candidates[int(distances.argmin())])

    def _picture(self, row: tuple[CropCache, CachedFace]) -> Picture:
        cache, face = row
        # Shards of every cache have the same names, and their first pictures stand at the same place.
        key = (cache.folder, face.shard, face.offset)
        if key not in self._pictures:
            if len(self._pictures) >= PICTURES_KEPT:
                self._pictures.pop(next(iter(self._pictures)))  # The one that has been kept longest.
            self._pictures[key] = cache.picture(face)
        return self._pictures[key]

    def _face(self, row: tuple[CropCache, CachedFace], *, whole: bool = False) -> tuple[Picture, Box, Landmarks]:
        """A cached picture, cut down to what the crop can need, with its face's box and landmarks."""
        picture, face = self._picture(row), row[1]
        if whole:
            return picture, face.box_px, face.landmarks_px
        x, y, side = square_around(face.box_px, self._margin + 2 * self._augmentation.jitter + ROOM)
        if x < 0 or y < 0 or x + side > picture.shape[1] or y + side > picture.shape[0]:
            return picture, face.box_px, face.landmarks_px
        part = np.ascontiguousarray(picture[y : y + side, x : x + side])
        left, top, right, bottom = face.box_px
        marks = [(a - x, b - y) for a, b in face.landmarks_px]
        return part, (left - x, top - y, right - x, bottom - y), marks


def mask_cells(size_px: int) -> int:
    """Cells a side of the masks that belong to crops of *size_px*: an EfficientNet's map at a sixteenth."""
    return math.ceil(size_px / 16)


def _grouped(rows: Sequence[tuple[CropCache, CachedFace]]) -> list[list[tuple[CropCache, CachedFace]]]:
    media: dict[str, list[tuple[CropCache, CachedFace]]] = {}
    for row in rows:
        media.setdefault(f"{row[1].dataset}/{row[1].key}", []).append(row)
    return [media[key] for key in sorted(media)]


def _families(
    real: Sequence[tuple[CropCache, CachedFace]], fakes: Sequence[tuple[CropCache, CachedFace]]
) -> list[tuple[tuple[CropCache, CachedFace], list[tuple[CropCache, CachedFace]]]]:
    """Real faces and the fakes that were made of them: those of the same moment of the video that they name."""
    made: dict[tuple[str, str, float], list[tuple[CropCache, CachedFace]]] = {}
    for cache, face in fakes:
        if face.original:
            made.setdefault((face.dataset, face.original, face.time_s), []).append((cache, face))
    originals = {(face.dataset, face.key, face.time_s): (cache, face) for cache, face in real}
    return [(originals[key], rows) for key, rows in sorted(made.items()) if key in originals]


def _facing(
    halves: Mapping[tuple[str, float], dict[str, list[tuple[CropCache, CachedFace]]]],
) -> list[list[tuple[tuple[CropCache, CachedFace], tuple[CropCache, CachedFace]]]]:
    """For each clip, the faces of both halves that lie at one place of one frame: (real, fake)."""
    pairs: dict[str, list[tuple[tuple[CropCache, CachedFace], tuple[CropCache, CachedFace]]]] = {}
    for (key, _), both in halves.items():
        for fake in both["fake"]:
            near = min(both["real"], key=lambda row: row[1].distance(fake[1]), default=None)
            if near is not None and near[1].distance(fake[1]) < SAME_FACE:
                pairs.setdefault(key, []).append((near, fake))
    return [pairs[key] for key in sorted(pairs)]


def _to_power(weights: NDArray[np.float64], names: Sequence[str], power: float) -> NDArray[np.float64]:
    """*weights*, scaled so that the sum over each name is what it was, to *power*."""
    _, numbers = np.unique(np.array(names), return_inverse=True)
    sums = np.bincount(numbers, weights)
    return np.asarray(weights * sums[numbers] ** (power - 1.0), np.float64)


def _pose(landmarks: Landmarks) -> NDArray[np.float64]:
    """Landmarks without place, size and roll: how a face is turned, and how its mouth is open."""
    marks = np.array(landmarks, np.float64)
    eyes = marks[1] - marks[0]
    unit = max(float(np.hypot(*eyes)), 1e-6)
    turn = np.array([[eyes[0], eyes[1]], [-eyes[1], eyes[0]]]) / unit**2
    return np.asarray(((marks[2:] - marks[:2].mean(axis=0)) @ turn.T).reshape(-1), np.float64)


def _moved(real: Picture, real_face: CachedFace, fake: Picture, fake_face: CachedFace) -> Picture:
    """*real* as it would be, had it been cut out around the box of *fake*, which shows the same scene."""
    scales, offsets = [], []
    for face in (fake_face, real_face):
        scales.append(face.scale)
        offsets.append([face.box_px[place] - face.frame_box_px[place] * scales[-1] for place in (0, 1)])
    factor = scales[1] / scales[0]
    shift = [there - here * factor for here, there in zip(*offsets, strict=True)]
    if factor == 1.0:
        shift = [float(round(value)) for value in shift]  # Whole pixels: nothing is interpolated.
    matrix = np.array([[factor, 0.0, shift[0]], [0.0, factor, shift[1]]])
    height, width = fake.shape[:2]
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    moved = cv2.warpAffine(real, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(moved, np.uint8)


def _difference(real: Picture, fake: Picture) -> Mask:
    """(H, W): where two pictures of one scene differ by more than compression makes them."""
    levels = cv2.absdiff(real, fake).mean(axis=2).astype(np.float32)
    levels = cv2.GaussianBlur(levels, (0, 0), 0.02 * fake.shape[1])
    return np.asarray(np.clip((levels - NOISE) / CHANGE, 0.0, 1.0), np.float32)
