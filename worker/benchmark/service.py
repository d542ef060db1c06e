"""
``python -m worker.benchmark.service``: measure the overhead of the service on a running stack.

Three figures: small submissions per second, the time from a submission to the start of its first segment, and the
overhead of queue, lease and database per segment. The jobs are deleted afterwards.
"""

import http.client
import json
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any, Final
from urllib.parse import urlsplit

import click

from shared.commands import SETTINGS, CommandError, needed_packages, run
from shared.config import Limits
from shared.manifests import DEFAULT_CHECKPOINT, PACKAGED_MODELS_DIR
from worker.benchmark.errors import BenchmarkError
from worker.benchmark.options import EXTRAS, scenes_option

PROGRAM: Final = "python -m worker.benchmark.service"
TIMEOUT_S: Final = 300.0
SEGMENT_S: Final = 1.0
CLIP_S: Final = 60
PROCESSES: Final = 2
"""Number of processes that submit in parallel, each with its own connections."""
PAUSE_S: Final = 0.5
"""Pause before each submission whose start is measured, so that the stack is idle."""


class ConcurrentScoringError(BenchmarkError):
    """The overhead of a segment cannot be measured, because several segments were scored at the same time."""


class BusyError(BenchmarkError):
    """
    The service reads as many uploads as it may just now.

    Args:
        retry_after_s: The pause in seconds that it asks for.
    """

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class APIConnection:
    """
    A persistent connection to the API.

    Args:
        url: URL of the API.
        api_key: API key that may submit, read and delete jobs.
    """

    def __init__(self, url: str, api_key: str) -> None:
        parts = urlsplit(url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.netloc, timeout=TIMEOUT_S)
        self._headers = {"Authorization": f"Bearer {api_key}"}
        self.refusals = 0
        """How often the service had too many uploads for a submission, which was then sent again."""

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def request(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Any:
        """
        Send a request; return the response's JSON, or None if it has no body.

        Raises:
            BusyError: Other uploads are in progress.
            BenchmarkError: The response is another error.
        """
        self._connection.request(method, path, body, self._headers | headers)
        response = self._connection.getresponse()
        data = response.read()
        if response.status >= http.client.BAD_REQUEST:
            problem = f"{method} {path}: {response.status} {data[:200].decode(errors='replace')}"
            pause_s = response.headers.get("Retry-After", "")
            if b'"too_many_uploads"' in data and pause_s.isdecimal():
                raise BusyError(problem, float(pause_s))
            raise BenchmarkError(problem)
        return json.loads(data) if data else None

    def submit(self, data: bytes, query: str = "") -> str:
        """Submit a file's content, again if it has too many uploads; return the job's id."""
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            try:
                job = self.request("POST", f"/v1/jobs{query}", data, **{"Content-Type": "application/octet-stream"})
            except BusyError as error:
                if time.monotonic() + error.retry_after_s > deadline:
                    raise
                self.refusals += 1
                time.sleep(error.retry_after_s)
            else:
                return str(job["id"])

    def wait_until_finished(self, job_id: str) -> dict[str, Any]:
        """Wait until the job has succeeded, and return it; raise BenchmarkError if it failed or timed out."""
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            job: dict[str, Any] = self.request("GET", f"/v1/jobs/{job_id}", Prefer="wait=10")
            if job["finished_at"] is not None:
                if job["status"] != "succeeded":
                    raise BenchmarkError(f"job {job_id} has {job['status']}: {job['error']}")
                return job
        raise BenchmarkError(f"job {job_id} did not end in {TIMEOUT_S:g} s")

    def segments(self, job_id: str) -> Iterator[dict[str, Any]]:
        """Yield all segments of a job."""
        cursor = ""
        while True:
            page = self.request("GET", f"/v1/jobs/{job_id}/segments?limit=100{cursor}")
            yield from page["items"]
            if page["next_cursor"] is None:
                return
            cursor = f"&cursor={page['next_cursor']}"

    @contextmanager
    def job(self, data: bytes, query: str = "") -> Iterator[str]:
        """Submit a job that is deleted when the context ends."""
        job_id = self.submit(data, query)
        try:
            yield job_id
        finally:
            # The next request opens a new connection, in case this one is in the middle of a response.
            self._connection.close()
            self.request("DELETE", f"/v1/jobs/{job_id}")


_barrier: Any = None
"""Barrier at which the submitting processes wait for each other."""


@dataclass(frozen=True, slots=True)
class SubmitterTask:
    """The task of one submitting process."""

    url: str
    api_key: str
    first: int
    count: int
    connections: int


def make_picture(number: int) -> bytes:
    """Make a small JPEG without a face that differs from those of other numbers."""
    import numpy as np
    from PIL import Image

    file = BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(pixels).resize((64, 64)).save(file, "JPEG")
    return file.getvalue()


def measure_submissions_per_s(url: str, api_key: str, count: int, connections: int) -> tuple[float, int]:
    """
    Measure how many pictures are accepted per second, *connections* at a time, from two processes.

    Returns:
        That rate, and how often there were too many uploads at first; the pauses that the service then asks for count
        as well.

    Raises:
        BenchmarkError: A submission was not accepted.
    """
    tasks = [
        SubmitterTask(
            url, api_key, first=place * count, count=_share(count, place), connections=_share(connections, place)
        )
        for place in range(PROCESSES)
    ]
    context = get_context("spawn")
    # One task per process: a process that waits at the barrier takes no other task.
    with context.Pool(PROCESSES, _set_barrier, (context.Barrier(PROCESSES),)) as pool:
        results = pool.map(_submit_all, tasks, chunksize=1)
    with closing(APIConnection(url, api_key)) as api:
        for result in results:
            for job_id in result.ids:
                api.request("DELETE", f"/v1/jobs/{job_id}")
    for result in results:
        if result.problem is not None:
            raise BenchmarkError(result.problem)
    took_s = max(result.ended for result in results) - min(result.began for result in results)
    return count / took_s, sum(result.refusals for result in results)


@dataclass(frozen=True, slots=True)
class SubmitterResult:
    """The result of one submitting process; times are of the system clock, which all processes share."""

    began: float
    ended: float
    ids: list[str]
    refusals: int
    problem: str | None


def _share(whole: int, place: int) -> int:
    return whole // PROCESSES + (place < whole % PROCESSES)


def _set_barrier(barrier: Any) -> None:
    global _barrier  # A barrier can only be passed to a pool's initialiser.
    _barrier = barrier


def _submit_all(task: SubmitterTask) -> SubmitterResult:
    files = [make_picture(task.first + place) for place in range(task.count)]
    callers = [APIConnection(task.url, task.api_key) for _ in range(task.connections)]
    ids: list[str] = []
    problems: list[str] = []

    def work(place: int) -> None:
        try:
            ids.extend(callers[place].submit(data) for data in files[place :: task.connections])
        except (BenchmarkError, OSError, http.client.HTTPException) as error:
            problems.append(str(error) or repr(error))
        finally:
            callers[place].close()

    _barrier.wait()
    with ThreadPoolExecutor(task.connections) as threads:
        began = time.time()
        list(threads.map(work, range(task.connections)))
    refusals = sum(caller.refusals for caller in callers)
    return SubmitterResult(began, time.time(), ids, refusals, problems[0] if problems else None)


def measure_start_ms(url: str, api_key: str, data: bytes, rounds: int) -> list[float]:
    """Measure the milliseconds from a submission of *data* to the start of its first segment, on an idle stack."""
    waits = []
    for number in range(rounds + 1):
        time.sleep(PAUSE_S)
        # The API closes connections that are idle for long.
        with closing(APIConnection(url, api_key)) as api, api.job(data) as job_id:
            job = api.wait_until_finished(job_id)
            first = next(api.segments(job_id))
        if number:  # The first round is a warm-up, in which the network is loaded.
            waits.append((_parse_time(first["started_at"]) - _parse_time(job["created_at"])).total_seconds() * 1e3)
    return waits


def measure_overhead_ms(url: str, api_key: str, clip: Path, rounds: int) -> tuple[list[float], int]:
    """
    Measure the service's overhead for each segment of *clip*.

    The same segments are scored in this process and by the service, in turn, and the times from the start of the first
    to the end of the last are compared. The service must have a single scoring process, on this machine's CPU with all
    of its threads.

    Returns:
        Milliseconds per segment in each round, and the number of segments.

    Raises:
        ConcurrentScoringError: Segments were scored at the same time.
    """
    from worker.media.probe import probe
    from worker.media.segments import plan_segments
    from worker.pipeline.detector import Detector
    from worker.pipeline.scanning import scan_segments

    detector = Detector.load(PACKAGED_MODELS_DIR, DEFAULT_CHECKPOINT, "cpu")
    facts = probe(clip, Limits().for_media())
    plan = plan_segments(facts.duration_s, SEGMENT_S, first_s=facts.first_s)
    fps = detector.manifest.sampling.sample_fps
    added = []
    for number in range(rounds + 1):
        began = time.perf_counter()
        for part in plan:
            list(scan_segments(detector, clip, facts, [part], sample_fps=fps, timeout_s=TIMEOUT_S))
        alone_ms = (time.perf_counter() - began) * 1e3
        query = f"?segment_seconds={SEGMENT_S:g}"
        with closing(APIConnection(url, api_key)) as api, api.job(clip.read_bytes(), query) as job_id:
            api.wait_until_finished(job_id)
            segments = list(api.segments(job_id))
        begins, ends = ([_parse_time(segment[name]) for segment in segments] for name in ("started_at", "finished_at"))
        if any(begin < end for begin, end in zip(sorted(begins)[1:], sorted(ends), strict=False)):
            raise ConcurrentScoringError("segments were scored at the same time; set worker.processes_per_device to 1")
        served_ms = (max(ends) - min(begins)).total_seconds() * 1e3
        if number:  # The first round is a warm-up.
            added.append((served_ms - alone_ms) / len(plan))
    return added, len(plan)


def _parse_time(text: str) -> datetime:
    return datetime.fromisoformat(text)


@click.command(context_settings=SETTINGS, help=__doc__)
@click.option("--url", required=True, help="URL of the API.")
@click.option("--api-key-file", type=click.Path(path_type=Path), required=True, help="File with the API key.")
@click.option("--rounds", type=int, default=5, help="Rounds, of which the median counts.")
@click.option("--submissions", type=int, default=1000, help="Number of small pictures to submit.")
@click.option("--connections", type=int, default=16, help="Number of concurrent connections.")
@click.option("--submissions-only", is_flag=True, help="Only measure submissions; works with stopped workers.")
@scenes_option
def measure(
    url: str,
    api_key_file: Path,
    rounds: int,
    submissions: int,
    connections: int,
    submissions_only: bool,
    scenes: Path,
) -> None:
    """Measure the running service and print a line for each measurement."""
    if min(submissions, connections) < PROCESSES or rounds < 1:
        raise click.UsageError(f"at least {PROCESSES} submissions and connections, and one round, are needed")
    api_key = api_key_file.read_text().strip()
    try:
        # The functions import torch when they need it, since that takes seconds and --help does not need it.
        with needed_packages(PROGRAM, "the benchmark", EXTRAS):
            if not submissions_only:
                _measure_jobs(url, api_key, rounds, scenes)
            rate, refusals = measure_submissions_per_s(url, api_key, submissions, connections)
        repeated = f"; {refusals} times refused as too many, and sent again" if refusals else ""
        click.echo(f"submissions accepted: {rate:.0f} a second ({submissions}, {connections} at a time{repeated})")
    except (BenchmarkError, OSError, http.client.HTTPException) as error:
        raise CommandError(f"{PROGRAM}: {error}") from error


def _measure_jobs(url: str, api_key: str, rounds: int, scenes: Path) -> None:
    from worker.benchmark.scenes import make_scene

    clip = make_scene(scenes / "service.mp4", width_px=320, height_px=180, seconds=CLIP_S, faces=1)
    for name, data in (("video", clip.read_bytes()), ("picture", make_picture(0))):
        waits = measure_start_ms(url, api_key, data, rounds)
        span = f"{min(waits):.0f} to {max(waits):.0f}"
        click.echo(f"{name} submitted until its first segment started: {median(waits):.0f} ms ({span})")
    try:
        added, count = measure_overhead_ms(url, api_key, clip, rounds)
    except ConcurrentScoringError as error:
        click.echo(f"added to each segment: not measured, {error}")
    else:
        span = f"{min(added):.1f} to {max(added):.1f}"
        click.echo(f"added to each of {count} segments: {median(added):.1f} ms ({span})")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    return run(measure, arguments, PROGRAM)


if __name__ == "__main__":
    sys.exit(main())
