"""
What lies outside the face: whether anything but the face tells a data set's fakes from its real media.

Of each medium some cached pictures are looked at with the face blanked out, generously, and simple statistics of the
rest go to a linear probe that is cross-validated over groups of people. Where it does better than chance, labels
leak: fakes were compressed, resized or chosen in another way than real media, and a detector may learn that for a
swap. Beside the pixels stand what the cut and the encoding alone would tell, each family of statistics by itself, and
the single ones that tell most.

Where the real medium that a fake was made from is known, a second probe compares the two and nothing else: what their
faces, rooms and cameras share drops out, so that it finds leaks a hundred times fainter.
"""

import hashlib
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Any, Final, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from worker.detection.faces import Box
from worker.model.srm import DIVISORS, KERNELS
from worker.training.data.cache import SAME_FACE, CachedFace, CropCache
from worker.training.errors import DataError
from worker.training.fakes.augment import Augmentation
from worker.training.fakes.blending import Landmarks
from worker.training.fakes.couples import Couples
from worker.training.fakes.kinds import ALIGNED, Kind, Stage
from worker.training.fakes.transcoding import Picture
from worker.training.fitting.recipes import Recipe
from worker.training.measuring.metrics import Labels, Scores, bootstrap, roc_auc
from worker.training.measuring.scored import spread

Background = NDArray[np.bool_]
Features = NDArray[np.float64]

GENEROUS: Final = 1.1
"""The blanked ellipses over those that a face's box would hold, and that its landmarks tell of."""
SPREADING_PX: Final = 8
"""How far blocks and filters carry what a swap changed outwards; blanked, too."""
LEAST_PX: Final = 400
"""Of background, without which a picture says nothing."""
BLOCK_PX: Final = 8
"""Of JPEG and, mostly, H.264."""
PADDING: Final = 1
"""Grey levels that rows differ by at most where a crop went on beyond its frame, repeating the edge."""
FACES: Final = 4
"""Of a medium that are looked at, spread over it."""
FOLDS: Final = 8
LEAST_GROUPS: Final = 4
"""Of real media, and of fakes, or of couples. Of fewer a probe learns from two people or pictures, and says nothing."""
ROUNDS: Final = 500
"""Of the bootstrap."""
TELLING: Final = 3
"""Single statistics that are named."""
SEED: Final = 0

RESIDUALS: Final = [np.array(kernel, np.float32) / divisor for kernel, divisor in zip(KERNELS, DIVISORS, strict=True)]
PIXELS: Final[Mapping[str, tuple[str, ...]]] = {
    "colour": (
        *(f"{how} {plane}" for how in ("mean", "spread") for plane in ("red", "green", "blue")),
        *(f"luma {low}-{low + 31}" for low in range(0, 256, 32)),
    ),
    "residual": tuple(
        f"SRM {kernel} {what}" for kernel in ("3x3", "5x5", "line") for what in ("mean", "spread", "share above 3")
    ),
    "blocks": (
        *(f"{what} {way}" for way in ("rows", "columns") for what in ("8x8 grid", "step")),
        *(f"DCT {band}" for band in ("low", "middle", "high")),
    ),
}
"""Families of statistics of pixels outside the face."""
CLUES: Final[Mapping[str, tuple[str, ...]]] = {
    "cut": ("picture side", "face size", "box width", "box height", "box x", "box y", "beyond the frame"),
    "file": ("bytes a pixel", "header bytes", "luma quantisation", "chroma quantisation", "chroma sampling"),
}
"""Families of what is known without looking outside: how the face was cut out, and how the cache's file is encoded,
the length of which is as much the face's."""
NAMES: Final = tuple(name for family in (*PIXELS.values(), *CLUES.values()) for name in family)
PIXEL_NAMES: Final = tuple(name for family in PIXELS.values() for name in family)

MADE: Final = ALIGNED - {"pairs"}
"""Kinds of couples that are made here, so that masks tell what was changed; pairs are probed as a data set."""

How = Literal["media", "couples"]


@dataclass(frozen=True, slots=True)
class Area:
    """Of one probe, on media of groups that it had not seen."""

    statistics: str
    """``outside``, all pixels outside the face, or one family."""
    roc_auc: float
    interval: tuple[float, float] | None
    """95 %, over groups."""
    telling: tuple[tuple[str, float], ...]
    """The single ones among them that tell most, each with its area: above one half where fakes have more of it."""

    @property
    def is_chance(self) -> bool:
        """Whether the interval holds one half."""
        return self.interval is not None and self.interval[0] <= 0.5 <= self.interval[1]


@dataclass(frozen=True, slots=True)
class Probed:
    """What was found in one data set, or in one kind of made fakes."""

    name: str
    how: How
    """Each medium by itself, or a fake beside what it was made from."""
    media: int
    fakes: int
    groups: int
    left_out: int
    """Media, or couples, with too little outside the face."""
    outside_px: int
    """Median of pixels outside the face in a picture."""
    outside_share: float
    areas: tuple[Area, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Seen:
    """A medium, and the means of its pictures' statistics."""

    group: str
    is_fake: bool
    values: Features
    """As in ``NAMES``."""
    outside_px: float
    outside_share: float


def probe_caches(folders: Sequence[Path], *, limit: int = 1500, rounds: int = ROUNDS) -> list[Probed]:
    """
    Probe every data set in some crop caches that holds both classes.

    Where originals are known, media are drawn by them, one fake each, so that both classes are as many and show the
    same people; else all are taken.

    Args:
        limit: Couples of a data set, or media of each class, always the same ones.
        rounds: Of the bootstrap.

    Raises:
        DataError: No data set holds both classes, or all are too small, or a cache is missing or damaged.
    """
    by_dataset: dict[str, list[_Faces]] = {}
    for cache in map(CropCache, folders):
        for (dataset, _), faces in groupby(cache.faces(), key=lambda face: (face.dataset, face.key)):
            by_dataset.setdefault(dataset, []).append(_Faces(cache, tuple(faces)))
    found: list[Probed] = []
    small: list[str] = []
    for dataset, media in sorted(by_dataset.items()):
        drawn, couples = _drawn(media, limit)
        if len({one.first.label for one in drawn}) == 2:
            alone = [_seen(one) for one in tqdm(drawn, unit="medium", desc=f"{dataset}, media")]
            beside = [_seen_beside(*both) for both in tqdm(couples, unit="couple", desc=f"{dataset}, couples")]
            probed = _probe_set(dataset, alone, beside, rounds)
            found += probed
            if not probed:
                small.append(_too_small(dataset, alone))
    if not found:
        raise DataError("; ".join(small) or "no data set in these caches holds both real and fake media")
    for reason in small:
        tqdm.write(f"left out: {reason}")
    return found


def probe_made(
    folders: Sequence[Path],
    kind: Kind,
    augmentation: Augmentation,
    *,
    size_px: int,
    margin: float,
    count: int = 400,
    painted: Sequence[Path] = (),
    rounds: int = ROUNDS,
) -> list[Probed]:
    """
    Probe couples of one kind of made fakes, as training sees them, outside the mask of what was changed.

    Args:
        kind: One whose masks are known.
        size_px: Of the crops.
        count: Couples.
        painted: As for ``Couples``.

    Raises:
        DataError: The caches hold no faces for this kind, or there are too few couples.
    """
    couples = Couples(
        folders, [Stage(count, {kind: 1.0})], augmentation, size_px=size_px, margin=margin, painted=painted, seed=SEED
    )
    seen: list[tuple[_Seen, _Seen] | None] = []
    for number in tqdm(range(count), unit="couple", desc=f"made, {kind}"):
        planes, _, mask = couples.couple(number)
        background = _outside_mask(mask.numpy(), size_px)
        rows = [pixel_statistics(picture, background) for picture in planes.permute(0, 2, 3, 1).numpy()]
        seen.append(_couple([rows], [background], str(number)))
    if not any(seen):
        raise DataError(f"couples of the kind {kind!r} leave nothing outside of what was changed")
    alone = [one for both in seen for one in (both or (None, None))]
    found = _probe_set(f"made: {kind}", alone, seen, rounds)
    if not found:
        raise DataError(_too_small(f"made: {kind}", alone))
    return found


def probe_recipe(
    recipe: Recipe, caches: Sequence[Path], *, painted: Sequence[Path] = (), limit: int = 1500, made: int = 400
) -> list[Probed]:
    """
    Probe the data sets of *recipe* that hold both classes, and the kinds of its mixtures that it makes itself.

    Args:
        caches: As ``build_caches`` returns them.
        painted: As ``paint_for`` returns them.
        limit: As for ``probe_caches``.
        made: Couples of each kind.

    Raises:
        DataError: A cache is missing or damaged, or holds no faces for a kind.
    """
    found = probe_caches(caches, limit=limit)
    kinds = {kind for stage in recipe.stages for kind, weight in stage.mixture.items() if weight > 0.0}
    crop = recipe.preprocessing
    for kind in sorted(kinds & MADE) if made else ():
        found += probe_made(
            caches,
            kind,
            recipe.augmentation,
            size_px=crop.crop_size_px,
            margin=crop.crop_margin,
            count=made,
            painted=painted,
        )
    return found


def outside_face(shape: tuple[int, ...], box: Box, landmarks: Landmarks) -> Background:
    """
    Where a picture shows no face: outside an ellipse around the box, and of one around the landmarks.

    Args:
        shape: (H, W, …) of the picture.
        landmarks: Eyes, nose and corners of the mouth.

    Returns:
        (H, W), ``SPREADING_PX`` short of the face on every side.
    """
    marks = np.array(landmarks, np.float64)
    eyes, mouth = marks[:2].mean(axis=0), marks[3:5].mean(axis=0)
    down = mouth - eyes
    height = float(np.hypot(*down))
    angle = float(np.degrees(np.arctan2(down[1], down[0]))) - 90.0
    left, top, right, bottom = box
    face = np.zeros(shape[:2], np.uint8)
    # Above the eyes a forehead is about as high as it is from them to the mouth, and below that the chin three quarters
    # of it. A face is about three quarters as wide as high.
    half = 1.4 * height * GENEROUS
    _fill_ellipse(face, eyes + 0.35 * down, (0.75 * half, half), angle)
    sides = ((right - left) / 2 * GENEROUS, (bottom - top) / 2 * GENEROUS)
    _fill_ellipse(face, np.array([(left + right) / 2, (top + bottom) / 2]), sides, 0.0)
    return _away_from(face, SPREADING_PX)


def pixel_statistics(picture: Picture, background: Background) -> Features | None:
    """
    Measure the pixels in *background* alone.

    Returns:
        As ``PIXEL_NAMES``: colours, residuals whose window lies in it, steps across 8x8 grids, and the energy of the
        cosine transform of blocks that lie in it; None where it is too small.
    """
    inner = _away_from(~background, 2)
    corners = _block_corners(background)
    if background.sum() < LEAST_PX or inner.sum() < LEAST_PX // 4 or len(corners) == 0:
        return None
    pixels = picture[background].astype(np.float64)
    luma = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    histogram = np.histogram(luma[background], bins=8, range=(0, 256))[0] / background.sum()
    values = [*pixels.mean(axis=0), *pixels.std(axis=0), *histogram]
    for kernel in RESIDUALS:
        residual = np.abs(cv2.filter2D(luma, cv2.CV_32F, kernel))[inner]
        values += [residual.mean(), residual.std(), (residual > 3).mean()]
    for axis in (0, 1):
        steps = np.abs(np.diff(luma, axis=axis))
        place = np.indices(steps.shape)[axis] % BLOCK_PX
        both = inner[tuple(slice(length) for length in steps.shape)]
        # By phase, since nobody knows where in a crop the grid of its picture's blocks begins.
        phases = [steps[both & (place == phase)] for phase in range(BLOCK_PX)]
        if min(len(phase) for phase in phases) == 0:
            return None
        means = [phase.mean() for phase in phases]
        values += [max(means) - np.mean(means), np.mean(means)]
    energy = np.mean([np.abs(cv2.dct(luma[y : y + BLOCK_PX, x : x + BLOCK_PX])) for y, x in corners], axis=0)
    order = np.indices((BLOCK_PX, BLOCK_PX)).sum(axis=0)
    values += [np.log1p(energy[(order >= low) & (order <= high)].mean()) for low, high in ((1, 3), (4, 7), (8, 14))]
    return np.array(values, np.float64)


def cross_validated(rows: Features, labels: Labels, groups: Sequence[str], folds: int = FOLDS) -> Scores:
    """
    What a linear probe says of each of *rows*, having learnt from those of other groups.

    Args:
        rows: (N, F).
    """
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, class_weight="balanced"))
    # Every part that is learnt from has to hold both classes.
    classes = [{group for group, label in zip(groups, labels, strict=True) if label == value} for value in (0, 1)]
    division = StratifiedGroupKFold(min(folds, *map(len, classes)), shuffle=True, random_state=SEED)
    scores = cross_val_predict(model, rows, labels, groups=np.array(groups), cv=division, method="decision_function")
    return np.asarray(scores, np.float64)


def table(found: Sequence[Probed]) -> str:
    """The figures, in Markdown."""
    lines = [
        "| data set | compared | media | groups | outside the face | statistics | ROC-AUC | tell most |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for one in found:
        about = [
            one.name,
            one.how,
            f"{one.media} ({one.fakes} fake)",
            str(one.groups),
            f"{one.outside_px} px, {one.outside_share:.0%}",
        ]
        for area in one.areas:
            interval = "" if area.interval is None else f" [{area.interval[0]:.3f}, {area.interval[1]:.3f}]"
            told = "" if area.is_chance else ", ".join(f"{name} {value:.2f}" for name, value in area.telling)
            lines.append(f"| {' | '.join([*about, area.statistics, f'{area.roc_auc:.3f}{interval}', told])} |")
            about = [""] * len(about)
    return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class _Faces:
    """A medium in a cache."""

    cache: CropCache
    faces: tuple[CachedFace, ...]

    @property
    def first(self) -> CachedFace:
        """Which tells what the medium is."""
        return self.faces[0]

    def largest(self) -> list[CachedFace]:
        """The largest face of each frame."""
        return [next(found) for _, found in groupby(self.faces, key=lambda face: face.time_s)]


def _drawn(media: Sequence[_Faces], limit: int) -> tuple[list[_Faces], list[tuple[_Faces, _Faces]]]:
    """What is looked at alone, and what beside its original."""
    ordered = sorted(media, key=lambda one: hashlib.sha256(one.first.key.encode()).digest())
    real = {one.first.key: one for one in ordered if one.first.label == "real"}
    fakes = [one for one in ordered if one.first.label == "fake"]
    first: dict[str, _Faces] = {}
    for one in fakes:
        if one.first.original in real:
            first.setdefault(one.first.original, one)
    couples = [(real[original], fake) for original, fake in list(first.items())[:limit]]
    if couples:
        return [one for both in couples for one in both], couples
    return [*list(real.values())[:limit], *fakes[:limit]], []


def _seen(medium: _Faces) -> _Seen | None:
    """What lies outside the faces of a medium; None if too little does."""
    rows, backgrounds = [], []
    for face in spread(medium.largest(), FACES):
        picture = medium.cache.picture(face)
        shown = _shown(picture)
        background = outside_face(picture.shape, face.box_px, face.landmarks_px) & shown
        values = pixel_statistics(picture, background)
        if values is not None:
            rows.append(np.concatenate([values, _clues(medium.cache, face, picture, shown)]))
            backgrounds.append(background)
    if not rows:
        return None
    first = medium.first
    return _Seen(first.group, first.label == "fake", np.mean(rows, axis=0), *_sizes(backgrounds))


def _seen_beside(real: _Faces, fake: _Faces) -> tuple[_Seen, _Seen] | None:
    """
    What lies outside both faces of a fake and its original, at the same places of their frames.

    Each is cut out where the detector finds its face, which a swap moves: compared crop by crop, the two would differ
    by what our own cutting shows of one frame.
    """
    by_time: dict[float, list[CachedFace]] = {}
    for face in real.faces:
        by_time.setdefault(face.time_s, []).append(face)
    rows, backgrounds = [], []
    for face in spread([face for face in fake.largest() if face.time_s in by_time], FACES):
        original = min(by_time[face.time_s], key=face.distance)
        whole = [medium.cache.picture(one) for medium, one in ((real, original), (fake, face))]
        windows = _common(original, face, [picture.shape[0] for picture in whole])
        if windows is None:
            continue
        pictures, clues, outside = [], [], []
        parts = zip((real, fake), (original, face), whole, windows, strict=True)
        for medium, one, picture, (x, y, width, height) in parts:
            shown = _shown(picture)
            window = (slice(y, y + height), slice(x, x + width))
            outside.append((outside_face(picture.shape, one.box_px, one.landmarks_px) & shown)[window])
            pictures.append(np.ascontiguousarray(picture[window]))
            clues.append(_clues(medium.cache, one, picture, shown))
        background = outside[0] & outside[1]
        values = [pixel_statistics(picture, background) for picture in pictures]
        rows.append(
            [None if row is None else np.concatenate([row, clue]) for row, clue in zip(values, clues, strict=True)]
        )
        backgrounds.append(background)
    return _couple(rows, backgrounds, fake.first.group)


def _couple(
    rows: Sequence[Sequence[Features | None]], backgrounds: Sequence[Background], group: str
) -> tuple[_Seen, _Seen] | None:
    """From the statistics of both pictures of each frame; clues are zeros where there are none."""
    kept = [
        ([real, fake], background)
        for (real, fake), background in zip(rows, backgrounds, strict=True)
        if real is not None and fake is not None
    ]
    if not kept:
        return None
    means = np.mean([both for both, _ in kept], axis=0)
    means = np.pad(means, ((0, 0), (0, len(NAMES) - means.shape[1])))
    px, share = _sizes([background for _, background in kept])
    return _Seen(group, is_fake=False, values=means[0], outside_px=px, outside_share=share), _Seen(
        group, is_fake=True, values=means[1], outside_px=px, outside_share=share
    )


def _sizes(backgrounds: Sequence[Background]) -> tuple[float, float]:
    return median(float(one.sum()) for one in backgrounds), median(float(one.mean()) for one in backgrounds)


def _common(real: CachedFace, fake: CachedFace, sides: Sequence[int]) -> list[tuple[int, int, int, int]] | None:
    """
    Left, top, width and height in each picture, of these *sides*, of the part of the frame that both show.

    None where one was shrunk on its way into the cache, or where they do not show the same face.
    """
    corners = []
    for face in (real, fake):
        if face.scale != 1.0:
            return None
        corners.append([round(face.frame_box_px[place] - face.box_px[place]) for place in (0, 1)])
    if fake.distance(real) > SAME_FACE:
        return None
    low = [max(corner[place] for corner in corners) for place in (0, 1)]
    high = [min(corner[place] + side for corner, side in zip(corners, sides, strict=True)) for place in (0, 1)]
    if high[0] <= low[0] or high[1] <= low[1]:
        return None
    return [(low[0] - x, low[1] - y, high[0] - low[0], high[1] - low[1]) for x, y in corners]


def _probe_set(
    name: str, alone: Sequence[_Seen | None], beside: Sequence[tuple[_Seen, _Seen] | None], rounds: int
) -> list[Probed]:
    """By media and by couples, each where there are as many groups as the probe needs."""
    found = []
    media = [one for one in alone if one is not None]
    if min(_groups(media).values()) >= LEAST_GROUPS:
        rows = np.array([one.values for one in media])
        found.append(_probed(name, "media", media, rows, len(alone) - len(media), rounds))
    couples = [both for both in beside if both is not None]
    if len({one.group for one, _ in couples}) >= LEAST_GROUPS:
        pairs = np.array([[one.values for one in both] for both in couples])  # (N, 2, F)
        rows = (pairs - pairs.mean(axis=1, keepdims=True)).reshape(2 * len(couples), -1)
        media = [one for both in couples for one in both]
        found.append(_probed(name, "couples", media, rows, len(beside) - len(couples), rounds))
    return found


def _groups(media: Sequence[_Seen]) -> dict[str, int]:
    """How many groups hold a real medium, and how many a fake."""
    return {
        label: len({one.group for one in media if one.is_fake == is_fake})
        for label, is_fake in (("real", False), ("fake", True))
    }


def _too_small(name: str, alone: Sequence[_Seen | None]) -> str:
    media = [one for one in alone if one is not None]
    groups = _groups(media)
    return (
        f"{name} is too small to be probed: of its media {groups['real']} people or single pictures that are real and "
        f"{groups['fake']} that are fake show enough outside the face, and {LEAST_GROUPS} of each are needed"
    )


def _probed(name: str, how: How, seen: Sequence[_Seen], rows: Features, left_out: int, rounds: int) -> Probed:
    groups, labels = [one.group for one in seen], np.array([int(one.is_fake) for one in seen], np.int64)
    areas = []
    for family, names in {"outside": PIXEL_NAMES, **PIXELS, **CLUES}.items():
        # A statistic that is the same everywhere, such as a quantisation that PNG has not, tells nothing.
        places = [place for place in map(NAMES.index, names) if np.ptp(rows[:, place]) > 0]
        if not places:
            if family not in CLUES:
                areas.append(Area(family, 0.5, (0.5, 0.5), ()))  # The same to the byte.
            continue
        scores = cross_validated(rows[:, places], labels, groups)
        single = [(NAMES[place], roc_auc(labels, rows[:, place]) or 0.0) for place in places]
        single.sort(key=lambda row: -abs(row[1] - 0.5))
        interval = bootstrap(roc_auc, labels, scores, groups, rounds=rounds)
        areas.append(Area(family, roc_auc(labels, scores) or 0.0, interval, tuple(single[:TELLING])))
    return Probed(
        name=name,
        how=how,
        media=len(seen),
        fakes=int(labels.sum()),
        groups=len(set(groups)),
        left_out=left_out,
        outside_px=round(median(one.outside_px for one in seen)),
        outside_share=median(one.outside_share for one in seen),
        areas=tuple(areas),
    )


def _fill_ellipse(face: Picture, middle: NDArray[np.float64], half: tuple[float, float], angle: float) -> None:
    centre = (float(middle[0]), float(middle[1]))
    cv2.ellipse(face, (centre, (2 * half[0], 2 * half[1]), angle), 1, -1)


def _away_from(excluded: NDArray[Any], distance_px: int) -> Background:
    """Where nothing *excluded* lies within *distance_px*."""
    reach = np.ones((2 * distance_px + 1,) * 2, np.uint8)
    return np.asarray(cv2.dilate(excluded.astype(np.uint8), reach) == 0)


def _outside_mask(mask: NDArray[np.float32], size_px: int) -> Background:
    changed = cv2.resize((mask > 0).astype(np.uint8), (size_px, size_px), interpolation=cv2.INTER_NEAREST)
    # What is changed by less than a grey level in a cell is not in its mask, and lies at the edge of cells that are.
    return _away_from(changed, SPREADING_PX + -(-size_px // mask.shape[0]))


def _block_corners(background: Background) -> list[tuple[int, int]]:
    height, width = (side // BLOCK_PX for side in background.shape)
    blocks = background[: height * BLOCK_PX, : width * BLOCK_PX].reshape(height, BLOCK_PX, width, BLOCK_PX)
    return [(int(y) * BLOCK_PX, int(x) * BLOCK_PX) for y, x in np.argwhere(blocks.all(axis=(1, 3)))]


def _shown(picture: Picture) -> Background:
    """Where a picture shows its frame: not where the frame's edge was repeated beyond it."""
    shown = np.ones(picture.shape[:2], np.bool_)
    for axis in (0, 1):
        lines = picture.astype(np.int16).swapaxes(0, axis)
        same = np.abs(np.diff(lines, axis=0)).max(axis=(1, 2)) <= PADDING
        differing = np.flatnonzero(~same)
        if len(differing):
            kept = np.zeros(picture.shape[axis], np.bool_)
            kept[differing[0] : differing[-1] + 2] = True
            shown &= kept[:, None] if axis == 0 else kept
    return shown


def _clues(cache: CropCache, face: CachedFace, picture: Picture, shown: Background) -> Features:
    """As ``CLUES``."""
    side = picture.shape[0]
    left, top, right, bottom = face.box_px
    cut = [
        side,
        face.size_px,
        (right - left) / side,
        (bottom - top) / side,
        (left + right) / 2 / side,
        (top + bottom) / 2 / side,
        1.0 - float(shown.mean()),
    ]
    with (cache.folder / f"{face.shard}.tar").open("rb") as file:
        file.seek(face.offset)
        data = file.read(face.length)
    return np.array([*cut, len(data) / side**2, *_jpeg_clues(data)], np.float64)


def _jpeg_clues(data: bytes) -> list[float]:
    """Bytes before the scan, means of the first two quantisation tables, and the sampling factors; zeros for others."""
    if not data.startswith(b"\xff\xd8"):
        return [0.0] * 4
    place, means, sampling = 2, [0.0, 0.0], 0.0
    while place + 4 <= len(data) and data[place] == 0xFF and data[place + 1] != 0xDA:
        marker, length = data[place + 1], struct.unpack_from(">H", data, place + 2)[0]
        segment = data[place + 4 : place + 2 + length]
        if marker == 0xDB:
            while len(segment) > 1:
                wide, number = 1 + (segment[0] >> 4), segment[0] & 15
                values = np.frombuffer(segment[1 : 1 + 64 * wide], ">u2" if wide == 2 else np.uint8)
                if number < 2:
                    means[number] = float(values.mean())
                segment = segment[1 + 64 * wide :]
        elif marker in {0xC0, 0xC1, 0xC2} and len(segment) > 7:
            sampling = float(segment[7])
        place += 2 + length
    return [float(place), *means, sampling]
