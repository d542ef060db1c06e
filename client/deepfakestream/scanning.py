"""``deepfakestream scan``: many files at a time, through a service or in this process."""

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from deepfakestream.client import Client
from deepfakestream.errors import DeepfakeStreamError, MissingPartError
from deepfakestream.results import Job
from deepfakestream.tables import print_job, problem_document

AT_A_TIME = 4
"""Files in flight: enough to keep workers busy while another one uploads."""
POLL_S = 0.3
LOCAL_GROUP = "deepfakestream.local"


@dataclass(frozen=True, slots=True)
class Options:
    """Options of every job of one command."""

    model: str | None = None
    sample_fps: float | None = None
    segment_seconds: float | None = None
    webhook_url: str | None = None
    timeout_s: float | None = None
    wait: bool = True


@dataclass(frozen=True, slots=True)
class Scanned:
    """How it went with one source."""

    source: str
    job: Job | None
    error: Exception | None


def expand(sources: tuple[str, ...]) -> Iterator[str]:
    """Files as given, folders as the files inside (hidden ones left out), URLs as they are."""
    for source in sources:
        path = Path(source)
        if is_url(source) or not path.is_dir():
            yield source
            continue
        for inside in sorted(path.rglob("*")):
            hidden = any(part.startswith(".") for part in inside.relative_to(path).parts)
            if inside.is_file() and not hidden:
                yield str(inside)


def is_url(source: str) -> bool:
    """Whether *source* is for the service to fetch."""
    return source.startswith(("http://", "https://"))


class Scan:
    """
    One command's worth of scanning.

    Args:
        console: For people; progress and tables go here.
        as_json: Print one JSON object a source to standard output instead of tables.
    """

    def __init__(self, options: Options, console: Console, *, as_json: bool) -> None:
        self._options = options
        self._console = console
        self._as_json = as_json
        self._stopping = threading.Event()

    def through(self, client: Client, sources: list[str]) -> list[Scanned]:
        """Scan by a service; results are printed in the order in which they come, and returned in that of *sources*."""

        def one(source: str, progress: Progress, task: TaskID) -> Scanned:
            try:
                return Scanned(source, self._submit_and_wait(client, source, progress, task), None)
            except (DeepfakeStreamError, OSError) as error:
                return Scanned(source, None, error)

        with self._progress() as progress, ThreadPoolExecutor(AT_A_TIME) as pool:
            tasks = {source: progress.add_task(_label(source), total=1.0, step="waits") for source in sources}
            futures = [pool.submit(one, source, progress, tasks[source]) for source in sources]
            try:
                for future in as_completed(futures):
                    result = future.result()
                    progress.remove_task(tasks[result.source])
                    self._show(result)
            except KeyboardInterrupt:
                self._stopping.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return [future.result() for future in futures]

    def locally(self, sources: list[str]) -> list[Scanned]:
        """Scan in this process, without any service."""
        scan_file = _local_scanner()
        results = []
        with self._progress() as progress:
            for source in sources:
                task = progress.add_task(_label(source), total=1.0, step="loads")
                result = self._scan_locally(scan_file, source, progress, task)
                progress.remove_task(task)
                self._show(result)
                results.append(result)
        return results

    def _scan_locally(
        self, scan_file: Callable[..., dict[str, Any]], source: str, progress: Progress, task: TaskID
    ) -> Scanned:
        def report(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total, step=f"segment {done} of {total}")

        if is_url(source):
            return Scanned(source, None, MissingPartError("--local scans files; a service fetches URLs"))
        try:
            document = scan_file(
                Path(source),
                model=self._options.model,
                sample_fps=self._options.sample_fps,
                segment_seconds=self._options.segment_seconds,
                on_progress=report,
            )
        except Exception as error:
            # Errors of the pipeline carry a code; anything else is a defect that deserves its traceback.
            if not hasattr(error, "code") and not isinstance(error, OSError):
                raise
            return Scanned(source, None, error)
        return Scanned(source, Job.from_json(document), None)

    def _submit_and_wait(self, client: Client, source: str, progress: Progress, task: TaskID) -> Job:
        options = self._options

        def on_upload(sent: int, total: int) -> None:
            self._check_stopping()
            progress.update(task, completed=sent, total=max(1, total), step="uploads")

        def on_progress(job: Job) -> None:
            self._check_stopping()
            step = f"{job.segments_done} of {job.segments_total} segments" if job.segments_total else job.status
            progress.update(task, completed=job.fraction, total=1.0, step=step)

        job = client.submit(
            **({"url": source} if is_url(source) else {"file": source}),  # type: ignore[arg-type]
            model=options.model,
            sample_fps=options.sample_fps,
            segment_seconds=options.segment_seconds,
            webhook_url=options.webhook_url,
            on_upload=on_upload,
        )
        if not options.wait:
            return job
        return client.wait(job.id, timeout_s=options.timeout_s, on_progress=on_progress, poll_s=POLL_S)

    def _check_stopping(self) -> None:
        """Leave a thread that uploads or waits, soon after Ctrl-C."""
        if self._stopping.is_set():
            raise InterruptedError("interrupted")

    def _show(self, result: Scanned) -> None:
        if self._as_json:
            document = (
                {"file": result.source, "job": result.job.raw}
                if result.job is not None
                else {"file": result.source, "error": problem_document(result.error or RuntimeError())}
            )
            # One write, so that lines never mix.
            print(json.dumps(document), flush=True)  # noqa: T201 - this is the command's output
        elif result.job is not None:
            name = result.source if self._options.wait else f"{result.source}: job {result.job.id}"
            print_job(self._console, name, result.job)
        else:
            problem = problem_document(result.error or RuntimeError())
            self._console.print(f"[bold]{_escaped(result.source)}[/]: {_escaped(problem['detail'])}")

    def _progress(self) -> Progress:
        return Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[step]}"),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
        )


def _label(source: str) -> str:
    return _escaped(source if len(source) <= 40 else f"…{source[-39:]}")


def _escaped(text: str) -> str:
    # rich reads square brackets as markup, and file names may have them.
    return text.replace("[", r"\[")


def _local_scanner() -> Callable[..., dict[str, Any]]:
    for found in entry_points(group=LOCAL_GROUP, name="scan"):
        scanner: Callable[..., dict[str, Any]] = found.load()
        return scanner
    raise MissingPartError("--local needs the pipeline: install deepfakestream-server[worker] beside this package")
