"""The plots of a report, drawn from its plain values; each function returns one SVG document."""

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

REAL: Final = "#2b6cb0"
FAKE: Final = "#c05621"
INK: Final = "#4a5568"
STYLE: Final[dict[Any, Any]] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.grid": True,
    "grid.color": "#e2e8f0",
    "legend.frameon": False,
    "svg.hashsalt": "report",  # The same figures give the same file.
}
PLOTS_A_ROW: Final = 3
UNITS: Final = {
    "jpeg": "JPEG quality",
    "h264": "H.264 constant rate factor",
    "scale": "share of each side",
    "blur": "blur, sigma in px",
    "half, h264": "H.264 constant rate factor at half size",
    "h264, jpeg": "JPEG quality after H.264 at 28",
}


def curves_plot(measured: Mapping[str, Any], threshold: float) -> bytes:
    """Plot ROC, precision against recall, reliability and the scores of both classes, side by side."""
    with rc_context(STYLE):
        figure = Figure(figsize=(11.0, 2.9), layout="constrained")
        roc, precision, calibration, scores = figure.subplots(1, 4)
        _curve(roc, measured["roc"], "false-positive rate", "true-positive rate", "ROC")
        roc.plot([0, 1], [0, 1], ":", color=INK, linewidth=0.8)
        _curve(precision, measured["precision_recall"], "recall", "precision", "Precision and recall")
        bins = measured["reliability"]
        _curve(
            calibration,
            [[part["mean_score"], part["fake_share"]] for part in bins],
            "mean score",
            "share of fakes",
            "Reliability",
        )
        calibration.plot([0, 1], [0, 1], ":", color=INK, linewidth=0.8)
        largest = max(part["count"] for part in bins)
        calibration.scatter(
            [part["mean_score"] for part in bins],
            [part["fake_share"] for part in bins],
            s=[8 + 60 * part["count"] / largest for part in bins],
            color=FAKE,
            zorder=3,
        )
        _histogram(scores, measured["histogram"], threshold)
        return _svg(figure)


def robustness_plot(points: Sequence[Mapping[str, Any]]) -> bytes:
    """Plot ROC-AUC and the mean score of both classes against the strength of each disturbance."""
    clean = next(point for point in points if point["strength"] is None)
    names = list(dict.fromkeys(point["disturbance"] for point in points if point["strength"] is not None))
    with rc_context(STYLE):
        columns = max(1, min(len(names), PLOTS_A_ROW))
        lines = max(1, math.ceil(len(names) / columns))
        figure = Figure(figsize=(11.0, 2.9 * lines), layout="constrained")
        places_of = figure.subplots(lines, columns, squeeze=False).ravel()
        for axes in places_of[len(names) :]:
            axes.set_visible(False)
        for axes, name in zip(places_of, names, strict=False):
            rows = [clean, *(point for point in points if point["disturbance"] == name)]
            places = list(range(len(rows)))
            for key, label, colour in (
                ("roc_auc", "ROC-AUC", "black"),
                ("mean_score_fake", "mean score, fake", FAKE),
                ("mean_score_real", "mean score, real", REAL),
            ):
                known = [(place, row[key]) for place, row in zip(places, rows, strict=True) if row[key] is not None]
                axes.plot(
                    *zip(*known, strict=True) if known else ([], []), "o-", color=colour, markersize=3, label=label
                )
            known = [(place, row["roc_auc_interval"]) for place, row in zip(places, rows, strict=True)]
            known = [row for row in known if row[1] is not None]
            axes.fill_between(
                [place for place, _ in known],
                [low for _, (low, _) in known],
                [high for _, (_, high) in known],
                color="black",
                alpha=0.1,
                linewidth=0,
            )
            axes.set_xticks(places, ["none", *(f"{row['strength']:g}" for row in rows[1:])])
            axes.set(xlabel=UNITS.get(name, name), ylim=(0, 1.02))
        figure.axes[0].legend(fontsize=7, loc="lower left")
        return _svg(figure)


def training_plot(rows: Sequence[Mapping[str, float]]) -> bytes:
    """Plot the smoothed training loss and every validation ROC-AUC against the images seen."""
    with rc_context(STYLE):
        figure = Figure(figsize=(8.0, 2.9), layout="constrained")
        losses, areas = figure.subplots(1, 2)
        seen = [row["images"] / 1000 for row in rows]
        losses.plot(seen, [row["loss"] for row in rows], color="black")
        losses.set(xlabel="thousand images", ylabel="training loss", ylim=(0, None))
        for name in dict.fromkeys(key for row in rows for key in row if key.endswith("_auc")):
            known = [(at, row[name]) for at, row in zip(seen, rows, strict=True) if name in row]
            areas.plot(*zip(*known, strict=True), label=name.removesuffix("_auc"))
        areas.set(xlabel="thousand images", ylabel="validation ROC-AUC", ylim=(0.4, 1.0))
        areas.legend(fontsize=7, loc="lower right")
        return _svg(figure)


def _curve(axes: Axes, points: Sequence[Sequence[float]], x: str, y: str, title: str) -> None:
    if points:
        axes.plot([point[0] for point in points], [point[1] for point in points], color=FAKE)
    else:
        axes.text(0.5, 0.5, "one class only", ha="center", color=INK)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=x, ylabel=y, title=title, aspect="equal")


def _histogram(axes: Axes, histogram: Mapping[str, Sequence[int]], threshold: float) -> None:
    for name, colour in (("real", REAL), ("fake", FAKE)):
        counts = histogram[name]
        shares = [count / max(1, sum(counts)) for count in counts]
        places = [(number + 0.5) / len(counts) for number in range(len(counts))]
        axes.bar(places, shares, width=1 / len(counts), color=colour, alpha=0.55, label=name)
    axes.axvline(threshold, color="black", linewidth=0.8, linestyle="--", label="threshold")
    axes.set(xlim=(0, 1), xlabel="score", ylabel="share of its class", title="Scores")
    axes.legend(fontsize=7, loc="upper center")


def _svg(figure: Figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="svg", metadata={"Date": None})
    return stream.getvalue()
