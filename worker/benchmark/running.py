"""The whole benchmark: clips, contenders in turn, and a report that is written as far as it is."""

import json
import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

import torch
from tqdm import tqdm

from worker.benchmark.errors import BenchmarkError
from worker.benchmark.measuring import Bench, Measurement
from worker.benchmark.report import BOUNDS, INDISPENSABLE, PIPELINES, RATIOS
from worker.benchmark.scenes import make_scene
from worker.cores import available_cores

SUFFIXES: Final = (".mp4", ".mov", ".mkv", ".webm", ".avi")
DETECTIONS: Final = ("detection, facenet-pytorch", "detection, ours")
SIZES: Final = ((640, 360), (1280, 720), (1920, 1080), (3840, 2160))
DURATIONS_S: Final = (10, 60, 180, 600)
FACES: Final = (1, 2, 4, 7, 10)
SCENE_S: Final = 10
"""Length of a clip where something else grows than the duration."""


@dataclass(frozen=True, slots=True)
class Given:
    """The options of the command line, which says what each means."""

    data: Path | None
    model: str
    models_dir: Path
    quick: bool
    rounds: int | None
    threads: int | None
    out: Path
    scenes: Path


def measured(given: Given) -> dict[str, Any]:
    """
    Measure what *given* asks for.

    Returns:
        The report, which is written to ``given.out`` as far as it is after each part.

    Raises:
        BenchmarkError: There is nothing to measure on, or a contender failed.
    """
    rounds = given.rounds or (3 if given.quick else 5)
    paths = _paths(given)
    report: dict[str, Any] = {"machine": _machine(given.threads), "rounds": rounds, "quick": given.quick}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    with closing(Bench(given.models_dir, given.model, threads=given.threads)) as bench:
        clips: list[dict[str, Any]] = []
        for path in tqdm(paths, unit="clip", desc="clips"):
            rows = bench.measure(path, [*PIPELINES, INDISPENSABLE], rounds=rounds)
            rows |= bench.measure(path, DETECTIONS, rounds=rounds)
            clips.append({"clip": path.name, **_ratios(rows), "contenders": _json(rows)})
            for name in (*RATIOS, *BOUNDS):
                report[name] = round(median(clip[name] for clip in clips), 3)
            _write(report | {"clips": clips}, given.out)
        report |= {"clips": clips, "growth": {}}
        for name, growing in _growth(bench, given).items():
            report["growth"][name] = list(growing)
            _write(report, given.out)
    return report


def _write(report: Mapping[str, Any], path: Path) -> None:
    path.write_text(json.dumps(report, indent=2) + "\n")


def _machine(threads: int | None) -> dict[str, Any]:
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": available_cores(),
        "threads": threads or torch.get_num_threads(),
        "torch": torch.__version__,
        "capability": torch.backends.cpu.get_cpu_capability(),
    }


def _paths(given: Given) -> list[Path]:
    if given.data is not None:
        paths = sorted(path for path in given.data.glob("*") if path.suffix.lower() in SUFFIXES)
        if not paths:
            raise BenchmarkError(f"there is no video in {given.data}")
    else:
        paths = [
            make_scene(given.scenes / f"{height}p-2.mp4", width_px=width, height_px=height, seconds=10, faces=2)
            for width, height in SIZES[:3]
        ]
    if given.quick:
        # The largest file and the smallest, so that it ends in time.
        return sorted({max(paths, key=_size), min(paths, key=_size)})
    return paths


def _growth(bench: Bench, given: Given) -> dict[str, Iterator[dict[str, Any]]]:
    quick = given.quick

    def rows(values: Any, make: Callable[[Any], dict[str, int]]) -> Iterator[dict[str, Any]]:
        for value in tqdm(values, desc="growth"):
            wanted = make(value)
            name = "-".join(str(number) for number in wanted.values())
            path = make_scene(given.scenes / f"{name}.mp4", **wanted)
            measured = bench.measure(path, PIPELINES, rounds=given.rounds or 1)
            yield {**wanted, "contenders": _json(measured)}

    small = {"width_px": 640, "height_px": 360}
    return {
        "duration": rows(
            DURATIONS_S[:2] if quick else DURATIONS_S, lambda seconds: {**small, "seconds": seconds, "faces": 1}
        ),
        "resolution": rows(
            SIZES[:3:2] if quick else SIZES,
            lambda size: {"width_px": size[0], "height_px": size[1], "seconds": SCENE_S, "faces": 1},
        ),
        "faces": rows(
            FACES[::4] if quick else FACES,
            lambda faces: {"width_px": 1280, "height_px": 720, "seconds": SCENE_S, "faces": faces},
        ),
    }


def _ratios(rows: Mapping[str, Measurement]) -> dict[str, float]:
    ours = rows["ours"].seconds
    theirs, mine = (rows[name].seconds for name in DETECTIONS)
    straightforward, floor, least = (rows[name].seconds for name in ("straightforward", "floor", INDISPENSABLE))
    return {
        "ratio_vs_straightforward": round(straightforward / ours, 3),
        "ratio_vs_floor": round(ours / floor, 3),
        "detection_ratio": round(theirs / mine, 3),
        "straightforward_vs_indispensable": round(straightforward / least, 3),
        "indispensable_vs_floor": round(least / floor, 3),
    }


def _json(rows: Mapping[str, Measurement]) -> list[dict[str, Any]]:
    return [row.to_json() for row in rows.values()]


def _size(path: Path) -> int:
    return path.stat().st_size
