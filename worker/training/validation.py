"""What training looks at to choose among its own states: faces it never learns from, cut as serving cuts them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from worker.detection.faces import crop_face
from worker.training.augment import Augmentation
from worker.training.cache import CachedFace, CropCache
from worker.training.couples import Couples, Stage
from worker.training.metrics import Labels, Scores, roc_auc
from worker.training.recipes import Recipe
from worker.training.scored import above_originals

BATCH = 64


class ValidationFaces:
    """
    The faces of the validation set, and couples of fakes made from them.

    Args:
        caches: Folders of crops.
    """

    def __init__(self, recipe: Recipe, caches: Sequence[Path]) -> None:
        crop = recipe.preprocessing
        self._size_px, self._margin = crop.crop_size_px, crop.crop_margin
        self._media: dict[str, CachedFace] = {}
        """A face of each medium, which tells what the medium is."""
        crops, self._medium_of = [], []
        for folder in caches:
            cache = CropCache(folder)
            for face in cache.faces():
                if face.set == "validation":
                    picture = cache.picture(face)
                    crops.append(crop_face(picture, face.box_px, size_px=self._size_px, margin=self._margin))
                    self._medium_of.append(f"{face.dataset}/{face.key}")
                    self._media.setdefault(self._medium_of[-1], face)
        couples = Couples(
            caches,
            [Stage(1, {"textbook": 1.0, "subtle": 1.0, "swap": 1.0})],
            Augmentation(jitter=0.0),
            size_px=self._size_px,
            margin=self._margin,
            batch=recipe.validation.blended_couples,
            seed=2**31,
            set_name="validation",
        )
        self._made, _, _ = couples.batch(0)  # (2N, 3, S, S)
        self._crops = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2)

    def measure(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """
        Judge *network*, which is left in eval mode.

        Returns:
            Areas under the ROC curve: ``made_auc`` over fakes made here, ``video_auc`` over all videos, ``stills_auc``
            over the stills of data sets that hold fake ones, both by medium, and ``selection``, the mean of these, by
            which states are chosen; ``<data set>_auc`` by medium for each that holds both classes; and ``above``, the
            share of fakes that score above the medium they were made from.
        """
        made = _logits(network, self._made, device).numpy()
        result: dict[str, float] = {}
        _add_auc(result, "made_auc", np.repeat([0, 1], len(made) // 2), made)
        by_medium: dict[str, list[float]] = {}
        for medium, logit in zip(self._medium_of, _logits(network, self._crops, device).tolist(), strict=True):
            by_medium.setdefault(medium, []).append(logit)
        rows = [(self._media[medium], float(np.mean(logits))) for medium, logits in by_medium.items()]
        with_fake_stills = {face.dataset for face, _ in rows if face.label == "fake" and not face.is_video}

        def add(name: str, part: Sequence[tuple[CachedFace, float]]) -> None:
            labels = np.array([int(face.label == "fake") for face, _ in part])
            _add_auc(result, name, labels, np.array([score for _, score in part]))

        add("video_auc", [row for row in rows if row[0].is_video])
        add("stills_auc", [row for row in rows if not row[0].is_video and row[0].dataset in with_fake_stills])
        result["selection"] = float(np.mean(list(result.values())))
        for name in sorted({face.dataset for face, _ in rows}):
            if f"{name}_auc" not in result:
                add(f"{name}_auc", [row for row in rows if row[0].dataset == name])
        above = above_originals([face for face, _ in rows], [score for _, score in rows])
        if above:
            result["above"] = float(np.mean([is_above for _, is_above in above]))
        return result


def _add_auc(result: dict[str, float], name: str, labels: Labels, scores: Scores) -> None:
    """Set *name* in *result*, if both classes are there."""
    auc = roc_auc(labels, scores)
    if auc is not None:
        result[name] = auc


@torch.inference_mode()
def _logits(network: nn.Module, pictures: Tensor, device: torch.device) -> Tensor:
    network.eval()
    parts = []
    for start in range(0, len(pictures), BATCH):
        faces = pictures[start : start + BATCH].to(device).to(torch.float32) / 255.0
        with torch.autocast(device.type, torch.bfloat16):
            logits = network(faces.contiguous(memory_format=torch.channels_last))
        parts.append(logits.float().cpu())
    return torch.cat(parts)
