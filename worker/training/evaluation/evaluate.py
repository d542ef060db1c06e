"""
Evaluation of a checkpoint on data sets: metrics with confidence intervals.

The unit is one medium, an image or a video, scored as the service scores a job; the same metrics are given by frame as
well. Media without a usable face are counted and listed, never scored. All results follow from the checkpoint, the
data and the options, and go into one JSON object, from which the report is rendered.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import torch

from shared.manifests import Manifest
from worker.model.checkpoint import Checkpoint
from worker.training.data.cache import CropCache
from worker.training.data.splits import split_digest
from worker.training.errors import DataError
from worker.training.evaluation.figures import ROUNDS, compute_figures
from worker.training.evaluation.mistakes import describe_mistake, mistake_pictures, worst_mistakes
from worker.training.evaluation.robustness import robustness_curves
from worker.training.evaluation.sources import EvaluationSource
from worker.training.scoring.scored_media import ScoredMedium, score_caches

SETS: Final = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The results of an evaluation."""

    report: dict[str, Any]
    """Plain values, for JSON."""
    pictures: list[bytes]
    """JPEG pictures of the faces in ``report["worst"]``, in the same order."""


def evaluate(
    checkpoint: Checkpoint,
    sources: Sequence[EvaluationSource],
    *,
    sets: Collection[str] = SETS,
    device: str | torch.device = "cpu",
    robustness: bool = True,
    limit: int = 60,
    rounds: int = ROUNDS,
    options: Mapping[str, Any] | None = None,
    media: Sequence[ScoredMedium] | None = None,
) -> Evaluation:
    """
    Evaluate *checkpoint*.

    Args:
        checkpoint: Checkpoint with its network on *device*.
        sets: Sets whose media are scored.
        robustness: Whether to score disturbed faces as well.
        limit: Media of each data set and label for robustness.
        rounds: Rounds of the bootstrap over all media.
        options: Other options to record in the report.
        media: Scored media of these sets, if the checkpoint has scored them already.

    Raises:
        DataError: No medium of these sets has a usable face.
    """
    caches = [source.cache for source in sources]
    if media is None:
        media = score_caches(checkpoint, caches, sets=sets, device=device)
    if not media:
        raise DataError(f"no medium of {', '.join(sorted(sets))} has a usable face")
    report = {
        "checkpoint": _about(checkpoint.manifest),
        "split": _split(sources),
        "options": {"sets": sorted(sets), "robustness": robustness, "limit": limit, **(options or {})},
        **compute_figures(media, checkpoint.manifest, rounds=rounds),
    }
    unscored, report["by_source"] = _unscored(sources, media, sets)
    report["counts"]["unscored"] = len(unscored)
    report["unscored"] = unscored
    points = robustness_curves(checkpoint, caches, media, limit=limit, device=device) if robustness else []
    report["robustness"] = [asdict(point) for point in points]
    worst = worst_mistakes(media, checkpoint.manifest)
    report["worst"] = [describe_mistake(medium, face, checkpoint.manifest) for medium, face in worst]
    return Evaluation(report, mistake_pictures(caches, worst))


def _about(manifest: Manifest) -> dict[str, Any]:
    return {
        "name": manifest.name,
        "version": manifest.version,
        "trained": manifest.trained,
        "weights_sha256": manifest.weights.sha256,
        **{
            part: getattr(manifest, part).model_dump(mode="json")
            for part in ("calibration", "architecture", "preprocessing", "sampling")
        },
        "training_data": manifest.training_data,
    }


def _split(sources: Sequence[EvaluationSource]) -> dict[str, Any]:
    parts = {source.source.path.as_posix(): source.split for source in sources}
    return {"digest": split_digest([source.cache for source in sources]), "sources": parts}


def _unscored(
    sources: Sequence[EvaluationSource], media: Sequence[ScoredMedium], sets: Collection[str]
) -> tuple[list[dict[str, str]], dict[str, dict[str, int]]]:
    """
    List the media of *sets* without a score, with the reason: the code of an error, or ``no_usable_face``.

    Returns:
        These media, and by the path of each source the numbers of its media that were judged and that have no score.
    """
    scored = {(medium.dataset, medium.key) for medium in media}
    rows, counts = [], {}
    for source in sources:
        problems = {problem["key"]: problem["problem"] for problem in CropCache(source.cache).read_problems()}
        found = counts[source.source.path.as_posix()] = {"judged": 0, "unscored": 0}
        for medium in source.media():
            chosen = medium.set or "train"
            if chosen not in sets:
                continue
            if (medium.dataset, medium.key) in scored:
                found["judged"] += 1
                continue
            found["unscored"] += 1
            reason = problems.get(medium.key, "no_usable_face")
            row = {"dataset": medium.dataset, "key": medium.key, "set": chosen, "label": medium.label}
            rows.append({**row, "reason": reason})
    return rows, counts
