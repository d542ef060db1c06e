"""Tiny runs: a data set of small tinted portraits with its crop cache, written by hand, and recipes for it."""

import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from tests.unit.worker.training.conftest import ASTRONAUT, HOPPER
from worker.detection.faces import crop_face, square_around
from worker.training.data.cache import MARGIN, CachedFace
from worker.training.data.cutting import MEDIA_PER_SHARD
from worker.training.data.media import Medium
from worker.training.data.sources import read_source_media
from worker.training.fitting.inputs import build_caches, paint_recipe_faces
from worker.training.fitting.recipes import Recipe
from worker.training.fitting.trainer import Trainer

SIDE_PX = 112
PLAIN = dict.fromkeys(
    ("jitter", "flip", "rescale", "blur", "noise", "sharpen", "jpeg", "h264", "colour", "cutout"), 0.0
)
"""No augmentation."""
RECIPE: Mapping[str, Any] = {
    "name": "tiny",
    "version": "0",
    "sources": [{"kind": "labelled", "path": "tinted"}],
    "architecture": {
        "backbone": "efficientnet-lite0",
        "input_planes": "rgb+srm",
        "head_channels": 8,
        "dropout": 0.2,
    },
    "preprocessing": {
        "crop_size_px": 64,
        "crop_margin": 0.2,
        "min_face_px": 20,
        "min_sharpness": 0.0,
        "min_confidence": 0.9,
    },
    "sampling": {"sample_fps": 2.0, "segment_seconds": 5.0},
    "start": "random",
    "stages": [{"images": 24, "mixture": {"labelled": 1.0, "textbook": 1.0}}],
    "optimisation": {"batch": 4, "warm_up_images": 8, "ema_decay": 0.5},
    "validation": {"every_images": 12, "blended_couples": 4},
    "hardware": {"accelerator": "cpu", "precision": "32-true", "threads": 1, "loader_processes": 0},
    "save_every_s": 1e9,
}


def settings(**changes: Any) -> dict[str, Any]:
    """RECIPE, with objects among *changes* merged into its own."""
    merged = dict(RECIPE)
    for key, value in changes.items():
        merged[key] = {**merged.get(key, {}), **value} if isinstance(value, dict) else value
    return merged


def tiny(**changes: Any) -> Recipe:
    """The recipe of those settings."""
    return Recipe.model_validate(settings(**changes))


def make_data(data: Path, *, train: int = 12, validation: int = 6) -> Path:
    """
    Lay out the data set ``tinted`` below *data*: that many files of each class, in which nothing is.

    Training reads crops alone, so the crop cache of ``write_caches`` is enough for it.
    """
    for name, count in (("train", train), ("validation", validation)):
        for label in ("real", "fake"):
            folder = data / "tinted" / name / label
            folder.mkdir(parents=True)
            for number in range(count):
                (folder / f"{name}-{label}-{number}.png").touch()
    return data


def write_caches(data: Path, caches: Path) -> list[Path]:
    """Write the crop cache of ``tinted``: two portraits, lit and grained at random; fakes have a red tint."""
    recipe = tiny()
    folder = caches / "tinted"
    folder.mkdir(parents=True)
    media = list(read_source_media(recipe.sources[0], data))
    for start in range(0, len(media), MEDIA_PER_SHARD):
        name = f"{start // MEDIA_PER_SHARD:05d}"
        faces = []
        with tarfile.TarFile(folder / f"{name}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            faces += [_add(tar, name, medium) for medium in media[start : start + MEDIA_PER_SHARD]]
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(asdict(face))}\n" for face in faces))
    # Finds every shard there, so that all that is left to it are the files beside them.
    return build_caches(recipe, data, caches)


def train_here(recipe: Path, data: Path, caches: Path, folder: Path) -> int:
    """Train as ``fitting.ablation.train_in_process`` does, without starting another Python."""
    threads = torch.get_num_threads()
    parsed = Recipe.read(recipe)
    built = build_caches(parsed, data, caches)
    Trainer(parsed, built, folder, painted=paint_recipe_faces(parsed, built, caches)).run()
    torch.set_num_threads(threads)
    return 0


def _add(tar: tarfile.TarFile, shard: str, medium: Medium) -> CachedFace:
    rng = np.random.default_rng(list(medium.key.encode()))
    portrait = (ASTRONAUT, HOPPER)[int(rng.integers(2))]
    portrait = portrait.flipped() if rng.random() < 0.5 else portrait
    x, y, side = square_around(portrait.box, MARGIN)
    scale = SIDE_PX / side
    picture = crop_face(portrait.picture, portrait.box, size_px=SIDE_PX, margin=MARGIN)
    tint = (25, -10, -10) if medium.label == "fake" else (0, 0, 0)
    grain = rng.normal(0.0, 4.0, picture.shape)
    lit = np.clip(picture * rng.uniform(0.6, 1.0) + tint + grain, 0, 255).astype(np.uint8)
    _, data = cv2.imencode(".png", cv2.cvtColor(lit, cv2.COLOR_RGB2BGR))
    header = tarfile.TarInfo(f"{medium.path.stem}.png")
    header.size = len(data)
    offset = tar.offset + tarfile.BLOCKSIZE
    tar.addfile(header, io.BytesIO(data.tobytes()))
    left, top, right, bottom = portrait.box
    return CachedFace(
        shard=shard,
        offset=offset,
        length=len(data),
        key=medium.key,
        label=medium.label,
        dataset=medium.dataset,
        group=medium.group,
        set=medium.set or "train",
        method="",
        compression="",
        original="",
        is_video=False,
        time_s=0.0,
        box_px=((left - x) * scale, (top - y) * scale, (right - x) * scale, (bottom - y) * scale),
        landmarks_px=tuple(((a - x) * scale, (b - y) * scale) for a, b in portrait.landmarks),
        frame_box_px=portrait.box,
        size_px=min(right - left, bottom - top),
        sharpness=100.0,
    )
