"""Measurement of contenders in turn, each in its own warm process, so that memory is measured separately."""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

import torch

from worker.benchmark.contenders import CONTENDERS, Scan
from worker.benchmark.devices import read_peak_memory_mb, reset_peak_memory
from worker.benchmark.errors import BenchmarkError
from worker.benchmark.run_setup import Setup
from worker.threads import bound_threads

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
    Peak resident memory of its process in the last round; None on systems that do not report it. OpenCV decodes in that
    process, but ffmpeg in a child process, which does not count.
    """
    stages_s: dict[str, float]
    """Times of the stages in the median round."""
    gpu_peak_mb: float | None = None
    """Peak of its memory on the GPU in the last round; None on the CPU."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values, rounded, with rates."""
        values = asdict(self)
        values["rounds_s"] = [round(value, 4) for value in self.rounds_s]
        values["stages_s"] = {name: round(value, 4) for name, value in self.stages_s.items()}
        values["seconds"] = round(self.seconds, 4)
        values["frames_per_s"] = round(self.frames / self.seconds, 2)
        values["faces_per_s"] = round(self.faces / self.seconds, 2)
        return values


class _Answer(NamedTuple):
    """What the process of a contender reports after one scan."""

    seconds: float
    scan: Scan
    peak_mb: float | None
    gpu_peak_mb: float | None


class Bench:
    """
    Warm processes, one per contender, until it is closed.

    Args:
        setup: What all contenders are given.
    """

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._pipes: dict[str, Connection] = {}
        self._processes: list[SpawnProcess] = []

    def measure(self, path: Path, contenders: Sequence[str], *, rounds: int) -> dict[str, Measurement]:
        """
        Let *contenders* scan *path* in turn, *rounds* times, after one warm-up scan each.

        The floor scores as many faces as ``ours``, so it must come after it.

        Raises:
            BenchmarkError: A contender cannot scan *path*.
        """
        faces = 0
        taken: dict[str, list[_Answer]] = {name: [] for name in contenders}
        for number in range(rounds + 1):
            for name in contenders:
                answer = self._ask(name, path, faces)
                if name == "ours":
                    faces = answer.scan.faces
                if number:
                    taken[name].append(answer)
        return {name: _summarise(name, rows) for name, rows in taken.items()}

    def close(self) -> None:
        """End the processes."""
        for pipe in self._pipes.values():
            with suppress(OSError):  # A process that failed has ended already.
                pipe.send(None)
        for process in self._processes:
            process.join(JOIN_S)
            process.kill()  # It took longer; a process that has ended is not affected.
            process.join()

    def _ask(self, name: str, path: Path, faces: int) -> _Answer:
        if name not in self._pipes:
            context = get_context("spawn")
            here, there = context.Pipe()
            process = context.Process(target=_run_contender, args=(there, name, self._setup), daemon=True)
            process.start()
            there.close()
            self._processes.append(process)
            self._pipes[name] = here
        pipe = self._pipes[name]
        try:
            pipe.send((path, faces))
            answer: _Answer | str = pipe.recv()
        except (EOFError, OSError) as error:
            raise BenchmarkError(f"{name} ended while it scanned {path}") from error
        if isinstance(answer, str):
            raise BenchmarkError(f"{name} could not scan {path}: {answer}")
        return answer


def _summarise(name: str, rows: Sequence[_Answer]) -> Measurement:
    middle = sorted(rows, key=lambda row: row.seconds)[len(rows) // 2].scan
    return Measurement(
        contender=name,
        seconds=median(row.seconds for row in rows),
        rounds_s=tuple(row.seconds for row in rows),
        frames=middle.frames,
        faces=middle.faces,
        peak_mb=rows[-1].peak_mb,
        stages_s=middle.stages_s,
        gpu_peak_mb=rows[-1].gpu_peak_mb,
    )


def _run_contender(pipe: Connection, name: str, setup: Setup) -> None:
    """Scan the requested files in a contender's process, until None is received."""
    bound_threads(setup.threads)
    device = torch.device(setup.device)
    contender = CONTENDERS[name](setup)
    while (request := pipe.recv()) is not None:
        path, faces = request
        _reset_peak_memory()
        reset_peak_memory(device)
        began = time.perf_counter()
        try:
            scan = contender(path, faces)
        except Exception as error:  # noqa: BLE001 - the parent process reports every error
            pipe.send(repr(error))
            continue
        seconds = time.perf_counter() - began
        pipe.send(_Answer(scan.seconds or seconds, scan, _read_peak_mb(), read_peak_memory_mb(device)))


def _reset_peak_memory() -> None:
    try:
        RESET_PEAK.write_text("5")
    except OSError:
        return


def _read_peak_mb() -> float | None:
    try:
        lines = STATUS.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), None)
