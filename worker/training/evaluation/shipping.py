"""Shipping of a finished run as a checkpoint for serving: calibrated, evaluated, and described in a model card."""

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal

from jinja2 import Environment, PackageLoader, StrictUndefined

from shared.drift import bin_shares
from shared.evidence import Evidence
from shared.manifests import Calibration, Manifest, Scale
from worker.model.checkpoint import load_checkpoint, save_checkpoint
from worker.training.errors import TrainingError
from worker.training.evaluation.calibration import MAX_FALSE_POSITIVES, MAX_MISSES, MIN_LOW, TAIL_SHARE, calibrate
from worker.training.evaluation.evaluate import evaluate
from worker.training.evaluation.figures import MIN_COMPARABLE_MEDIA
from worker.training.evaluation.plots import training_plot
from worker.training.evaluation.reference import make_reference, write_reference
from worker.training.evaluation.report import MEASURES, figure, write_report
from worker.training.evaluation.sources import EvaluationSource
from worker.training.fitting.progress import CURVES_FILE
from worker.training.fitting.recipes import Recipe
from worker.training.fitting.states import check_recipe
from worker.training.scoring.metrics import MIN_CLIPPED_SCORE
from worker.training.scoring.scored_media import ScoredMedium, score_caches

CURVES_PICTURE: Final = "curves.svg"
MANIFEST_METRICS: Final = (
    "roc_auc",
    "f1",
    "recall",
    "false_positive_rate",
    "equal_error_rate",
    "expected_calibration_error",
)
"""Metrics of a report that go into the manifest and the card."""
CARD_SLICES: Final = {
    "face size (px)": "size of the face in its frame, px",
    "brightness (luma)": "mean brightness of the crop, of 255",
    "skin tone estimate": "skin tone estimate",
}
"""Slices of a report whose rates the card compares."""
EVIDENCE_EXAMPLES: Final = {
    "a picture of one person": Evidence("image", 1, 1),
    "a picture of four people": Evidence("image", 1, 4),
    "a video, one face crop": Evidence("video", 1, 1),
    "a video, 5 crops of one person's face": Evidence("video", 5, 1),
    "a video, 20 crops of one person's face": Evidence("video", 20, 1),
    "a video of four people, 20 crops of the face of the one who scores highest": Evidence("video", 20, 4),
}
"""Examples of evidence whose limits the card lists."""
ROBUSTNESS_MEDIA: Final = 20
"""Number of media of each data set and class for the robustness curves."""
State = Literal["last", "best"]


def ship(
    recipe: Recipe,
    sources: Sequence[EvaluationSource],
    run: Path,
    out: Path,
    *,
    state: State = "best",
    weights: Path | None = None,
) -> Manifest:
    """
    Make a checkpoint for serving from a run, or from weights that were trained elsewhere.

    Its temperature, threshold and band follow from the validation set, and so do the figures in its manifest and
    card. The whole report goes into the folder ``report`` of *run*.

    Args:
        run: The run's folder.
        out: Folder of checkpoints; this one gets a folder by its name.
        state: State of *run*: ``last``, at the end of the schedule, or ``best`` on the validation set.
        weights: Folder of a checkpoint to take instead of a state, with the ``curves.csv`` of the run that made it.
            The recipe's ``origin`` describes that run for the card.

    Raises:
        TrainingError: The run has not validated yet, is another recipe's, or the validation set lacks a class; or the
            weights belong to another network than the recipe's.
    """
    folder = run / state if weights is None else weights
    if not (folder / "manifest.json").exists():
        raise TrainingError(
            f"{run} has no {state} state; train first" if weights is None else f"{folder} holds no checkpoint"
        )
    if weights is None:
        check_recipe(run, recipe)
    checkpoint = load_checkpoint(folder.parent, folder.name)
    _check_network(recipe, checkpoint.manifest, folder)
    rows = _curves(run if weights is None else weights)
    judged = list(sources)
    if weights is not None:
        # Weights must not be evaluated on sources that they were trained on.
        state, judged = "last", [source for source in sources if not source.source.seen]
    media = score_caches(checkpoint, [source.cache for source in judged], sets={"validation"})
    calibration = calibrate(media, min_bits_per_pixel=recipe.min_bits_per_pixel)
    manifest = checkpoint.manifest.model_copy(
        update={
            "name": recipe.name,
            "version": recipe.version,
            "trained": True,
            "calibration": calibration,
            "training_data": [_source_line(source) for source in sources],
            "licence": recipe.licence,
            "metrics": {},
            "reference_shares": reference_shares(media, calibration.scale),
        }
    )
    calibrated = replace(checkpoint, manifest=manifest)
    evaluation = evaluate(calibrated, judged, sets={"validation"}, limit=ROBUSTNESS_MEDIA, media=media)
    evaluation.report["options"]["recipe"] = recipe.name
    evaluation.report["split"]["sources"] |= {source.source.path.as_posix(): source.split for source in sources}
    write_report(evaluation, run / "report")
    manifest = manifest.model_copy(update={"metrics": _metrics(evaluation.report)})
    described = recipe if weights is not None else recipe.model_copy(update={"origin": None})
    card = render_card(described, manifest, evaluation.report, rows, state)
    folder = out / recipe.name
    written = save_checkpoint(folder, manifest, checkpoint.network, card)
    write_reference(folder, make_reference(written, [source.cache for source in judged], media))
    (folder / CURVES_PICTURE).write_bytes(training_plot(rows))
    return written


def _check_network(recipe: Recipe, manifest: Manifest, folder: Path) -> None:
    if (recipe.architecture, recipe.preprocessing) != (manifest.architecture, manifest.preprocessing):
        raise TrainingError(f"the network or the preprocessing of {folder} differs from the recipe {recipe.name}")


def reference_shares(media: Sequence[ScoredMedium], scale: Scale) -> tuple[float, ...]:
    """Return the shares of the scores of real media by tenths, the reference for measuring drift."""
    real = [medium.fake_score(scale) for medium in media if not medium.is_fake]
    return tuple(round(share, 4) for share in bin_shares(real))


def render_card(
    recipe: Recipe,
    manifest: Manifest,
    report: dict[str, Any],
    rows: Sequence[dict[str, float]],
    state: State,
) -> str:
    """Render the model card in Markdown; *rows* are the run's curves."""
    kept = max(rows, key=lambda row: row["selection"]) if state == "best" else rows[-1]
    environment = Environment(
        loader=PackageLoader("worker.training.evaluation"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # noqa: S701 - Markdown from our own figures, not a page
    )
    environment.filters.update(figure=figure, interval=_interval)
    card = environment.get_template("model_card.md").render(
        recipe=recipe,
        manifest=manifest,
        report=report,
        datasets=_slices(report, "dataset"),
        groups={title: _slices(report, way) for way, title in CARD_SLICES.items()},
        generators=[part for part in _slices(report, "method") if part["fakes"]],
        measures=MEASURES,
        few=MIN_COMPARABLE_MEDIA,
        clipped=MIN_CLIPPED_SCORE,
        sources=_sources(recipe, report),
        robustness=report["robustness"],
        images=int(kept["images"]),
        minutes=kept["seconds"] / 60,
        seen=int(rows[-1]["images"]),
        limits={
            "alarms": MAX_FALSE_POSITIVES,
            "misses": MAX_MISSES,
            "low": MIN_LOW,
            "tail": TAIL_SHARE,
            "table": _limits_table(manifest.calibration),
        },
        state=state,
    )
    return card.rstrip() + "\n"


def _limits_table(calibration: Calibration) -> list[dict[str, Any]]:
    """Return the limits for each example of evidence, for the kinds of media that have bounds."""
    rows = []
    for seen, evidence in EVIDENCE_EXAMPLES.items():
        if evidence.kind in (calibration.bounds or {}):
            low, high = calibration.limits(evidence)
            rows.append({"seen": seen, "low": low, "high": high})
    return rows


def _source_line(source: EvaluationSource) -> str:
    about = source.source.about or source.source.path.as_posix()
    return f"{about} ({source.source.terms})" if source.source.terms else about


def _sources(recipe: Recipe, report: dict[str, Any]) -> list[dict[str, Any]]:
    """Describe each of the recipe's data sets: its terms, its media by set, and how many of them are judged."""
    rows = []
    for source in recipe.sources:
        name = source.path.as_posix()
        media = dict.fromkeys(("train", "validation", "test"), 0)
        media |= report["split"]["sources"].get(name, {}).get("media", {})
        judged = report["by_source"].get(name, {"judged": 0, "unscored": 0})
        is_seen = source.seen and recipe.origin is not None
        left_out = media["validation"] - judged["judged"]
        why = "seen in training elsewhere" if is_seen else "no usable face"
        rows.append(
            {
                "name": name,
                "terms": source.terms,
                "media": media,
                "judged": judged["judged"],
                "unjudged": left_out,
                "left_out": f"{left_out}: {why}" if left_out else "",
            }
        )
    return rows


def _metrics(report: dict[str, Any]) -> dict[str, float]:
    """Return the metrics of the manifest: ``<data set>_<metric>`` by medium, over the validation set."""
    found = {f"validation_{name}": report["by_video"][name] for name in MANIFEST_METRICS}
    for part in _slices(report, "dataset"):
        found |= {f"validation_{part['name']}_{name}": part[name] for name in ("roc_auc", "false_positive_rate")}
    found["validation_pairs_above"] = report["pairs_above"]["share"]
    return {name: round(value, 4) for name, value in found.items() if value is not None}


def _slices(report: dict[str, Any], way: str) -> list[dict[str, Any]]:
    return [part for part in report["slices"] if part["by"] == way]


def _curves(run: Path) -> list[dict[str, float]]:
    path = run / CURVES_FILE
    if not path.exists():
        raise TrainingError(f"{path} is missing; it has the training curves for the model card")
    with path.open(newline="") as file:
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]


def _interval(value: Sequence[float] | None) -> str:
    # An interval without width comes from few media, not from certainty.
    return "" if value is None or value[0] == value[1] else f" [{value[0]:.2f}, {value[1]:.2f}]"
