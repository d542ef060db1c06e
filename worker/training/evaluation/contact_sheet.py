"""
The contact sheet: real/fake pairs as training sees them, for visual inspection.

A row is one pair: the real picture, the fake, their difference, and both after augmentation.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final, get_args

import cv2
import numpy as np
from torch import Tensor

from worker.training.errors import DataError
from worker.training.fakes.augmentation import Augmentation
from worker.training.fakes.kinds import ALIGNED, Kind, Stage
from worker.training.fakes.pair_stream import RealFakePairStream
from worker.training.fakes.pictures import Picture
from worker.training.fitting.recipes import Recipe

COLUMNS: Final = ("real", "fake", "difference x4", "real, augmented", "fake, augmented")
AMPLIFIED: Final = 4
GAP_PX: Final = 4
HEADER_PX: Final = 22
LABEL_PX: Final = 96
_PAPER: Final = 255
_INK: Final = (20, 20, 20)


def draw_sheet(
    recipe: Recipe, caches: Sequence[Path], *, painted: Sequence[Path] = (), count: int = 3, seed: int = 0
) -> Picture:
    """
    Draw *count* pairs of every kind that the caches have faces for.

    Args:
        caches: Folders of crops, as ``build_caches`` returns them.
        painted: Folders of painted crops, as ``paint_faces`` returns them.
        seed: Seed of the pairs.

    Returns:
        (H, W, 3) uint8 RGB, with the kinds and the columns written on it. Kinds without faces are named at its end.

    Raises:
        DataError: No cache holds a real face for training.
    """
    rows: list[Picture] = []
    missing: list[Kind] = []
    for place, kind in enumerate(get_args(Kind)):
        plain, augmented = (
            _pair_stream(recipe, caches, painted, kind, augmentation, seed)
            for augmentation in (_without_changes(recipe.augmentation), recipe.augmentation)
        )
        try:
            # Each kind uses different numbers, so that it shows different faces.
            numbers = range(place * count, (place + 1) * count)
            rows += [
                _row(kind, number, plain.make_pair(number)[0], augmented.make_pair(number)[0]) for number in numbers
            ]
        except DataError:
            missing.append(kind)
    width = LABEL_PX + len(COLUMNS) * (recipe.preprocessing.crop_size_px + GAP_PX)
    parts = [_header(recipe, width), *rows]
    if missing:
        parts.append(_line(f"no faces for: {', '.join(missing)}", width))
    return np.concatenate(parts)


def write_sheet(sheet: Picture, path: Path) -> None:
    """
    Write *sheet* to *path*, whose ending chooses the format, and create its folder; the file is complete or absent.

    Raises:
        DataError: OpenCV knows no such format.
    """
    try:
        done, data = cv2.imencode(path.suffix or ".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    except cv2.error as error:
        raise DataError(f"{path}: pictures cannot be written as {path.suffix!r}") from error
    if not done:
        raise DataError(f"{path}: the picture could not be encoded")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_bytes(data.tobytes())
    partial.replace(path)


def _pair_stream(
    recipe: Recipe,
    caches: Sequence[Path],
    painted: Sequence[Path],
    kind: Kind,
    augmentation: Augmentation,
    seed: int,
) -> RealFakePairStream:
    return RealFakePairStream(
        caches,
        [Stage(1, {kind: 1.0})],
        augmentation,
        size_px=recipe.preprocessing.crop_size_px,
        margin=recipe.preprocessing.crop_margin,
        seed=seed,
        real_from=recipe.real_from,
        painted=painted,
    )


def _without_changes(augmentation: Augmentation) -> Augmentation:
    """Remove all changes except jitter, so that pairs of one number show the same faces at the same place."""
    chances = ("flip", "rescale", "blur", "noise", "sharpen", "jpeg", "h264", "colour", "cutout")
    return augmentation.model_copy(update=dict.fromkeys(chances, 0.0))


def _row(kind: Kind, number: int, plain: Tensor, augmented: Tensor) -> Picture:
    real, fake, real_after, fake_after = (_picture(planes) for planes in (*plain, *augmented))
    difference = np.full_like(real, _PAPER)
    if kind in ALIGNED:
        difference = np.asarray(cv2.convertScaleAbs(cv2.absdiff(real, fake), alpha=AMPLIFIED), np.uint8)
    label = np.full((real.shape[0], LABEL_PX, 3), _PAPER, np.uint8)
    _write(label, kind, (4, 20))
    _write(label, f"number {number}", (4, 38))
    tiles = [_framed(tile) for tile in (real, fake, difference, real_after, fake_after)]
    return np.concatenate([_padded(label), *tiles], axis=1)


def _picture(planes: Tensor) -> Picture:
    return np.ascontiguousarray(planes.permute(1, 2, 0).numpy())


def _framed(tile: Picture) -> Picture:
    return np.asarray(
        cv2.copyMakeBorder(tile, 0, GAP_PX, 0, GAP_PX, cv2.BORDER_CONSTANT, value=(_PAPER,) * 3), np.uint8
    )


def _padded(label: Picture) -> Picture:
    return np.asarray(cv2.copyMakeBorder(label, 0, GAP_PX, 0, 0, cv2.BORDER_CONSTANT, value=(_PAPER,) * 3), np.uint8)


def _header(recipe: Recipe, width: int) -> Picture:
    header = _line(recipe.name, width)
    for place, name in enumerate(COLUMNS):
        _write(header, name, (LABEL_PX + place * (recipe.preprocessing.crop_size_px + GAP_PX), 15))
    return header


def _line(text: str, width: int) -> Picture:
    line = np.full((HEADER_PX, width, 3), _PAPER, np.uint8)
    _write(line, text, (4, 15))
    return line


def _write(picture: Picture, text: str, place: tuple[int, int]) -> None:
    cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.42, _INK, 1, cv2.LINE_AA)
