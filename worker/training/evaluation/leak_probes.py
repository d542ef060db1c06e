"""
Probes outside the face: whether anything but the face distinguishes a data set's fakes from its real media.

The face is blanked out with a margin in some cached pictures of each medium, and a linear probe, cross-validated over
groups of people, gets simple statistics of the remaining pixels. If it is better than chance, labels leak: fakes were
compressed, resized or selected differently from real media, and a detector may learn that instead of the swap. Further
probes use single families of statistics, and how faces were cut and encoded. The single statistics with the largest
areas are named.

Where the real medium that a fake was made from is known, a second probe compares only the two: what their faces,
scenes and cameras have in common cancels out, so that it finds leaks a hundred times fainter.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from worker.training.data.cache import SAME_FACE, CachedFace, CropCache
from worker.training.errors import DataError
from worker.training.evaluation.background_statistics import (
    NAMES,
    SPREADING_PX,
    Background,
    Features,
    find_background,
    find_pixels_away_from,
    find_shown_part,
    measure_clues,
    pixel_statistics,
)
from worker.training.evaluation.linear_probes import ROUNDS, SEED, ProbeResult, Statistics, explain_too_small, probe_set
from worker.training.fakes.augmentation import Augmentation
from worker.training.fakes.kinds import ALIGNED, Kind, Stage
from worker.training.fakes.pair_stream import RealFakePairStream
from worker.training.fitting.recipes import Recipe
from worker.training.scoring.scored_media import take_evenly

FACES: Final = 4
"""Faces of a medium that are used, spread over it."""
PSEUDO_FAKE_KINDS: Final = ALIGNED - {"pairs"}
"""Kinds of pairs that training makes, whose masks show the change; side-by-side videos are probed as a data set."""


def probe_caches(folders: Sequence[Path], *, limit: int = 1500, rounds: int = ROUNDS) -> list[ProbeResult]:
    """
    Probe every data set in some crop caches that holds both classes.

    Where originals are known, each is drawn with one fake, so that both classes have the same size and the same people;
    otherwise all media are used.

    Args:
        limit: Largest number of pairs of a data set, or of media of each class, always the same ones.
        rounds: Rounds of the bootstrap.

    Raises:
        DataError: No data set holds both classes, or all are too small, or a cache is missing or damaged.
    """
    by_dataset: dict[str, list[_Faces]] = {}
    for cache in map(CropCache, folders):
        for (dataset, _), faces in groupby(cache.read_faces(), key=lambda face: (face.dataset, face.key)):
            by_dataset.setdefault(dataset, []).append(_Faces(cache, tuple(faces)))
    found: list[ProbeResult] = []
    small: list[str] = []
    for dataset, media in sorted(by_dataset.items()):
        drawn, pairs = _drawn(media, limit)
        if len({one.first.label for one in drawn}) == 2:
            alone = [_measured(one) for one in tqdm(drawn, unit="medium", desc=f"{dataset}, media")]
            beside = [_compared(*both) for both in tqdm(pairs, unit="pair", desc=f"{dataset}, pairs")]
            probed = probe_set(dataset, alone, beside, rounds)
            found += probed
            if not probed:
                small.append(explain_too_small(dataset, alone))
    if not found:
        raise DataError("; ".join(small) or "no data set in these caches holds both real and fake media")
    for reason in small:
        tqdm.write(f"left out: {reason}")
    return found


def probe_pseudo_fakes(
    folders: Sequence[Path],
    kind: Kind,
    augmentation: Augmentation,
    *,
    size_px: int,
    margin: float,
    count: int = 400,
    painted: Sequence[Path] = (),
    rounds: int = ROUNDS,
) -> list[ProbeResult]:
    """
    Probe pairs of one kind that training makes, as it sees them, outside the mask of the change.

    Args:
        kind: Kind whose masks are known.
        size_px: Side of the crops.
        margin: Margin of the crops.
        count: Number of pairs.
        painted: Folders of paintings, as for ``RealFakePairStream``.

    Raises:
        DataError: The caches hold no faces for this kind, or there are too few pairs.
    """
    pairs = RealFakePairStream(
        folders, [Stage(count, {kind: 1.0})], augmentation, size_px=size_px, margin=margin, painted=painted, seed=SEED
    )
    seen: list[tuple[Statistics, Statistics] | None] = []
    for number in tqdm(range(count), unit="pair", desc=f"made, {kind}"):
        planes, _, mask = pairs.make_pair(number)
        background = _outside_mask(mask.numpy(), size_px)
        rows = [pixel_statistics(picture, background) for picture in planes.permute(0, 2, 3, 1).numpy()]
        seen.append(_average_pair([rows], [background], str(number)))
    if not any(seen):
        raise DataError(f"pairs of the kind {kind!r} leave no pixels outside the changed area")
    alone = [one for both in seen for one in (both or (None, None))]
    found = probe_set(f"made: {kind}", alone, seen, rounds)
    if not found:
        raise DataError(explain_too_small(f"made: {kind}", alone))
    return found


def probe_recipe(
    recipe: Recipe, caches: Sequence[Path], *, painted: Sequence[Path] = (), limit: int = 1500, made: int = 400
) -> list[ProbeResult]:
    """
    Probe the data sets of *recipe* that hold both classes, and the kinds of its mixtures that training makes.

    Args:
        caches: Folders that ``build_caches`` returns.
        painted: Folders that ``paint_recipe_faces`` returns.
        limit: Limit of ``probe_caches``.
        made: Number of pairs of each kind.

    Raises:
        DataError: A cache is missing or damaged, or holds no faces for a kind.
    """
    found = probe_caches(caches, limit=limit)
    kinds = {kind for stage in recipe.stages for kind, weight in stage.mixture.items() if weight > 0.0}
    crop = recipe.preprocessing
    for kind in sorted(kinds & PSEUDO_FAKE_KINDS) if made else ():
        found += probe_pseudo_fakes(
            caches,
            kind,
            recipe.augmentation,
            size_px=crop.crop_size_px,
            margin=crop.crop_margin,
            count=made,
            painted=painted,
        )
    return found


@dataclass(frozen=True, slots=True)
class _Faces:
    """A medium in a cache, with its faces."""

    cache: CropCache
    faces: tuple[CachedFace, ...]

    @property
    def first(self) -> CachedFace:
        """First face, which has the metadata of the medium."""
        return self.faces[0]

    def largest(self) -> list[CachedFace]:
        """Return the largest face of each frame."""
        return [next(found) for _, found in groupby(self.faces, key=lambda face: face.time_s)]


def _drawn(media: Sequence[_Faces], limit: int) -> tuple[list[_Faces], list[tuple[_Faces, _Faces]]]:
    """Draw the media that are probed alone, and pairs of an original and a fake."""
    ordered = sorted(media, key=lambda one: hashlib.sha256(one.first.key.encode()).digest())
    real = {one.first.key: one for one in ordered if one.first.label == "real"}
    fakes = [one for one in ordered if one.first.label == "fake"]
    first: dict[str, _Faces] = {}
    for one in fakes:
        if one.first.original in real:
            first.setdefault(one.first.original, one)
    pairs = [(real[original], fake) for original, fake in list(first.items())[:limit]]
    if pairs:
        return [one for both in pairs for one in both], pairs
    return [*list(real.values())[:limit], *fakes[:limit]], []


def _measured(medium: _Faces) -> Statistics | None:
    """Compute the statistics outside the faces of a medium; None if too few pixels are outside."""
    rows, backgrounds = [], []
    for face in take_evenly(medium.largest(), FACES):
        picture = medium.cache.read_picture(face)
        shown = find_shown_part(picture)
        background = find_background(picture.shape, face.box_px, face.landmarks_px) & shown
        values = pixel_statistics(picture, background)
        if values is not None:
            rows.append(np.concatenate([values, measure_clues(medium.cache, face, picture, shown)]))
            backgrounds.append(background)
    if not rows:
        return None
    first = medium.first
    return Statistics(first.group, first.label == "fake", np.mean(rows, axis=0), *_sizes(backgrounds))


def _compared(real: _Faces, fake: _Faces) -> tuple[Statistics, Statistics] | None:
    """
    Compute the statistics outside both faces of a fake and its original, at the same places of their frames.

    Each is cut where the detector finds its face, which a swap moves: whole crops would differ by the part of the frame
    that they show.
    """
    by_time: dict[float, list[CachedFace]] = {}
    for face in real.faces:
        by_time.setdefault(face.time_s, []).append(face)
    rows, backgrounds = [], []
    for face in take_evenly([face for face in fake.largest() if face.time_s in by_time], FACES):
        original = min(by_time[face.time_s], key=face.distance_to)
        whole = [medium.cache.read_picture(one) for medium, one in ((real, original), (fake, face))]
        windows = _common(original, face, [picture.shape[0] for picture in whole])
        if windows is None:
            continue
        pictures, clues, outside = [], [], []
        parts = zip((real, fake), (original, face), whole, windows, strict=True)
        for medium, one, picture, (x, y, width, height) in parts:
            shown = find_shown_part(picture)
            window = (slice(y, y + height), slice(x, x + width))
            outside.append((find_background(picture.shape, one.box_px, one.landmarks_px) & shown)[window])
            pictures.append(np.ascontiguousarray(picture[window]))
            clues.append(measure_clues(medium.cache, one, picture, shown))
        background = outside[0] & outside[1]
        values = [pixel_statistics(picture, background) for picture in pictures]
        rows.append(
            [None if row is None else np.concatenate([row, clue]) for row, clue in zip(values, clues, strict=True)]
        )
        backgrounds.append(background)
    return _average_pair(rows, backgrounds, fake.first.group)


def _average_pair(
    rows: Sequence[Sequence[Features | None]], backgrounds: Sequence[Background], group: str
) -> tuple[Statistics, Statistics] | None:
    """Average the statistics of both pictures over the frames, with zeros for clues that are not known."""
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
    return Statistics(group, is_fake=False, values=means[0], outside_px=px, outside_share=share), Statistics(
        group, is_fake=True, values=means[1], outside_px=px, outside_share=share
    )


def _sizes(backgrounds: Sequence[Background]) -> tuple[float, float]:
    return median(float(one.sum()) for one in backgrounds), median(float(one.mean()) for one in backgrounds)


def _common(real: CachedFace, fake: CachedFace, sides: Sequence[int]) -> list[tuple[int, int, int, int]] | None:
    """
    Return left, top, width and height, in each picture, of the part of the frame that both pictures show.

    Args:
        sides: Sides of the two pictures.

    Returns:
        None if one was shrunk for the cache, or if they do not show the same face.
    """
    corners = []
    for face in (real, fake):
        if face.scale != 1.0:
            return None
        corners.append([round(face.frame_box_px[place] - face.box_px[place]) for place in (0, 1)])
    if fake.distance_to(real) > SAME_FACE:
        return None
    low = [max(corner[place] for corner in corners) for place in (0, 1)]
    high = [min(corner[place] + side for corner, side in zip(corners, sides, strict=True)) for place in (0, 1)]
    if high[0] <= low[0] or high[1] <= low[1]:
        return None
    return [(low[0] - x, low[1] - y, high[0] - low[0], high[1] - low[1]) for x, y in corners]


def _outside_mask(mask: NDArray[np.float32], size_px: int) -> Background:
    changed = cv2.resize((mask > 0).astype(np.uint8), (size_px, size_px), interpolation=cv2.INTER_NEAREST)
    # Changes by less than a grey level of a cell are not in the mask, but they are next to cells that are in it.
    return find_pixels_away_from(changed, SPREADING_PX + -(-size_px // mask.shape[0]))
