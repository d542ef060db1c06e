"""The whole benchmark: clips, contenders in turn, and a report that is written after each part."""

import json
import platform
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

import torch
from tqdm import tqdm

from worker.benchmark.contenders import read_duration_s
from worker.benchmark.devices import describe_device, find_device
from worker.benchmark.errors import BenchmarkError
from worker.benchmark.measuring import Bench, Measurement
from worker.benchmark.report import BOUNDS, INDISPENSABLE, PIPELINES, RATIOS
from worker.benchmark.run_setup import CEILING, YUNET, Setup
from worker.benchmark.scenes import make_scene
from worker.cores import available_cores
from worker.threads import usable_threads

SUFFIXES: Final = (".mp4", ".mov", ".mkv", ".webm", ".avi")
DETECTIONS: Final = ("detection, facenet-pytorch", "detection, ours")
SIZES: Final = ((640, 360), (1280, 720), (1920, 1080), (3840, 2160))
DURATIONS_S: Final = (10, 60, 180, 600)
FACES: Final = (1, 2, 4, 7, 10)
SCENE_DURATION_S: Final = 10
"""Length of clips of which something else than the duration varies."""


@dataclass(frozen=True, slots=True)
class BenchmarkOptions:
    """The options of the command line; see its help."""

    data: Path | None
    model: str
    models_dir: Path
    quick: bool
    rounds: int | None
    threads: int | None
    out: Path
    scenes: Path
    device: str = "cpu"
    price_per_hour: float | None = None
    yunet: Path | None = None
    growth: bool = True


def run_benchmark(options: BenchmarkOptions) -> dict[str, Any]:
    """
    Run the benchmark with *options*.

    Returns:
        The report, which is also written to ``options.out`` after each part.

    Raises:
        BenchmarkError: The device does not exist, there are no clips, or a contender failed.
    """
    device = find_device(options.device)
    setup = Setup(options.models_dir, options.model, str(device), options.threads, options.yunet)
    rounds = options.rounds or (3 if options.quick else 5)
    paths = _find_clips(options)
    report: dict[str, Any] = {
        "machine": _describe_machine(options.threads),
        "device": describe_device(device),
        "model": options.model,
        "price_per_hour": options.price_per_hour,
        "rounds": rounds,
        "quick": options.quick,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with closing(Bench(setup)) as bench:
        report[CEILING] = measure_ceiling(bench, paths[0])
        pipelines = PIPELINES if options.yunet is None else (*PIPELINES, YUNET)
        clips: list[dict[str, Any]] = []
        for path in tqdm(paths, unit="clip", desc="clips"):
            rows = bench.measure(path, [*pipelines, INDISPENSABLE], rounds=rounds)
            rows |= bench.measure(path, DETECTIONS, rounds=rounds)
            rates = compute_rates(rows, read_duration_s(path), report[CEILING]["faces_per_s"], options.price_per_hour)
            clips.append({"clip": path.name, **compute_ratios(rows), **rates, "contenders": rows_to_json(rows)})
            tqdm.write(_summarize(clips[-1], rows), file=sys.stderr)
            for name in (*RATIOS, *BOUNDS):
                report[name] = round(median(clip[name] for clip in clips), 3)
            _write(report | {"clips": clips}, options.out)
        report |= {"clips": clips, "growth": {}}
        _write(report, options.out)
        for name, growing in _measure_growth(bench, options).items() if options.growth else ():
            report["growth"][name] = list(growing)
            _write(report, options.out)
    return report


def _summarize(clip: Mapping[str, Any], rows: Mapping[str, Measurement]) -> str:
    """Return the line that is printed when a clip has been measured."""
    seconds = ", ".join(f"{name} {rows[name].seconds:.2f} s" for name in PIPELINES)
    return f"{clip['clip']}: {seconds}; straightforward / ours {clip['ratio_vs_straightforward']:.2f}"


def _write(report: Mapping[str, Any], path: Path) -> None:
    path.write_text(json.dumps(report, indent=2) + "\n")


def _describe_machine(threads: int | None) -> dict[str, Any]:
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": available_cores(),
        "threads": threads or usable_threads(),
        "torch": torch.__version__,
        "capability": torch.backends.cpu.get_cpu_capability(),
    }


def _find_clips(options: BenchmarkOptions) -> list[Path]:
    if options.data is not None:
        paths = sorted(path for path in options.data.glob("*") if path.suffix.lower() in SUFFIXES)
        if not paths:
            raise BenchmarkError(f"no video found in {options.data}; name a folder with files of {', '.join(SUFFIXES)}")
    else:
        paths = [
            make_scene(options.scenes / f"{height}p-2.mp4", width_px=width, height_px=height, seconds=10, faces=2)
            for width, height in SIZES[:3]
        ]
    if options.quick:
        # Only the largest and the smallest file, so that it ends in time.
        return sorted({max(paths, key=_size_bytes), min(paths, key=_size_bytes)})
    return paths


def _measure_growth(bench: Bench, options: BenchmarkOptions) -> dict[str, Iterator[dict[str, Any]]]:
    quick = options.quick

    def rows(values: Any, make: Callable[[Any], dict[str, int]]) -> Iterator[dict[str, Any]]:
        for value in tqdm(values, desc="growth"):
            scene = make(value)
            name = "-".join(str(number) for number in scene.values())
            path = make_scene(options.scenes / f"{name}.mp4", **scene)
            measurements = bench.measure(path, PIPELINES, rounds=options.rounds or 1)
            yield {**scene, "contenders": rows_to_json(measurements)}

    small = {"width_px": 640, "height_px": 360}
    return {
        "duration": rows(
            DURATIONS_S[:2] if quick else DURATIONS_S, lambda seconds: {**small, "seconds": seconds, "faces": 1}
        ),
        "resolution": rows(
            SIZES[:3:2] if quick else SIZES,
            lambda size: {"width_px": size[0], "height_px": size[1], "seconds": SCENE_DURATION_S, "faces": 1},
        ),
        "faces": rows(
            FACES[::4] if quick else FACES,
            lambda faces: {"width_px": 1280, "height_px": 720, "seconds": SCENE_DURATION_S, "faces": faces},
        ),
    }


def compute_ratios(rows: Mapping[str, Measurement]) -> dict[str, float]:
    """Return the ratios of times between the contenders that the report compares, rounded to three digits."""
    ours = rows["ours"].seconds
    reference_s, own_s = (rows[name].seconds for name in DETECTIONS)
    straightforward, floor, indispensable = (rows[name].seconds for name in ("straightforward", "floor", INDISPENSABLE))
    return {
        "ratio_vs_straightforward": round(straightforward / ours, 3),
        "ratio_vs_floor": round(ours / floor, 3),
        "detection_ratio": round(reference_s / own_s, 3),
        "straightforward_vs_indispensable": round(straightforward / indispensable, 3),
        "indispensable_vs_floor": round(indispensable / floor, 3),
    }


def measure_ceiling(bench: Bench, path: Path) -> dict[str, Any]:
    """Return the most faces a second that the network alone scores, the best size of a batch, and all sizes tried."""
    measured = bench.measure(path, [CEILING], rounds=1)[CEILING]
    return {
        "faces_per_s": round(measured.faces / measured.seconds, 1),
        "batch": int(min(measured.stages_s, key=lambda size: measured.stages_s[size])),
        "seconds_per_face": {size: round(value, 7) for size, value in measured.stages_s.items()},
    }


def compute_rates(
    rows: Mapping[str, Measurement], duration_s: float, ceiling: float, price_per_hour: float | None
) -> dict[str, Any]:
    """
    Return what an operator pays for a clip whose scans follow each other, one at a time.

    Args:
        duration_s: Length of the clip; zero if it is unknown.
        ceiling: Faces a second that the network alone scores.
        price_per_hour: Price of the machine for an hour, in any currency.

    Returns:
        The length, clips a minute, faces a second as a share of *ceiling*, and the cost of an hour of such video; None
        without a price or a length.
    """
    ours = rows["ours"]
    cost = round(price_per_hour * ours.seconds / duration_s, 6) if price_per_hour and duration_s else None
    return {
        "duration_s": round(duration_s, 2),
        "videos_per_minute": {name: round(60.0 / rows[name].seconds, 2) for name in PIPELINES},
        "share_of_ceiling": round(ours.faces / ours.seconds / ceiling, 4),
        "cost_per_hour_of_video": cost,
    }


def rows_to_json(rows: Mapping[str, Measurement]) -> list[dict[str, Any]]:
    """Return the measurements as the report stores them: one object for each contender, in order."""
    return [row.to_json() for row in rows.values()]


def _size_bytes(path: Path) -> int:
    return path.stat().st_size
