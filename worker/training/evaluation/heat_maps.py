"""
Whether heat maps say which parts of a crop raise its fake score: a deletion test, and localisation on aligned pairs.

Deletion (Samek et al., "Evaluating the visualization of what a deep neural network has learned", 2017): the hottest
part of a map is hidden, and the fall of the score is compared with that of the same area shifted to a random place, and
of the area that the same method finds on another face. Localisation: in aligned pairs the pixels that a swap changed
are known, so the hottest place and the hottest area are compared with them.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from shared.config import Limits
from shared.manifests import Preprocessing
from worker.detection.faces import crop_face
from worker.explain.faces import cut_face
from worker.explain.hiding import Area, Crop, blurred, hide, hottest_area
from worker.explain.maps import as_input, features_and_gradient, spread_out
from worker.media.decoding import Frame
from worker.media.frames import read_frames
from worker.media.probe import probe
from worker.model.network import ForgeryNetwork
from worker.pipeline.detector import Detector
from worker.training.data.cache import CachedFace, CropCache
from worker.training.data.media import find_media
from worker.training.errors import TrainingError
from worker.training.fakes.alignment import measure_visible_difference

SHARES: Final = (0.05, 0.1, 0.2, 0.3)
"""Shares of the crop that are hidden."""
COMPARED: Final = 0.1
"""The share for which areas of other faces, and noise, are tried as well."""
WINDOW: Final = 1 / 6
"""Standard deviation of occlusion's soft windows, as a share of the crop's side."""
WINDOWS: Final = 7
"""Windows of occlusion along each side."""
CHANGED: Final = 0.5
"""``measure_visible_difference`` from which a pixel counts as changed."""
MIN_CHANGED: Final = 0.02
"""Smallest share of a crop that a swap changed for localisation to be measured."""
PAIR_FPS: Final = 2.0

Map = NDArray[np.float32]
ScoreCrops = Callable[[list[Crop]], list[float]]
Contender = Callable[[Crop], Map]


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """A crop of a fake."""

    source: str
    group: str
    """What intervals draw as a whole: a video of DFDC, or the person that was swapped in."""
    crop: Crop
    original: Crop | None = None
    """The same crop before the swap, where it is known."""


@dataclass(frozen=True, slots=True)
class Fall:
    """How far the score of one crop falls where an area is hidden."""

    method: str
    source: str
    fill: str
    """``blur``, ``noise`` (the same with noise like the crop's own), or ``original``: the crop before the swap."""
    share: float
    hot: float
    shifted: float
    """The hottest area, moved by a random distance; what leaves the crop comes in at the other side."""
    other: float | None
    """The hottest area that the method finds on another face; measured for ``COMPARED`` alone."""


@dataclass(frozen=True, slots=True)
class Found:
    """How well one map finds the pixels that a swap changed."""

    method: str
    changed: float
    """Share of the crop: what a random place hits."""
    hit: bool
    iou: float
    """Intersection over union of the changed area and the hottest area of the same size."""
    auc: float
    """Probability that a changed pixel is hotter than an unchanged one."""


@dataclass(frozen=True, slots=True)
class Judged:
    """All measurements; ``falls`` and ``found`` have a group in front of each."""

    samples: tuple[tuple[str, float], ...]
    """Source and score of each crop."""
    falls: tuple[tuple[str, Fall], ...]
    found: tuple[tuple[str, Found], ...]


def contenders(network: ForgeryNetwork, score: ScoreCrops) -> dict[str, Contender]:
    """
    Return the ways of making a map, by name.

    Args:
        network: In eval mode, on the processor.
        score: Scores crops, for occlusion.
    """

    def at(endpoint: int, weigh: Callable[[Map, Map], Map], smoothing: float = 0.0) -> Contender:
        def make(crop: Crop) -> Map:
            _, features, gradient = features_and_gradient(network, as_input(crop), f"reduction_{endpoint}")
            values = spread_out(weigh(features, gradient), crop.shape[0])
            return np.asarray(cv2.GaussianBlur(values, (0, 0), smoothing * crop.shape[0])) if smoothing else values

        return make

    return {
        "HiResCAM at 1/4": at(2, _by_place),
        "HiResCAM at 1/8": at(3, _by_place),
        "HiResCAM at 1/8, smoothed": at(3, _by_place, 1 / 56),
        "HiResCAM at 1/16": at(4, _by_place),
        "HiResCAM at 1/32": at(6, _by_place),
        "LayerCAM at 1/8": at(3, _by_positive),
        "Grad-CAM at 1/8": at(3, _by_plane),
        "occlusion": lambda crop: occlusion_map(crop, score),
        "middle of the crop": lambda crop: _middle(crop.shape[0]),
    }


def _by_place(features: Map, gradient: Map) -> Map:
    return np.asarray((features * gradient).sum(axis=0), np.float32)


def _by_positive(features: Map, gradient: Map) -> Map:
    return np.asarray((features * np.maximum(gradient, 0.0)).sum(axis=0), np.float32)


def _by_plane(features: Map, gradient: Map) -> Map:
    return np.asarray((features * gradient.mean(axis=(1, 2), keepdims=True)).sum(axis=0), np.float32)


def occlusion_map(crop: Crop, score: ScoreCrops) -> Map:
    """Return how far the score falls where a soft window is blurred, (S, S); negative where it rises."""
    side = crop.shape[0]
    middles = (np.arange(WINDOWS) + 0.5) / WINDOWS
    windows = [_window(side, x, y, WINDOW) for y in middles for x in middles]
    background = blurred(crop)
    hidden = [np.asarray(np.rint(crop + (background - crop) * window[:, :, None]), np.uint8) for window in windows]
    whole, *others = score([crop, *hidden])
    falls = np.array([whole - other for other in others], np.float32)
    weighted = np.tensordot(falls, np.stack(windows), 1)
    return np.asarray(weighted / np.sum(windows, axis=0), np.float32)


def _middle(side: int) -> Map:
    return _window(side, 0.5, 0.5, 0.25)


def _window(side: int, x: float, y: float, deviation: float) -> Map:
    places = (np.arange(side) + 0.5) / side
    across, down = (np.exp(-0.5 * ((places - middle) / deviation) ** 2) for middle in (x, y))
    return np.asarray(down[:, None] * across, np.float32)


def cached_fakes(folder: Path, preprocessing: Preprocessing, *, count: int, seed: int) -> list[Sample]:
    """
    Draw crops of fakes from a crop cache, at most one for each original.

    Raises:
        DataError: There is no crop cache in the folder.
        TrainingError: It holds no fakes.
    """
    cache = CropCache(folder)
    fakes = [face for face in cache.read_faces() if face.label == "fake"]
    chosen: dict[str, CachedFace] = {}
    for number in np.random.default_rng(seed).permutation(len(fakes)):
        face = fakes[number]
        chosen.setdefault(face.original or face.key, face)
        if len(chosen) == count:
            break
    if not chosen:
        raise TrainingError(f"the crop cache in {folder} holds no fakes")
    return [
        Sample(
            "crops",
            key,
            crop_face(
                cache.read_picture(face),
                face.box_px,
                size_px=preprocessing.crop_size_px,
                margin=preprocessing.crop_margin,
            ),
        )
        for key, face in chosen.items()
    ]


def paired_fakes(folder: Path, detector: Detector) -> Iterator[Sample]:
    """
    Yield the swapped faces of side-by-side videos, each with the same crop of the original.

    Of each sampled frame, the face that differs most between the halves is taken.
    """
    for path in find_media(folder):
        facts = probe(path, Limits().for_media())
        frames = read_frames(
            path, facts, start_s=0.0, end_s=facts.duration_s or 0.0, sample_fps=PAIR_FPS, timeout_s=600.0
        )
        for frame in frames:
            half = frame.pixels.shape[1] // 2
            real, fake = (
                Frame(frame.time_s, np.ascontiguousarray(pixels))
                for pixels in (frame.pixels[:, :half], frame.pixels[:, -half:])
            )
            faces = [
                face
                for person in detector.score_segment([fake]).people
                for face in person.faces
                if face.fake_score is not None
            ]
            cut = [[cut_face(whole, face, detector.manifest.preprocessing) for whole in (fake, real)] for face in faces]
            changed = [(measure_visible_difference(before, after).mean(), after, before) for after, before in cut]
            if changed:
                share, after, before = max(changed, key=lambda one: float(one[0]))
                if share >= MIN_CHANGED:
                    yield Sample("pairs", path.stem.rpartition("_")[0], after, before)


def judge_heat_maps(
    samples: Sequence[Sample],
    network: ForgeryNetwork,
    score: ScoreCrops,
    *,
    seed: int = 0,
    deadline_s: float | None = None,
) -> Judged:
    """
    Measure every contender on *samples*, of which there are at least two, in a random order.

    Args:
        network: In eval mode, on the processor; for gradients.
        score: Scores crops, such as ``Detector.score_crops``.
        deadline_s: Time of ``time.monotonic`` after which no further sample is begun; at least one is measured.
    """
    methods = contenders(network, score)
    rng = np.random.default_rng(seed)
    samples = [samples[number] for number in rng.permutation(len(samples))]

    @cache
    def maps(number: int) -> dict[str, Map]:
        return {name: make(samples[number].crop) for name, make in methods.items()}

    measured: list[tuple[str, float]] = []
    falls: list[tuple[str, Fall]] = []
    found: list[tuple[str, Found]] = []
    for number, sample in enumerate(tqdm(samples, unit="crop")):
        if measured and deadline_s is not None and time.monotonic() > deadline_s:
            break
        other = _another(samples, number)
        (whole,) = score([sample.crop])
        measured.append((sample.source, whole))
        for name in methods:
            mine, others = maps(number)[name], maps(other)[name]
            falls += [(sample.group, fall) for fall in _falls(name, sample, whole, mine, others, score, rng)]
            if sample.original is not None:
                found.append((sample.group, locate(name, mine, sample.original, sample.crop)))
    return Judged(tuple(measured), tuple(falls), tuple(found))


def _another(samples: Sequence[Sample], number: int) -> int:
    """Return the next sample of the same source and another group, or the next one at all."""
    rest = [(number + step) % len(samples) for step in range(1, len(samples))]
    sample = samples[number]
    return next(
        (row for row in rest if samples[row].source == sample.source and samples[row].group != sample.group), rest[0]
    )


def _falls(
    name: str,
    sample: Sample,
    whole: float,
    mine: Map,
    others: Map,
    score: ScoreCrops,
    rng: np.random.Generator,
) -> Iterator[Fall]:
    background = blurred(sample.crop)
    fills: dict[str, tuple[Map, Sequence[float]]] = {
        "blur": (background, SHARES),
        "noise": (background + _noise(sample.crop), (COMPARED,)),
    }
    if sample.original is not None:
        fills["original"] = sample.original.astype(np.float32), SHARES
    tried = [(fill, share) for fill, (_, shares) in fills.items() for share in shares]
    crops = []
    for fill, share in tried:
        pixels, _ = fills[fill]
        hot = hottest_area(mine, share)
        down, across = (int(step) for step in rng.integers(mine.shape[0], size=2))
        areas = [hot, np.roll(hot, (down, across), (0, 1))]
        if share == COMPARED:
            areas.append(hottest_area(others, share))
        crops += [hide(sample.crop, area, pixels) for area in areas]
    values = iter([whole - value for value in score(crops)])
    for fill, share in tried:
        hot_fall, shifted = next(values), next(values)
        yield Fall(name, sample.source, fill, share, hot_fall, shifted, next(values) if share == COMPARED else None)


def _noise(crop: Crop) -> Map:
    """Return the finest details of *crop*, (S, S, 3), with their places exchanged, the same way for every crop."""
    details = crop - cv2.GaussianBlur(crop.astype(np.float32), (0, 0), crop.shape[0] / 112)
    return np.asarray(np.random.default_rng(0).permutation(details.reshape(-1, 3)).reshape(crop.shape), np.float32)


def locate(name: str, values: Map, original: Crop, fake: Crop) -> Found:
    """Compare a map of *fake* with where it differs from *original*."""
    changed = measure_visible_difference(original, fake) >= CHANGED
    share = float(changed.mean())
    hot = hottest_area(values, share)
    both, either = int(np.count_nonzero(hot & changed)), int(np.count_nonzero(hot | changed))
    hit = bool(changed.flat[int(values.argmax())])
    return Found(name, share, hit, both / max(either, 1), _auc(changed, values))


def _auc(changed: Area, values: Map) -> float:
    """Return the area under the ROC curve of (H, W) *values*; one half where a class is missing."""
    inside, outside = values[changed], values[~changed]
    if not (inside.size and outside.size):
        return 0.5
    order = np.sort(outside)
    below, up_to = np.searchsorted(order, inside, "left"), np.searchsorted(order, inside, "right")
    return float((below + up_to).mean() / 2 / outside.size)
