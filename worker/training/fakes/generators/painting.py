"""
Fakes painted by small networks, which are trained on real faces of the training set; stored as crop caches.

``paint_faces`` trains each network and writes its paintings. Held-out people are painted as well, by networks that
never saw them, so that each kind of fake can be evaluated on people who were never trained on.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final, Literal, NamedTuple, Protocol

import numpy as np
from numpy.random import Generator
from tqdm import tqdm

from worker.detection.faces import square_around
from worker.training.data.cache import CachedFace, CropCache, append_picture, open_tar
from worker.training.data.splits import split_digest
from worker.training.errors import DataError
from worker.training.fakes.generators.autoencoders import SIDES_PX, AutoencoderSettings, train_autoencoder
from worker.training.fakes.generators.inpainters import Face, InpainterSettings, train_inpainter
from worker.training.fakes.generators.pictures import PATCH_PX, resize
from worker.training.fakes.generators.restorers import RestorerSettings, train_restorer
from worker.training.fakes.pictures import Landmarks, Picture

PaintedKind = Literal["painted", "decoded", "restored", "inpainted"]
"""Reconstructed by a plain autoencoder, by the decoder of a variational or quantised one, by a network that enlarges
small faces, and by diffusion within a mask. Each is also the name of a data set."""
PainterSettings = AutoencoderSettings | RestorerSettings | InpainterSettings
SHARD: Final = "00000"
VERSION: Final = 2
"""Version of this module's paintings; another version has caches of its own."""
MARGIN: Final = 0.3
"""Margin around the face of the part that is painted."""


class Painter(Protocol):
    """A trained network."""

    def paint(self, part: Picture, landmarks: Landmarks, rng: Generator) -> Picture:
        """
        Paint a new version of a face.

        Args:
            part: (H, W, 3) uint8 RGB, the picture around a face.
            landmarks: Landmarks in *part*.
            rng: Generator of everything random.

        Returns:
            The same part, (H', W', 3) uint8 RGB of a size that the network chooses.
        """


class CachedRow(NamedTuple):
    """A cached face, and the cache that holds its picture."""

    cache: CropCache
    face: CachedFace

    def part(self) -> tuple[Picture, int, int]:
        """Return the picture around the face, and the position of its corner."""
        picture = self.cache.read_picture(self.face)
        x, y, width, height = locate_part(self.face, picture.shape)
        return np.ascontiguousarray(picture[y : y + height, x : x + width]), x, y


def paint_faces(
    caches: Sequence[Path],
    folder: Path,
    settings: Sequence[PainterSettings],
    *,
    seed: int = 0,
) -> list[Path]:
    """
    Train each network on the real faces of the training set in *caches*, and paint these and held-out ones with it.

    Args:
        folder: Receives a crop cache for each network, named after what decides its contents: an existing one is
            kept. The label of its faces is ``fake``, their data set the network's kind, their set that of the real
            face, and ``original`` the name of the face that was painted (see ``face_name``).

    Returns:
        The folders of these caches.

    Raises:
        DataError: There is no real face.
    """
    folders = [folder / name for name in cache_names(settings, seed, caches)]
    for number, (painter_settings, place) in enumerate(zip(settings, folders, strict=True)):
        if (place / f"{SHARD}.jsonl").exists():
            continue
        own_seed = seed + list(settings[:number]).count(painter_settings)
        painter = train_painter(
            painter_settings, draw_faces(caches, "train", painter_settings.faces, seed), own_seed, place.name
        )
        rows = draw_faces(caches, "train", painter_settings.faces, seed) + draw_faces(
            caches, "validation", max(1, painter_settings.faces // 2), seed
        )
        paint_cache(painter, rows, place, kind=painter_settings.kind, seed=own_seed)
    return folders


def face_name(face: CachedFace) -> str:
    """Return the unique name of a cached face, for ``CachedFace.original`` of its paintings."""
    return f"{face.dataset}/{face.key}@{face.shard}:{face.offset}"


def locate_part(face: CachedFace, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Return left, top, width and height of the painted part around *face*, in its picture of *shape* (H, W, …)."""
    x, y, side = square_around(face.box_px, MARGIN)
    x, y = max(x, 0), max(y, 0)
    return x, y, min(side, shape[1] - x), min(side, shape[0] - y)


def cache_names(settings: Sequence[PainterSettings], seed: int, caches: Sequence[Path]) -> list[str]:
    """Return the names of the caches that ``paint_faces`` paints from the faces in *caches*."""
    split = split_digest(caches)
    earlier: Counter[PainterSettings] = Counter()
    digests = []
    for painter_settings in settings:
        # Networks of equal settings differ by their seeds, whatever their places in the recipe.
        digests.append(
            hashlib.sha256(
                json.dumps([VERSION, painter_settings.model_dump(), seed + earlier[painter_settings], split]).encode()
            )
        )
        earlier[painter_settings] += 1
    for face in (face for folder in caches for face in CropCache(folder).read_faces() if face.label == "real"):
        for digest in digests:
            digest.update(f"{face_name(face)}:{face.length}\n".encode())
    return [
        f"{painter_settings.kind}-{painter_settings.method}-{digest.hexdigest()[:8]}"
        for painter_settings, digest in zip(settings, digests, strict=True)
    ]


def draw_faces(caches: Sequence[Path], set_name: str, limit: int, seed: int) -> list[CachedRow]:
    """Draw at most *limit* real faces of a set, in the order of the caches."""
    rng = np.random.default_rng(seed)
    drawn: list[tuple[float, CachedRow]] = []
    for folder in caches:
        cache = CropCache(folder)
        drawn += (
            (rng.random(), CachedRow(cache, face))
            for face in cache.read_faces()
            if face.label == "real" and face.set == set_name
        )
    if not drawn and set_name == "train":
        raise DataError("no cache holds a real face of the training set for a network to paint")
    kept = sorted(place for place, _ in drawn)[:limit]
    return [row for place, row in drawn if place <= kept[-1]]


def train_painter(settings: PainterSettings, rows: Sequence[CachedRow], seed: int, title: str) -> Painter:
    """Train the network that *settings* describe on *rows*; *title* labels the progress bar."""
    match settings:
        case AutoencoderSettings():
            pictures = [_resize_for_training(row.part()[0]) for row in rows]
            return train_autoencoder(settings, pictures, seed=seed, title=title)[0]
        case RestorerSettings():
            pictures = [_resize_for_training(row.part()[0]) for row in rows]
            return train_restorer(settings, pictures, seed=seed, title=title)[0]
        case InpainterSettings():
            return train_inpainter(settings, [_face(row) for row in rows], seed=seed, title=title)[0]


def _face(row: CachedRow) -> Face:
    part, x, y = row.part()
    height, width = part.shape[:2]
    marks = [((a - x) * PATCH_PX / width, (b - y) * PATCH_PX / height) for a, b in row.face.landmarks_px]
    return Face(resize(part, PATCH_PX, PATCH_PX), marks)


def _resize_for_training(picture: Picture) -> Picture:
    """Resize a picture to at least the size of a patch, and to no more than painting needs."""
    factor = float(np.clip(min(picture.shape[:2]), PATCH_PX, SIDES_PX[1])) / min(picture.shape[:2])
    width, height = (max(PATCH_PX, round(length * factor)) for length in picture.shape[1::-1])
    return resize(picture, width, height)


def paint_cache(painter: Painter, rows: Sequence[CachedRow], folder: Path, *, kind: PaintedKind, seed: int) -> None:
    """Paint the faces of *rows* and store them in *folder* as a crop cache of one shard."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    # Other processes may paint the same at the same time. The index is renamed last: it makes the shard valid.
    tar_partial, index_partial = (folder / f"{SHARD}.{end}.{os.getpid()}.partial" for end in ("tar", "jsonl"))
    with tar_partial.open("wb") as file:
        tar = open_tar(file)
        for number, row in enumerate(tqdm(rows, unit="face", desc=f"{folder.name} paints")):
            part, x, y = row.part()
            face = row.face
            marks = [(a - x, b - y) for a, b in face.landmarks_px]
            # Each face has its own seed, so that the result does not depend on which others were drawn.
            picture = painter.paint(part, marks, np.random.default_rng((seed, 1, number)))
            offset, length = append_picture(tar, file, f"{SHARD}-{number:06d}.png", picture)
            across, down = picture.shape[1] / part.shape[1], picture.shape[0] / part.shape[0]
            left, top, right, bottom = face.box_px
            painted = replace(
                face,
                shard=SHARD,
                offset=offset,
                length=length,
                label="fake",
                dataset=kind,
                method=folder.name,
                original=face_name(face),
                box_px=((left - x) * across, (top - y) * down, (right - x) * across, (bottom - y) * down),
                landmarks_px=tuple((a * across, b * down) for a, b in marks),
            )
            lines.append(json.dumps(asdict(painted)))
        tar.close()
    index_partial.write_text("".join(f"{line}\n" for line in lines))
    tar_partial.rename(folder / f"{SHARD}.tar")
    index_partial.rename(folder / f"{SHARD}.jsonl")
