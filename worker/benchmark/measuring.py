"""Measuring contenders in turn, each in a warm process of its own, so that none is charged another's memory."""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from statistics import median
from typing import Any, Final

import torch

from worker.benchmark.contenders import CONTENDERS, Scan
from worker.benchmark.errors import BenchmarkError

STATUS: Final = Path("/proc/self/status")
JOIN_S: Final = 10.0
RESET_PEAK: Final = Path("/proc/self/clear_refs")


@dataclass(frozen=True, slots=True)
class Measurement:
    """One contender on one clip."""

    contender: str
    seconds: float
    """Median of the rounds."""
    rounds_s: tuple[float, ...]
    frames: int
    faces: int
    peak_mb: float | None
    """
    Largest resident memory of its process in the last round; None where it is not told. OpenCV decodes in that process,
    ffmpeg in one of its own, which is left out.
    """
    stages_s: dict[str, float]
    """Of the round in the middle."""

    def to_json(self) -> dict[str, Any]:
        """Plain values, rounded, with what follows from them."""
        values = asdict(self)
        values["rounds_s"] = [round(value, 4) for value in self.rounds_s]
        values["stages_s"] = {name: round(value, 4) for name, value in self.stages_s.items()}
        values["seconds"] = round(self.seconds, 4)
        values["frames_per_s"] = round(self.frames / self.seconds, 2)
        values["faces_per_s"] = round(self.faces / self.seconds, 2)
        return values


class Bench:
    """
    Warm processes, one a contender, until it is closed.

    Args:
        models_dir: Folder of checkpoints.
        model: The one that all of them use.
        threads: That PyTorch may use in each; all if not given.
    """

    def __init__(self, models_dir: Path, model: str, *, threads: int | None = None) -> None:
        self._given = (models_dir, model, threads)
        self._lines: dict[str, Connection] = {}
        self._processes: list[SpawnProcess] = []

    def measure(self, path: Path, contenders: Sequence[str], *, rounds: int) -> dict[str, Measurement]:
        """
        Let *contenders* scan *path* in turn, *rounds* times, after one scan each that is not counted.

        The floor scores as many faces as ours found, so it comes after ours.

        Raises:
            BenchmarkError: One of them cannot scan it.
        """
        faces = 0
        taken: dict[str, list[tuple[float, Scan, float | None]]] = {name: [] for name in contenders}
        for number in range(rounds + 1):
            for name in contenders:
                seconds, scan, peak_mb = self._ask(name, path, faces)
                if name == "ours":
                    faces = scan.faces
                if number:
                    taken[name].append((seconds, scan, peak_mb))
        return {name: _summed_up(name, rows) for name, rows in taken.items()}

    def close(self) -> None:
        """Ends the processes."""
        for line in self._lines.values():
            with suppress(OSError):  # One that has failed is gone already.
                line.send(None)
        for process in self._processes:
            process.join(JOIN_S)

    def _ask(self, name: str, path: Path, faces: int) -> tuple[float, Scan, float | None]:
        if name not in self._lines:
            context = get_context("spawn")
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(there, name, *self._given), daemon=True)
            process.start()
            there.close()
            self._processes.append(process)
            self._lines[name] = here
        line = self._lines[name]
        try:
            line.send((path, faces))
            answer: tuple[float, Scan, float | None] | str = line.recv()
        except (EOFError, OSError) as error:
            raise BenchmarkError(f"{name} ended while it scanned {path}") from error
        if isinstance(answer, str):
            raise BenchmarkError(f"{name} could not scan {path}: {answer}")
        return answer


def _summed_up(name: str, rows: Sequence[tuple[float, Scan, float | None]]) -> Measurement:
    middle = sorted(rows, key=lambda row: row[0])[len(rows) // 2]
    return Measurement(
        contender=name,
        seconds=median(seconds for seconds, _, _ in rows),
        rounds_s=tuple(seconds for seconds, _, _ in rows),
        frames=middle[1].frames,
        faces=middle[1].faces,
        peak_mb=rows[-1][2],
        stages_s=middle[1].stages_s,
    )


def _serve(line: Connection, name: str, models_dir: Path, model: str, threads: int | None) -> None:
    """What a contender's process does: scan what it is told until it is told to end."""
    if threads is not None:
        torch.set_num_threads(threads)
    contender = CONTENDERS[name](models_dir, model)
    while (order := line.recv()) is not None:
        path, faces = order
        _forget_peak()
        began = time.perf_counter()
        try:
            scan = contender(path, faces)
        except Exception as error:  # noqa: BLE001 - whatever it was, the other process is to say it
            line.send(repr(error))
            continue
        seconds = time.perf_counter() - began
        line.send((scan.seconds or seconds, scan, _peak_mb()))


def _forget_peak() -> None:
    try:
        RESET_PEAK.write_text("5")
    except OSError:
        return


def _peak_mb() -> float | None:
    try:
        lines = STATUS.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), None)
