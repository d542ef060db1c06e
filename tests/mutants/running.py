"""Processing of files as in the service, in child processes whose crashes and hangs are detected."""

import resource
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from shared.config import Limits
from shared.containers import check_limits, inspect_header
from shared.errors import DeepfakeStreamError
from worker.media.frames import read_frames
from worker.media.probe import probe
from worker.media.segments import plan_segments
from worker.pipeline.detector import Detector

PROBE_TIMEOUT_S = 20.0
DECODE_TIMEOUT_S = 20.0
HANG_S = 120.0
"""More than the sum of all timeouts for one file."""
MAX_SEGMENTS = 3
"""Most segments of one file that are decoded: a mutant may claim hours."""
DETECTED_EACH = 10
"""The frames of one in this many files are also scored."""


@dataclass
class Outcome:
    """The outcome of all files."""

    files: int = 0
    answered: int = 0
    """Files that led to a result or an error code of the project."""
    worker_deaths: int = 0
    hangs: int = 0
    memory_mb: int = 0
    """Peak resident memory of a worker process."""
    slowest_s: float = 0.0
    by_code: Counter[str] = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)
    """Files that crashed or hung their process, or led to an unexpected error."""


def process_file(path: Path, limits: Limits, detector: Detector | None) -> str:
    """Process a file as API and worker do; return ``result`` or the error code, with ``api:`` before one of the API."""
    try:
        with path.open("rb") as stream:
            check_limits(inspect_header(stream, path.stat().st_size), limits.for_media())
    except DeepfakeStreamError as error:
        return f"api:{error.code}"
    try:
        facts = probe(path, limits.for_media(), timeout_s=PROBE_TIMEOUT_S)
        plan = plan_segments(facts.duration_s, 5.0, first_s=facts.first_s, pictures=facts.frame_count)
        for part in plan[:MAX_SEGMENTS]:
            frames = read_frames(
                path,
                facts,
                start_s=part.start_s,
                end_s=part.end_s,
                sample_fps=2.0,
                timeout_s=DECODE_TIMEOUT_S,
            )
            if detector is None:
                for frame in frames:
                    assert frame.pixels.shape[2] == 3
            else:
                detector.score_segment(frames, lambda: False)
    except DeepfakeStreamError as error:
        return str(error.code)
    return "result"


def process_all(files: Iterable[tuple[str, bytes]], folder: Path, processes: int, detector: bool = True) -> Outcome:
    """Distribute *files* over *processes* processes; those that crash or hang are replaced."""
    outcome = Outcome()
    workers = [_Worker(detector) for _ in range(processes)]
    idle, busy = list(workers), dict[Connection, _Worker]()
    pending = iter(files)
    more = True
    while more or busy:
        while idle and more:
            item = next(pending, None)
            if item is None:
                more = False
                break
            worker = idle.pop()
            name, data = item
            path = folder / name
            path.write_bytes(data)
            worker.begin(path, detect=outcome.files % DETECTED_EACH == 0)
            outcome.files += 1
            busy[worker.line] = worker
        ready = wait(list(busy), timeout=1.0)
        for line in ready:
            worker = busy.pop(line)  # type: ignore[call-overload]
            idle.append(_settle(worker, outcome))
        for line, worker in list(busy.items()):
            if time.monotonic() - worker.began > HANG_S:
                outcome.hangs += 1
                outcome.bad.append(f"hang: {worker.path.name}")
                busy.pop(line)
                idle.append(worker.replace())
    for worker in workers + idle:
        worker.end()
    return outcome


def _settle(worker: "_Worker", outcome: Outcome) -> "_Worker":
    outcome.slowest_s = max(outcome.slowest_s, round(time.monotonic() - worker.began, 1))
    try:
        code, memory_mb = worker.line.recv()
    except (EOFError, OSError):
        outcome.worker_deaths += 1
        outcome.bad.append(f"death: {worker.path.name}")
        return worker.replace()
    outcome.by_code[code] += 1
    if code.startswith("unexpected"):
        outcome.bad.append(f"{code}: {worker.path.name}")
    else:
        outcome.answered += 1
        worker.path.unlink()
    outcome.memory_mb = max(outcome.memory_mb, memory_mb)
    return worker


class _Worker:
    """A child process that processes one file at a time."""

    def __init__(self, detector: bool) -> None:
        self._detector = detector
        context = get_context("spawn")
        self.line, there = context.Pipe()
        self._process: SpawnProcess = context.Process(target=_serve, args=(there, detector), daemon=True)
        self._process.start()
        there.close()
        self.path = Path()
        self.began = 0.0
        self._is_ready = False

    def begin(self, path: Path, *, detect: bool) -> None:
        """Start to process *path*; wait first until the networks are loaded, which may take as long as a file may."""
        if not self._is_ready:
            self._is_ready = bool(self.line.recv())
        self.path, self.began = path, time.monotonic()
        self.line.send((path, detect))

    def replace(self) -> "_Worker":
        """Kill this process and start another."""
        self._process.kill()
        self._process.join()
        return _Worker(self._detector)

    def end(self) -> None:
        """End the process."""
        self.line.close()
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()


def _serve(line: Connection, with_detector: bool) -> None:
    from shared.manifests import DEFAULT_CHECKPOINT, PACKAGED_MODELS_DIR

    limits = Limits()
    detector = Detector.load(PACKAGED_MODELS_DIR, DEFAULT_CHECKPOINT, "cpu") if with_detector else None
    line.send(True)
    while True:
        try:
            path, detect = line.recv()
        except EOFError:
            return
        try:
            code: Any = process_file(path, limits, detector if detect else None)
        except Exception as error:  # noqa: BLE001 - such bugs are what the test looks for
            code = f"unexpected {type(error).__name__}"
        line.send((code, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024))
