"""What training looks at to choose among its own states: faces it never learns from, cut as serving cuts them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from worker.detection.faces import crop_face
from worker.training.augment import Augmentation
from worker.training.cache import CropCache
from worker.training.couples import Couples, Stage
from worker.training.metrics import Labels, Scores, roc_auc
from worker.training.recipes import Recipe

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
        crops, self._labels, self._media, self._sets = [], [], [], []
        for folder in caches:
            cache = CropCache(folder)
            for face in cache.faces():
                if face.set == "validation":
                    picture = cache.picture(face)
                    crops.append(crop_face(picture, face.box_px, size_px=self._size_px, margin=self._margin))
                    self._labels.append(int(face.label == "fake"))
                    self._media.append(f"{face.dataset}/{face.key}")
                    self._sets.append(face.dataset)
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
            ``made_auc`` over fakes made here; ``<data set>_auc`` by medium for each that holds both classes;
            ``pairs_above``, the share of swapped halves that score above their own original; ``swap_auc``, swapped
            halves against every real video; and ``selection``, the mean of the areas, by which states are chosen.
        """
        made = _logits(network, self._made, device).numpy()
        count = len(made) // 2
        result: dict[str, float] = {}
        _add_auc(result, "made_auc", np.repeat([0, 1], count), made)
        by_medium: dict[str, list[float]] = {}
        about = dict(zip(self._media, zip(self._labels, self._sets, strict=True), strict=True))
        for medium, logit in zip(self._media, _logits(network, self._crops, device).tolist(), strict=True):
            by_medium.setdefault(medium, []).append(logit)
        scores = {medium: float(np.mean(logits)) for medium, logits in by_medium.items()}
        for name in sorted(set(self._sets)):
            rows = [medium for medium in scores if about[medium][1] == name]
            labels = np.array([about[row][0] for row in rows])
            _add_auc(result, f"{name}_auc", labels, np.array([scores[row] for row in rows]))
        swapped = [medium for medium in scores if medium.endswith("#right")]
        if swapped:
            above = [scores[medium] > scores.get(medium.replace("#right", "#left"), np.inf) for medium in swapped]
            result["pairs_above"] = float(np.mean(above))
            real = [medium for medium in scores if about[medium] in {(0, "pairs"), (0, "videos")}]
            labels = np.repeat([1, 0], [len(swapped), len(real)])
            _add_auc(result, "swap_auc", labels, np.array([scores[row] for row in (*swapped, *real)]))
        areas = [value for key, value in result.items() if key.endswith("_auc")]
        result["selection"] = float(np.mean(areas))
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
