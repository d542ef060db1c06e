"""The report of an evaluation: ``report.json`` with every figure, and the self-contained ``report.html``."""

import json
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from worker.training.evaluation.evaluate import Evaluation
from worker.training.evaluation.figures import MIN_COMPARABLE_MEDIA
from worker.training.evaluation.plots import curves_plot, robustness_plot
from worker.training.scoring.metrics import MIN_CLIPPED_SCORE

JSON_FILE: Final = "report.json"
HTML_FILE: Final = "report.html"
MAX_LISTED: Final = 200
"""Largest number of unscored media that the page names; JSON names all."""
MEASURES: Final = {
    "roc_auc": "ROC-AUC",
    "pr_auc": "PR-AUC",
    "f1": "F1",
    "best_f1": "Best F1 of all thresholds",
    "best_f1_threshold": "The threshold of that",
    "precision": "Precision",
    "recall": "Recall",
    "false_positive_rate": "False-positive rate",
    "balanced_accuracy": "Balanced accuracy",
    "equal_error_rate": "Equal error rate",
    "log_loss": "Log loss",
    "clipped_log_loss": "Log loss, scores clipped",
    "expected_calibration_error": "Calibration error (ECE)",
}


def write_report(evaluation: Evaluation, folder: Path) -> None:
    """Write both files into *folder*, which is created if necessary."""
    folder.mkdir(parents=True, exist_ok=True)
    data = json.dumps(evaluation.report, indent=2, allow_nan=False)
    (folder / JSON_FILE).write_text(data + "\n", encoding="utf-8")
    (folder / HTML_FILE).write_text(render_html(evaluation), encoding="utf-8")


def render_html(evaluation: Evaluation) -> str:
    """Render the page, with its plots and pictures embedded."""
    environment = Environment(
        loader=PackageLoader("worker.training.evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(figure=figure, interval=_interval)
    report = evaluation.report
    threshold = report["checkpoint"]["calibration"]["threshold"]
    plots = {
        name: _data_uri("image/svg+xml", curves_plot(report[name], threshold)) for name in ("by_video", "by_frame")
    }
    if report["robustness"]:
        plots["robustness"] = _data_uri("image/svg+xml", robustness_plot(report["robustness"]))
    pictures = [_data_uri("image/jpeg", picture) for picture in evaluation.pictures]
    page = environment.get_template("report.html").render(
        report=report,
        measures=MEASURES,
        plots=plots,
        worst=list(zip(report["worst"], pictures, strict=True)),
        listed=MAX_LISTED,
        few=MIN_COMPARABLE_MEDIA,
        clipped=MIN_CLIPPED_SCORE,
        cautions=cautions(report),
    )
    return page + "\n"


def summary_lines(report: dict[str, Any]) -> list[str]:
    """Summarise a report for a terminal, as lines."""
    checkpoint, counts, pairs = report["checkpoint"], report["counts"], report["pairs_above"]
    model = f"{checkpoint['name']} {checkpoint['version']} ({checkpoint['weights_sha256'][:12]})"
    threshold = checkpoint["calibration"]["threshold"]
    lines = [
        f"{model}, threshold {threshold:g}, temperature {checkpoint['calibration']['temperature']:g}",
        *_threshold_lines(checkpoint["calibration"]),
        f"sets {', '.join(report['options']['sets'])}; split {report['split']['digest']}",
        f"{counts['media']} media ({counts['real']} real, {counts['fake']} fake), {counts['frames']} frames",
        f"{counts['unscored']} media without a usable face",
        *(f"caution: {line}" for line in cautions(report)),
        "by medium: a picture or a whole video counts once, scored as the service scores a job",
        "by frame: each sampled frame counts once, so long videos count more",
        "in brackets: 95 % bootstrap intervals over people or shots",
        f"{'':26}{'by medium':24}by frame",
    ]
    for name, title in MEASURES.items():
        cells = [
            f"{figure(report[part][name])} {_interval(report[part]['intervals'][name])}"
            for part in ("by_video", "by_frame")
        ]
        lines.append(f"{title:26}{cells[0]:24}{cells[1]}".rstrip())
    for part in report["by_video"]["by_fake_share"]:
        cells = [f"{name} {figure(part[name])} {_interval(part['intervals'][name])}" for name in ("precision", "f1")]
        title = f"With {part['fake_share']:.0%} fakes"
        lines.append(f"{title:26}{', '.join(cells)}".rstrip())
    if pairs["count"]:
        lines.append(f"fakes that score above their own original: {figure(pairs['share'])} of {pairs['count']}")
    return lines


def cautions(report: dict[str, Any]) -> list[str]:
    """Return the reasons why a report's metrics are uncertain, a sentence each; empty if there are enough media."""
    counts = report["counts"]
    if not counts["real"] or not counts["fake"]:
        return ["all media are of one class, so metrics that compare real with fake are not defined"]
    few = [f"{counts[label]} {label}" for label in ("real", "fake") if counts[label] < MIN_COMPARABLE_MEDIA]
    if few:
        warning = (
            f"{' and '.join(few)} media are too few for reliable metrics (under {MIN_COMPARABLE_MEDIA} of a class)"
        )
        return [f"{warning}: intervals are too wide, and one of no width comes from few media, not from certainty"]
    if counts["groups"] < MIN_COMPARABLE_MEDIA:
        return [f"only {counts['groups']} people or shots (under {MIN_COMPARABLE_MEDIA}): intervals are too narrow"]
    return []


def _threshold_lines(calibration: dict[str, Any]) -> list[str]:
    """Explain the threshold of a checkpoint whose limits depend on the evidence."""
    if not calibration["bounds"]:
        return []
    return [
        "  that threshold is for one crop of one face; with more crops of a face the limit is lower,",
        "  and with several people it is higher: each medium is judged by its own limits, as in the service",
    ]


def figure(value: float | None, digits: int = 3) -> str:
    """Format *value*; a dash for None."""
    return "–" if value is None else f"{value:.{digits}f}"


def _interval(value: Sequence[float] | None) -> str:
    return "" if value is None else f"[{value[0]:.3f}, {value[1]:.3f}]"


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{b64encode(data).decode()}"
