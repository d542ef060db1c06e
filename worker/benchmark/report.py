"""The benchmark's report as tables in Markdown and as a plot."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from matplotlib.figure import Figure

from worker.benchmark.run_setup import YUNET

PIPELINES: Final = ("straightforward", "ours", "floor")
RATIOS: Final = ("ratio_vs_straightforward", "ratio_vs_floor", "detection_ratio")
INDISPENSABLE: Final = "indispensable"
STAGES: Final = ("probe", "decoding", "detection", "classification")
BOUNDS: Final = ("straightforward_vs_indispensable", "indispensable_vs_floor")
BOUND_COLUMNS: Final = (
    "clip",
    "probe, s",
    "frames, s",
    "detection's networks, s",
    "network, s",
    "together, s",
    "straightforward / together",
    "together / floor",
)
RATE_COLUMNS: Final = (
    "clip",
    "length, s",
    *(f"{name}, videos a minute" for name in PIPELINES),
    "ours, share of the network's faces/s",
    "straightforward, GPU MB",
    "ours, GPU MB",
    "ours, cost of an hour of video",
)
AXIS_FIELDS: Final = {"duration": "seconds", "resolution": "height_px", "faces": "faces"}
AXIS_LABELS: Final = {
    "duration": "length of the video, s",
    "resolution": "height of the picture, px",
    "faces": "faces in a frame",
}
COLUMNS: Final = (
    "clip",
    "frames",
    "faces",
    "straightforward, s",
    "ours, s",
    "floor, s",
    "straightforward / ours",
    "ours / floor",
    "detection: facenet-pytorch / ours",
    "ours, frames/s",
    "ours, faces/s",
    "ours, peak MB",
)


def table(report: Mapping[str, Any]) -> str:
    """Return tables in Markdown: the clips with their ratios, then the growth of time and memory."""
    lines = [f"| {' | '.join(COLUMNS)} |", f"|{' --- |' * len(COLUMNS)}"]
    for clip in report["clips"]:
        rows = {row["contender"]: row for row in clip["contenders"]}
        ours = rows["ours"]
        cells = [
            clip["clip"],
            str(ours["frames"]),
            str(ours["faces"]),
            *(f"{rows[name]['seconds']:.2f}" for name in PIPELINES),
            *(f"{clip[name]:.2f}" for name in RATIOS),
            f"{ours['frames_per_s']:.1f}",
            f"{ours['faces_per_s']:.1f}",
            _format_mb(ours),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    medians = (f"{report[name]:.2f}" for name in RATIOS)
    lines.append(f"| median | | | | | | {' | '.join(medians)} | | | |")
    lines += ["", *_bounds_table(report), "", *_rates_table(report)]
    for name, rows_of in report["growth"].items():
        lines += ["", f"| {AXIS_LABELS[name]} | " + " | ".join(f"{each}, s | {each}, MB" for each in PIPELINES) + " |"]
        lines.append(f"|{' --- |' * 7}")
        for row in rows_of:
            of = {each["contender"]: each for each in row["contenders"]}
            cells = [str(row[AXIS_FIELDS[name]])]
            for each in PIPELINES:
                cells += [f"{of[each]['seconds']:.2f}", _format_mb(of[each])]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _bounds_table(report: Mapping[str, Any]) -> Iterator[str]:
    """Yield the table of the indispensable work, and of the ratios if everything else took no time."""
    yield f"| {' | '.join(BOUND_COLUMNS)} |"
    yield f"|{' --- |' * len(BOUND_COLUMNS)}"
    for clip in report["clips"]:
        [least] = (row for row in clip["contenders"] if row["contender"] == INDISPENSABLE)
        cells = [f"{least['stages_s'][stage]:.2f}" for stage in STAGES]
        ratios = [f"{clip[name]:.2f}" for name in BOUNDS]
        together = f"{least['seconds']:.2f}"
        yield f"| {' | '.join([clip['clip'], *cells, together, *ratios])} |"
    yield f"| median | | | | | | {' | '.join(f'{report[name]:.2f}' for name in BOUNDS)} |"


def _rates_table(report: Mapping[str, Any]) -> Iterator[str]:
    """Yield the device with its ceiling, and the table of what a scan costs on it, one video at a time."""
    device, ceiling = report["device"], report["ceiling"]
    facts = [device["name"], f"driver {device['driver']}, CUDA {device['cuda']}" if "driver" in device else "CPU"]
    yield (
        f"{', '.join(facts)}: {report['model']} alone scores {ceiling['faces_per_s']:.0f} faces a second, in batches of"
        f" {ceiling['batch']}."
    )
    yield ""
    yunet = [YUNET] if any(row["contender"] == YUNET for row in report["clips"][0]["contenders"]) else []
    columns = [*RATE_COLUMNS, *(f"{name}, s" for name in yunet)]
    yield f"| {' | '.join(columns)} |"
    yield f"|{' --- |' * len(columns)}"
    for clip in report["clips"]:
        rows = {row["contender"]: row for row in clip["contenders"]}
        rates, cost = clip["videos_per_minute"], clip["cost_per_hour_of_video"]
        cells = [
            clip["clip"],
            f"{clip['duration_s']:.1f}",
            *(f"{rates[name]:.1f}" for name in PIPELINES),
            f"{100 * clip['share_of_ceiling']:.1f} %",
            *(_format_mb(rows[name], "gpu_peak_mb") for name in PIPELINES[:2]),
            "–" if cost is None else f"{cost:.4f}",
            *(f"{rows[name]['seconds']:.2f}" for name in yunet),
        ]
        yield f"| {' | '.join(cells)} |"


def draw(report: Mapping[str, Any], path: Path) -> None:
    """Plot seconds against duration, resolution and faces, for each contender."""
    figure = Figure(figsize=(12, 4), layout="constrained")
    for place, (name, axes) in enumerate(zip(AXIS_FIELDS, figure.subplots(1, 3), strict=True)):
        for contender in PIPELINES:
            points = [
                (row[AXIS_FIELDS[name]], each["seconds"])
                for row in report["growth"][name]
                for each in row["contenders"]
                if each["contender"] == contender
            ]
            axes.plot(*zip(*points, strict=True), marker="o", label=contender)
        axes.set_xlabel(AXIS_LABELS[name])
        axes.set_ylabel("seconds")
        axes.set_ylim(bottom=0)
        if place == 0:
            axes.legend(loc="upper left")
    figure.savefig(path)


def _format_mb(row: Mapping[str, Any], field: str = "peak_mb") -> str:
    return "–" if row[field] is None else f"{row[field]:.0f}"
