"""Validation on faces that are not trained on, cut as in serving; it selects the best state of a run."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from worker.inference import autocast
from worker.training.data.cache import CachedFace, CropCache
from worker.training.fakes.augmentation import Augmentation, crop_at_native_size, resize_to_network
from worker.training.fakes.kinds import Stage
from worker.training.fakes.pair_stream import RealFakePairStream
from worker.training.fakes.pictures import Picture
from worker.training.fakes.transcoding import VIEWS, Transform
from worker.training.fitting.recipes import Recipe, Validation
from worker.training.scoring.metrics import Labels, Scores, roc_auc
from worker.training.scoring.scored_media import compare_with_originals, draw_media, take_evenly

BATCH = 64


class ValidationFaces:
    """
    The faces of the validation set, and pairs of fakes made from them, in every view that the recipe names.

    Args:
        caches: Folders of crops.
    """

    def __init__(self, recipe: Recipe, caches: Sequence[Path]) -> None:
        crop = recipe.preprocessing
        self._size_px, self._margin = crop.crop_size_px, crop.crop_margin
        self._views: list[str] = list(recipe.validation.views)
        self.media: dict[str, CachedFace] = {}
        """A face of each medium, with the metadata of the medium."""
        self._medium_of: list[str] = []
        crops: dict[str, list[Picture]] = {view: [] for view in self._views}
        for cache, face in _choose_faces(caches, recipe.validation):
            native = crop_at_native_size(cache.read_picture(face), face.box_px, self._margin)
            for view in self._views:
                crops[view].append(resize_to_network(VIEWS[view](native), self._size_px))
            self._medium_of.append(f"{face.dataset}/{face.key}")
            self.media.setdefault(self._medium_of[-1], face)
        pairs = RealFakePairStream(
            caches,
            [Stage(1, {"textbook": 1.0, "subtle": 1.0, "swap": 1.0})],
            Augmentation(jitter=0.0),
            size_px=self._size_px,
            margin=self._margin,
            batch=recipe.validation.blended_couples,
            seed=2**31,
            set_name="validation",
        )
        made, _, _ = pairs.make_batch(0)  # (2N, 3, S, S)
        self._made = {view: self._apply_view(made, VIEWS[view]) for view in self._views}
        self._crops = {view: torch.from_numpy(np.stack(crops[view])).permute(0, 3, 1, 2) for view in self._views}

    def measure(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """
        Evaluate *network*, which is left in eval mode.

        Returns:
            Areas under the ROC curve, of the first view: ``made_auc`` over fakes made here, ``video_auc`` over all
            videos, ``stills_auc`` over the stills of data sets that hold fake ones, both by medium; ``<data set>_auc``
            by medium for each that holds both classes; and ``above``, the share of fakes that score above the medium
            they were made from. ``selection_<view>`` is the mean of the first three in that view, and ``selection``,
            by which states are chosen, the mean of these.
        """
        first, *others = self._views
        result, main = self._measure_view(network, device, first)
        selections = {first: main}
        for view in others:
            selections[view] = self._measure_view(network, device, view)[1]
        if others:
            result |= {f"selection_{view}": value for view, value in selections.items()}
        result["selection"] = float(np.mean(list(selections.values())))
        return result

    def _measure_view(self, network: nn.Module, device: torch.device, view: str) -> tuple[dict[str, float], float]:
        """Return the measures of one view, and the mean of those by which states are chosen."""
        made = _score(network, self._made[view], device).numpy()
        result: dict[str, float] = {}
        _add_auc(result, "made_auc", np.repeat([0, 1], len(made) // 2), made)
        by_medium: dict[str, list[float]] = {}
        logits = _score(network, self._crops[view], device).tolist()
        for medium, logit in zip(self._medium_of, logits, strict=True):
            by_medium.setdefault(medium, []).append(logit)
        rows = [(self.media[medium], float(np.mean(logits))) for medium, logits in by_medium.items()]
        with_fake_stills = {face.dataset for face, _ in rows if face.label == "fake" and not face.is_video}

        def add(name: str, part: Sequence[tuple[CachedFace, float]]) -> None:
            labels = np.array([int(face.label == "fake") for face, _ in part])
            _add_auc(result, name, labels, np.array([score for _, score in part]))

        add("video_auc", [row for row in rows if row[0].is_video])
        add("stills_auc", [row for row in rows if not row[0].is_video and row[0].dataset in with_fake_stills])
        selection = float(np.mean(list(result.values())))
        for name in sorted({face.dataset for face, _ in rows}):
            if f"{name}_auc" not in result:
                add(f"{name}_auc", [row for row in rows if row[0].dataset == name])
        above = compare_with_originals([face for face, _ in rows], [score for _, score in rows])
        if above:
            result["above"] = float(np.mean([is_above for _, is_above in above]))
        return result, selection

    def _apply_view(self, pictures: Tensor, transform: Transform) -> Tensor:
        """Apply *transform* to each of (N, 3, S, S) uint8 pictures."""
        planes = [picture.permute(1, 2, 0).contiguous().numpy() for picture in pictures]
        seen = [resize_to_network(transform(picture), self._size_px) for picture in planes]
        return torch.from_numpy(np.stack(seen)).permute(0, 3, 1, 2)


def _choose_faces(caches: Sequence[Path], limits: Validation) -> Iterator[tuple[CropCache, CachedFace]]:
    """Yield the validation faces that are evaluated, always the same ones."""
    media: list[tuple[CropCache, list[CachedFace]]] = []
    for cache in map(CropCache, caches):
        for _, group in groupby(cache.read_faces(), key=lambda face: (face.dataset, face.key)):
            faces = [face for face in group if face.set == "validation"]
            if faces:
                media.append((cache, faces))
    firsts = [faces[0] for _, faces in media]
    kept = set(firsts if limits.media is None else draw_media(firsts, limits.media))
    for cache, faces in media:
        if faces[0] in kept:
            yield from ((cache, face) for face in take_evenly(faces, limits.faces or len(faces)))


def _add_auc(result: dict[str, float], name: str, labels: Labels, scores: Scores) -> None:
    """Set *name* in *result* if both classes are present."""
    auc = roc_auc(labels, scores)
    if auc is not None:
        result[name] = auc


@torch.inference_mode()
def _score(network: nn.Module, pictures: Tensor, device: torch.device) -> Tensor:
    network.eval()
    parts = []
    for start in range(0, len(pictures), BATCH):
        faces = pictures[start : start + BATCH].to(device).to(torch.float32) / 255.0
        with autocast(device):
            logits = network(faces.contiguous(memory_format=torch.channels_last))
        parts.append(logits.float().cpu())
    return torch.cat(parts)
