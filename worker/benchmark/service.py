"""
``python -m worker.benchmark.service``: what the service adds to scoring, measured on a running stack.

Three figures: how many small submissions it accepts a second, how long after a submission its first segment starts,
and what queue, lease and record cost a segment. Jobs that it made are erased afterwards.
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
"""That submit side by side; each has connections of its own."""
PAUSE_S: Final = 0.5
"""Between submissions whose start is waited for, so that the stack is idle."""


class SeveralAtOnceError(BenchmarkError):
    """What a segment costs cannot be told where several are scored at once."""


class Caller:
    """
    One kept connection to the api.

    Args:
        url: Of the api.
        api_key: That may submit, read and delete.
    """

    def __init__(self, url: str, api_key: str) -> None:
        parts = urlsplit(url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.netloc, timeout=TIMEOUT_S)
        self._headers = {"Authorization": f"Bearer {api_key}"}

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Any:
        """
        The answer's JSON; None if it has no body.

        Raises:
            BenchmarkError: It is not a success.
        """
        self._connection.request(method, path, body, self._headers | headers)
        response = self._connection.getresponse()
        data = response.read()
        if response.status >= http.client.BAD_REQUEST:
            raise BenchmarkError(f"{method} {path}: {response.status} {data[:200].decode(errors='replace')}")
        return json.loads(data) if data else None

    def submit(self, data: bytes, query: str = "") -> str:
        """Submit a file's content; the job's id."""
        job = self.ask("POST", f"/v1/jobs{query}", data, **{"Content-Type": "application/octet-stream"})
        return str(job["id"])

    def finished(self, job_id: str) -> dict[str, Any]:
        """The job, once it has ended."""
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            job: dict[str, Any] = self.ask("GET", f"/v1/jobs/{job_id}", Prefer="wait=10")
            if job["finished_at"] is not None:
                if job["status"] != "succeeded":
                    raise BenchmarkError(f"job {job_id} has {job['status']}: {job['error']}")
                return job
        raise BenchmarkError(f"job {job_id} did not end in {TIMEOUT_S:g} s")

    def segments(self, job_id: str) -> Iterator[dict[str, Any]]:
        """All segments of a job."""
        cursor = ""
        while True:
            page = self.ask("GET", f"/v1/jobs/{job_id}/segments?limit=100{cursor}")
            yield from page["items"]
            if page["next_cursor"] is None:
                return
            cursor = f"&cursor={page['next_cursor']}"

    @contextmanager
    def job(self, data: bytes, query: str = "") -> Iterator[str]:
        """A job that is erased when the context ends."""
        job_id = self.submit(data, query)
        try:
            yield job_id
        finally:
            # The next request opens the connection anew, whatever has happened to it.
            self._connection.close()
            self.ask("DELETE", f"/v1/jobs/{job_id}")


_gate: Any = None
"""Where the processes that submit wait for each other."""


@dataclass(frozen=True, slots=True)
class Order:
    """What one process of submitters is to do."""

    url: str
    api_key: str
    first: int
    count: int
    connections: int


def picture(number: int) -> bytes:
    """A small JPEG without a face, unlike those of other numbers."""
    import numpy as np
    from PIL import Image

    file = BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(pixels).resize((64, 64)).save(file, "JPEG")
    return file.getvalue()


def submissions_per_s(url: str, api_key: str, count: int, connections: int) -> float:
    """
    How many pictures are accepted a second, *connections* at a time, from two processes.

    Raises:
        BenchmarkError: One was not accepted.
    """
    orders = [
        Order(url, api_key, first=place * count, count=_share(count, place), connections=_share(connections, place))
        for place in range(PROCESSES)
    ]
    context = get_context("spawn")
    # A task a process: whoever waits at the gate takes no other.
    with context.Pool(PROCESSES, _keep_gate, (context.Barrier(PROCESSES),)) as pool:
        made = pool.map(_submit_all, orders, chunksize=1)
    with closing(Caller(url, api_key)) as caller:
        for spans in made:
            for job_id in spans.ids:
                caller.ask("DELETE", f"/v1/jobs/{job_id}")
    for spans in made:
        if spans.problem is not None:
            raise BenchmarkError(spans.problem)
    return count / (max(spans.ended for spans in made) - min(spans.began for spans in made))


@dataclass(frozen=True, slots=True)
class Submitted:
    """What one process submitted, by the clock that all processes of a machine share."""

    began: float
    ended: float
    ids: list[str]
    problem: str | None


def _share(whole: int, place: int) -> int:
    return whole // PROCESSES + (place < whole % PROCESSES)


def _keep_gate(gate: Any) -> None:
    global _gate  # A pool hands such things over in no other way.
    _gate = gate


def _submit_all(order: Order) -> Submitted:
    files = [picture(order.first + place) for place in range(order.count)]
    callers = [Caller(order.url, order.api_key) for _ in range(order.connections)]
    ids: list[str] = []
    problems: list[str] = []

    def work(place: int) -> None:
        try:
            ids.extend(callers[place].submit(data) for data in files[place :: order.connections])
        except (BenchmarkError, OSError, http.client.HTTPException) as error:
            problems.append(str(error) or repr(error))
        finally:
            callers[place].close()

    _gate.wait()
    with ThreadPoolExecutor(order.connections) as threads:
        began = time.time()
        list(threads.map(work, range(order.connections)))
    return Submitted(began, time.time(), ids, problems[0] if problems else None)


def start_ms(url: str, api_key: str, data: bytes, rounds: int) -> list[float]:
    """Milliseconds from the creation of a job for *data* to the start of its first segment, on an idle stack."""
    waits = []
    for number in range(rounds + 1):
        time.sleep(PAUSE_S)
        # The api ends connections that are idle for long.
        with closing(Caller(url, api_key)) as caller, caller.job(data) as job_id:
            job = caller.finished(job_id)
            first = next(caller.segments(job_id))
        if number:  # The first is not counted: the network was loaded for it.
            waits.append((_moment(first["started_at"]) - _moment(job["created_at"])).total_seconds() * 1e3)
    return waits


def overhead_ms(url: str, api_key: str, clip: Path, rounds: int) -> tuple[list[float], int]:
    """
    What the service adds to each segment of *clip*, in milliseconds, and how many segments there are.

    The same segments are scored here and by the service, in turn; the time from the start of the first to the end of
    the last is compared, which means something where the service has one scoring process on this processor, with all
    of its threads.

    Raises:
        SeveralAtOnceError: Segments were scored at the same time.
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
        with closing(Caller(url, api_key)) as caller, caller.job(clip.read_bytes(), query) as job_id:
            caller.finished(job_id)
            segments = list(caller.segments(job_id))
        begins, ends = ([_moment(segment[name]) for segment in segments] for name in ("started_at", "finished_at"))
        if any(begin < end for begin, end in zip(sorted(begins)[1:], sorted(ends), strict=False)):
            raise SeveralAtOnceError("segments were scored at the same time: give worker.processes_per_device: 1")
        served_ms = (max(ends) - min(begins)).total_seconds() * 1e3
        if number:  # The first of each is not counted: a process warms up.
            added.append((served_ms - alone_ms) / len(plan))
    return added, len(plan)


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


@click.command(context_settings=SETTINGS, help=__doc__)
@click.option("--url", required=True, help="Of the api.")
@click.option("--api-key-file", type=click.Path(path_type=Path), required=True, help="Its only line is the key.")
@click.option("--rounds", type=int, default=5, help="Of which medians are taken.")
@click.option("--submissions", type=int, default=1000, help="How many small pictures are submitted.")
@click.option("--connections", type=int, default=16, help="How many of them at a time.")
@click.option("--submissions-only", is_flag=True, help="For a stack whose workers are stopped.")
@scenes_option
def _measure(
    url: str,
    api_key_file: Path,
    rounds: int,
    submissions: int,
    connections: int,
    submissions_only: bool,
    scenes: Path,
) -> None:
    if min(submissions, connections) < PROCESSES or rounds < 1:
        raise click.UsageError(f"at least {PROCESSES} submissions and connections, and one round, are needed")
    api_key = api_key_file.read_text().strip()
    try:
        # Its functions import what they need, since torch takes seconds, which help needs not.
        with needed_packages(PROGRAM, "the benchmark", EXTRAS):
            if not submissions_only:
                _measure_jobs(url, api_key, rounds, scenes)
            rate = submissions_per_s(url, api_key, submissions, connections)
        click.echo(f"submissions accepted: {rate:.0f} a second ({submissions}, {connections} at a time)")
    except (BenchmarkError, OSError, http.client.HTTPException) as error:
        raise CommandError(f"{PROGRAM}: {error}") from error


def _measure_jobs(url: str, api_key: str, rounds: int, scenes: Path) -> None:
    from worker.benchmark.scenes import make_scene

    clip = make_scene(scenes / "service.mp4", width_px=320, height_px=180, seconds=CLIP_S, faces=1)
    for name, data in (("video", clip.read_bytes()), ("picture", picture(0))):
        waits = start_ms(url, api_key, data, rounds)
        span = f"{min(waits):.0f} to {max(waits):.0f}"
        click.echo(f"{name} submitted until its first segment started: {median(waits):.0f} ms ({span})")
    try:
        added, count = overhead_ms(url, api_key, clip, rounds)
    except SeveralAtOnceError as error:
        click.echo(f"added to each segment: not measured, {error}")
    else:
        span = f"{min(added):.1f} to {max(added):.1f}"
        click.echo(f"added to each of {count} segments: {median(added):.1f} ms ({span})")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; its exit status."""
    return run(_measure, arguments, PROGRAM)


if __name__ == "__main__":
    sys.exit(main())
