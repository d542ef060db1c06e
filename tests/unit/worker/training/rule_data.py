"""A small data set that a known rule divides, networks that follow a rule, and media with given logits."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from shared.manifests import DEFAULT_CHECKPOINT, PACKAGED_MODELS_DIR, Calibration, Sampling, read_manifest
from tests.clips import astronaut, hopper, make_clip
from tests.unit.worker.training.cutting_here import cut_here
from worker.model.checkpoint import Checkpoint
from worker.training.evaluation.sources import EvaluationSource, folder_source
from worker.training.scoring.scored_media import ScoredFace, ScoredMedium

_PACKAGED = read_manifest(PACKAGED_MODELS_DIR / DEFAULT_CHECKPOINT)
MANIFEST = _PACKAGED.model_copy(
    update={
        "name": "rule",
        "preprocessing": _PACKAGED.preprocessing.model_copy(update={"crop_size_px": 64, "min_sharpness": 5.0}),
        "sampling": Sampling(sample_fps=2.0, segment_seconds=2.0),
        "calibration": Calibration(temperature=1.0, threshold=0.5, uncertainty_band=(0.5, 0.5)),
    }
)


class Darkness(nn.Module):
    """Calls dark faces fake; with a negative *slope*, bright ones."""

    def __init__(self, middle=0.22, slope=40.0):
        super().__init__()
        self.middle, self.slope = middle, slope

    def forward(self, faces):
        return (self.middle - faces.mean((1, 2, 3))) * self.slope


class Detail(nn.Module):
    """Calls faces with much detail fake."""

    def forward(self, faces):
        return (faces[..., 1:] - faces[..., :-1]).abs().mean((1, 2, 3)) * 100.0 - 4.0


def checkpoint(network, manifest=MANIFEST):
    return Checkpoint(manifest, network.eval())


@dataclass(frozen=True)
class RuleDataSet:
    """Real faces as they are, fakes at a third of their brightness, a clip of two people, and a picture of noise."""

    root: Path
    caches: Path

    def source(self) -> EvaluationSource:
        """Builds nothing that is there."""
        return folder_source(self.root, MANIFEST, self.caches)


def make_rule_data_set(root: Path) -> RuleDataSet:
    folder = root / "judged"
    for label, brightness in (("real", 1.0), ("fake", 1 / 3)):
        (folder / "test" / label).mkdir(parents=True)
        for name, picture in (("astronaut", astronaut()), ("hopper", hopper())):
            for turned in (False, True):
                shown = np.asarray(picture[:, ::-1] if turned else picture) * brightness
                path = folder / "test" / label / f"{label}-{name}-{turned}.png"
                Image.fromarray(shown.astype(np.uint8)).save(path)
    noise = np.random.default_rng(1).integers(0, 255, (120, 120, 3), np.uint8)
    Image.fromarray(noise).save(folder / "test" / "real" / "noise.png")
    (folder / "validation" / "real").mkdir(parents=True)
    people = (astronaut(), (hopper() * 0.6).astype(np.uint8))
    make_clip(folder / "validation" / "real" / "clip.mp4", size=(480, 320), seconds=6.0, faces=people)
    judged = RuleDataSet(folder, root / "crops")
    with cut_here():
        judged.source()
    return judged


def face(logit, *, time_s=0.0, segment=0, person=0, size_px=100.0, luma=120.0, skin=None):
    box = (10.0 * person, 0.0, 10.0 * person + 8.0, 8.0)
    return ScoredFace(time_s, logit, segment, person, size_px, 200.0, luma, skin, box)


def medium(label, *faces, key="", group="", dataset="made", chosen="test", method="", original="", is_video=False):
    key = key or f"{label}-{faces[0].logit}"
    return ScoredMedium(dataset, key, group or key, chosen, label, method, "", original, is_video, tuple(faces))


def logit(probability):
    return float(torch.logit(torch.tensor(probability, dtype=torch.float64)))
