"""Evaluation of checkpoints on the pseudo-fakes of training, by kind, against the faces that they were made from."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from shared.manifests import Preprocessing
from worker.model.checkpoint import Checkpoint
from worker.training.evaluation.leak_probes import PSEUDO_FAKE_KINDS
from worker.training.fakes.augmentation import Augmentation, resize_to_network
from worker.training.fakes.kinds import Kind, Stage
from worker.training.fakes.pair_maker import WHOLE_SQUARE_SHARE
from worker.training.fakes.pair_stream import RealFakePairStream
from worker.training.fakes.pictures import Picture
from worker.training.fakes.transcoding import VIEWS
from worker.training.fitting.recipes import Recipe
from worker.training.scoring.metrics import roc_auc
from worker.training.scoring.scored_media import score_crops

NO_AUGMENTATION = Augmentation(
    jitter=0.0, flip=0.0, rescale=0.0, blur=0.0, noise=0.0, sharpen=0.0, jpeg=0.0, h264=0.0, colour=0.0, cutout=0.0
)
SEED = 2**31
"""Seed of the pairs, which training never uses."""


@dataclass(frozen=True, slots=True)
class PairScores:
    """The scores of one checkpoint on one kind of fakes in one view."""

    checkpoint: str
    kind: Kind
    view: str
    real: NDArray[np.float64]
    """(N,) logits of the real faces."""
    fake: NDArray[np.float64]
    """(N,) logits of the fakes that were made from them, in the same order."""

    @property
    def auc(self) -> float:
        """Area under the ROC curve."""
        labels = np.repeat([0, 1], [len(self.real), len(self.fake)])
        area = roc_auc(labels, np.concatenate([self.real, self.fake]))
        if area is None:
            raise ValueError("pairs always hold both classes")
        return area

    @property
    def share_above_original(self) -> float:
        """Share of the fakes that score above their own real face."""
        return float((self.fake > self.real).mean())


def list_pseudo_fake_kinds(recipe: Recipe) -> list[Kind]:
    """Return the kinds of the recipe's mixtures that training makes from real faces, sorted."""
    wanted = {kind for stage in recipe.stages for kind, weight in stage.mixture.items() if weight > 0.0}
    return sorted(wanted & (PSEUDO_FAKE_KINDS - {"originals"}))


def make_pseudo_fakes(
    recipe: Recipe,
    caches: Sequence[Path],
    kind: Kind,
    crop: Preprocessing,
    *,
    painted: Sequence[Path] = (),
    count: int,
    set_name: str = "validation",
    whole: float = WHOLE_SQUARE_SHARE,
) -> Iterator[tuple[Picture, Picture]]:
    """
    Make *count* pairs of *kind*, real before fake, cut as serving cuts them for *crop*; always the same ones.

    Faces of data sets that the recipe calls ``seen`` are left out.

    Raises:
        DataError: The caches hold no faces for this kind.
    """
    pairs = RealFakePairStream(
        caches,
        [Stage(count, {kind: 1.0})],
        NO_AUGMENTATION,
        size_px=crop.crop_size_px,
        margin=crop.crop_margin,
        seed=SEED,
        set_name=set_name,
        real_from=[source.path.name for source in recipe.sources if not source.seen],
        painted=painted,
        whole=whole,
        data_set_power=recipe.draws.data_set,
        person_power=recipe.draws.person,
    )
    for number in range(count):
        planes, _, _ = pairs.make_pair(number)
        real, fake = (np.ascontiguousarray(picture.permute(1, 2, 0).numpy()) for picture in planes)
        yield real, fake


def evaluate_pseudo_fakes(
    recipe: Recipe,
    caches: Sequence[Path],
    checkpoints: Sequence[Checkpoint],
    *,
    painted: Sequence[Path] = (),
    count: int = 300,
    whole: float = WHOLE_SQUARE_SHARE,
) -> list[PairScores]:
    """
    Score pairs of every kind that *recipe* makes from held-out faces, in every view of ``transcoding.VIEWS``.

    Args:
        caches: Folders that ``fitting.inputs.build_caches`` returns.
        painted: Folders that ``fitting.inputs.paint_recipe_faces`` returns.
        count: Pairs of each kind.
        whole: Share of decoded and restored faces that are pasted as whole squares.

    Raises:
        DataError: The caches hold no faces for a kind.
        TrainingError: A logit is not a number.
    """
    found = []
    kinds = list_pseudo_fake_kinds(recipe)
    for checkpoint in checkpoints:
        manifest = checkpoint.manifest
        crop = manifest.preprocessing
        for kind in kinds:
            pairs = make_pseudo_fakes(recipe, caches, kind, crop, painted=painted, count=count, whole=whole)
            made = list(tqdm(pairs, total=count, unit="pair", desc=f"{manifest.name}, {kind}"))
            for view, transform in VIEWS.items():
                seen = [resize_to_network(transform(picture), crop.crop_size_px) for pair in made for picture in pair]
                logits = np.array(score_crops(checkpoint.network, seen, "cpu"))
                found.append(PairScores(manifest.name, kind, view, logits[::2], logits[1::2]))
    return found


def format_table(found: Sequence[PairScores]) -> str:
    """Return the areas under the curve in Markdown: a row for each kind and checkpoint, a column for each view."""
    heads = ["kind", "checkpoint", "pairs", *VIEWS, "above their original, clean"]
    lines = [f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}"]
    by_row: dict[tuple[Kind, str], dict[str, PairScores]] = {}
    for one in found:
        by_row.setdefault((one.kind, one.checkpoint), {})[one.view] = one
    for (kind, checkpoint), views in sorted(by_row.items()):
        clean = views["clean"]
        areas = [f"{views[view].auc:.3f}" for view in VIEWS]
        cells = [f"`{kind}`", f"`{checkpoint}`", str(len(clean.real)), *areas, f"{clean.share_above_original:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
