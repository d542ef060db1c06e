"""The report of ``heat_maps``: means and intervals, tables in Markdown, and a plot of the deletion test."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from worker.training.evaluation.heat_maps import COMPARED, Judged
from worker.training.evaluation.plots import STYLE

ROUNDS: Final = 1000
"""Rounds of the bootstrap."""
PLOTTED_METHODS: Final = ("HiResCAM at 1/8", "HiResCAM at 1/16", "occlusion", "middle of the crop")


def interval(values: Sequence[float], groups: Sequence[str], *, seed: int = 0) -> tuple[float, float, float]:
    """Return the mean and its 95 % interval, from a bootstrap that draws whole groups."""
    names, members = np.unique(np.asarray(groups), return_inverse=True)
    sums = np.bincount(members, np.asarray(values, np.float64))
    counts = np.bincount(members)
    drawn = np.random.default_rng(seed).integers(len(names), size=(ROUNDS, len(names)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(np.mean(values)), float(low), float(high)


def summarise(judged: Judged) -> dict[str, Any]:
    """Return means and 95 % intervals of all measurements as plain values for JSON."""
    keys = dict.fromkeys((fall.source, fall.fill, fall.share, fall.method) for _, fall in judged.falls)
    deletion: list[dict[str, Any]] = []
    for source, fill, share, method in keys:
        rows = [
            (group, fall)
            for group, fall in judged.falls
            if (fall.source, fall.fill, fall.share, fall.method) == (source, fill, share, method)
        ]
        groups = [group for group, _ in rows]
        deletion.append(
            {
                "source": source,
                "fill": fill,
                "share": share,
                "method": method,
                "crops": len(rows),
                "groups": len(set(groups)),
                "hot": interval([fall.hot for _, fall in rows], groups),
                "shifted": interval([fall.shifted for _, fall in rows], groups),
                "hot_less_shifted": interval([fall.hot - fall.shifted for _, fall in rows], groups),
            }
        )
        others = [fall.hot - fall.other for _, fall in rows if fall.other is not None]
        if others:
            deletion[-1]["hot_less_other"] = interval(others, groups)
    localisation = []
    for method in dict.fromkeys(found.method for _, found in judged.found):
        placed = [(group, found) for group, found in judged.found if found.method == method]
        groups = [group for group, _ in placed]
        columns: Mapping[str, list[float]] = {
            name: [float(getattr(found, name)) for _, found in placed] for name in ("changed", "hit", "iou", "auc")
        }
        localisation.append(
            {"method": method, "crops": len(placed), "groups": len(set(groups))}
            | {name: interval(values, groups) for name, values in columns.items()}
        )
    sources = {source: [score for of, score in judged.samples if of == source] for source, _ in judged.samples}
    scores = {
        source: {"crops": len(values), "mean_score": float(np.mean(values))} for source, values in sources.items()
    }
    return {"scores": scores, "deletion": deletion, "localisation": localisation}


def format_tables(summary: Mapping[str, Any]) -> str:
    """Return the measurements as tables in Markdown."""
    lines: list[str] = []
    for source, fill in dict.fromkeys((row["source"], row["fill"]) for row in summary["deletion"]):
        rows = [row for row in summary["deletion"] if (row["source"], row["fill"]) == (source, fill)]
        shares = list(dict.fromkeys(row["share"] for row in rows))
        lines += [
            f"{source}, hidden by {fill}, {rows[0]['crops']} crops of {rows[0]['groups']} groups:",
            "",
            "| map | " + " | ".join(f"{share:.0%}" for share in shares) + " | less a shifted area, 10 % |"
            " less another face's area, 10 % |",
            "| --- |" + " --- |" * (len(shares) + 2),
        ]
        for method in dict.fromkeys(row["method"] for row in rows):
            by_share = {row["share"]: row for row in rows if row["method"] == method}
            tenth = by_share[COMPARED]
            cells = [f"{by_share[share]['hot'][0]:.3f}" for share in shares]
            cells += [_cell(tenth["hot_less_shifted"]), _cell(tenth["hot_less_other"])]
            lines.append(f"| {method} | " + " | ".join(cells) + " |")
        lines.append("")
    if summary["localisation"]:
        first = summary["localisation"][0]
        lines += [
            f"Localisation, {first['crops']} crops of {first['groups']} people, {first['changed'][0]:.0%} changed:",
            "",
            "| map | hottest place is changed | IoU | AUC |",
            "| --- | --- | --- | --- |",
        ]
        lines += [
            f"| {row['method']} | {_cell(row['hit'])} | {_cell(row['iou'])} | {_cell(row['auc'])} |"
            for row in summary["localisation"]
        ]
        lines.append("")
    return "\n".join(lines)


def _cell(value: Sequence[float]) -> str:
    return f"{value[0]:.3f} [{value[1]:.3f}, {value[2]:.3f}]"


def plot(summary: Mapping[str, Any], methods: Sequence[str]) -> bytes:
    """Plot the fall of the score against the hidden share, blurred, for some *methods* and each source, as SVG."""
    rows = [row for row in summary["deletion"] if row["fill"] == "blur" and row["method"] in methods]
    sources = list(dict.fromkeys(row["source"] for row in rows))
    with rc_context(STYLE):
        figure = Figure(figsize=(4.5 * len(sources), 3.2), layout="constrained")
        for axes, source in zip(figure.subplots(1, len(sources), squeeze=False)[0], sources, strict=True):
            for number, method in enumerate(methods):
                points = [row for row in rows if (row["source"], row["method"]) == (source, method)]
                shares = [100 * row["share"] for row in points]
                for key, line in (("hot", "o-"), ("shifted", ":")):
                    label = method if key == "hot" else f"{method}, shifted"
                    axes.plot(shares, [row[key][0] for row in points], line, color=f"C{number}", label=label)
                low, high = ([row["hot"][place] for row in points] for place in (1, 2))
                axes.fill_between(shares, low, high, color=f"C{number}", alpha=0.12, linewidth=0)
            axes.set(xlabel="% of the crop blurred", ylabel="fall of the fake score", title=source)
        figure.axes[0].legend(fontsize=6, loc="upper left")
        stream = io.BytesIO()
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return stream.getvalue()


def write_report(judged: Judged, folder: Path) -> None:
    """Write the measurements into *folder*: ``report.json``, ``tables.md`` and ``deletion.svg``."""
    folder.mkdir(parents=True, exist_ok=True)
    summary = summarise(judged)
    (folder / "report.json").write_text(json.dumps(summary, indent=2, allow_nan=False) + "\n")
    (folder / "tables.md").write_text(format_tables(summary))
    (folder / "deletion.svg").write_bytes(plot(summary, PLOTTED_METHODS))
