"""``deepfakestream scan``: many files at a time, through a service or in this process."""

import json
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from deepfakestream.client import Client
from deepfakestream.errors import DeepfakeStreamError, MissingPartError
from deepfakestream.local import local_entry
from deepfakestream.results import Job
from deepfakestream.signatures import check_media, is_media
from deepfakestream.tables import pluralize, print_job, problem_document
from deepfakestream.terminal import printable, safe_text, say

MAX_CONCURRENT_FILES = 4
"""Files in flight: enough to keep workers busy while another one uploads."""
POLL_S = 0.3
MAX_EXAMPLES = 3
"""Names of left-out files that are printed."""


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
class ScanResult:
    """How it went with one source."""

    source: str
    job: Job | None
    error: Exception | None


@dataclass(slots=True)
class Selection:
    """What a command is to scan, and what it leaves out of the folders that it was given."""

    sources: list[str] = field(default_factory=list)
    """Files and URLs, each once, in the order of the arguments, and of names within a folder."""
    not_media: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)

    def describe_skipped(self) -> str:
        """A sentence that says so; empty if nothing was left out."""
        parts = [
            _describe_paths(self.not_media, "that begins like no image or video", "that begin like no image or video"),
            _describe_paths(self.hidden, "that is hidden", "that are hidden"),
        ]
        said = ", and ".join(part for part in parts if part)
        return f"left out {said}; --all sends every file" if said else ""


def _describe_paths(paths: list[str], one: str, several: str) -> str:
    if not paths:
        return ""
    examples = ", ".join(Path(path).name for path in paths[:MAX_EXAMPLES])
    more = ", …" if len(paths) > MAX_EXAMPLES else ""
    kind = f"file {one}" if len(paths) == 1 else f"files {several}"
    return f"{len(paths)} {kind} ({examples}{more})"


def select_sources(sources: Iterable[str], *, all_files: bool = False) -> Selection:
    """
    Files as given, URLs as they are, and of folders the images and videos inside.

    Args:
        all_files: Take every file of a folder, hidden ones and those that are no media too.
    """
    found = Selection()
    for source in sources:
        path = Path(source)
        if is_url(source) or not _false_if_unreadable(path.is_dir):
            found.sources.append(source)
            continue
        for inside in sorted(path.rglob("*")):
            if not _false_if_unreadable(inside.is_file):
                continue
            is_hidden = any(part.startswith(".") for part in inside.relative_to(path).parts)
            if all_files or not (is_hidden or not is_media(inside)):
                found.sources.append(str(inside))
            else:
                (found.hidden if is_hidden else found.not_media).append(str(inside))
    found.sources = list(dict.fromkeys(found.sources))
    return found


def _false_if_unreadable(check: Callable[[], bool]) -> bool:
    """What *check* says of a path; False where it cannot be asked, which opening the file reports."""
    try:
        return check()
    except OSError:
        return False


def is_url(source: str) -> bool:
    """Whether *source* is for the service to fetch."""
    return source.startswith(("http://", "https://"))


class Scan:
    """
    One command's worth of scanning.

    Args:
        console: For people; progress and tables go here.
        as_json: Print one JSON object a source to standard output instead of tables.
        check_first: Refuse what is surely no medium before it is sent.
    """

    def __init__(self, options: Options, console: Console, *, as_json: bool, check_first: bool = True) -> None:
        self._options = options
        self._console = console
        self._as_json = as_json
        self._check_first = check_first
        self._stopping = threading.Event()

    def scan_with_service(self, client: Client, sources: list[str]) -> list[ScanResult]:
        """Scan by a service; results are printed and returned in the order of *sources*."""

        def one(source: str, progress: Progress, task: TaskID) -> ScanResult:
            try:
                return ScanResult(source, self._submit_and_wait(client, source, progress, task), None)
            except (DeepfakeStreamError, OSError) as error:
                return ScanResult(source, None, error)
            finally:
                progress.remove_task(task)

        with self._progress() as progress, ThreadPoolExecutor(MAX_CONCURRENT_FILES) as pool:
            tasks = {source: progress.add_task(_label(source), total=1.0, step="waits") for source in sources}
            futures = [pool.submit(one, source, progress, tasks[source]) for source in sources]
            try:
                for future in futures:
                    self._show(future.result())
            except KeyboardInterrupt:
                self._stopping.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return [future.result() for future in futures]

    def scan_locally(self, sources: list[str]) -> list[ScanResult]:
        """Scan in this process, without any service."""
        scan_file = local_entry("scan")
        results = []
        with self._progress() as progress:
            for source in sources:
                task = progress.add_task(_label(source), total=1.0, step="loads")
                result = self._scan_file(scan_file, source, progress, task)
                progress.remove_task(task)
                self._show(result)
                results.append(result)
        return results

    def _scan_file(
        self, scan_file: Callable[..., dict[str, Any]], source: str, progress: Progress, task: TaskID
    ) -> ScanResult:
        def report(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total, step=f"segment {done} of {total}")

        if is_url(source):
            return ScanResult(source, None, MissingPartError("--local scans files; a service fetches URLs"))
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
            return ScanResult(source, None, error)
        return ScanResult(source, Job.from_json(document), None)

    def _submit_and_wait(self, client: Client, source: str, progress: Progress, task: TaskID) -> Job:
        options = self._options

        def on_upload(sent: int, total: int) -> None:
            self._check_stopping()
            progress.update(task, completed=sent, total=max(1, total), step="uploads")

        def on_progress(job: Job) -> None:
            self._check_stopping()
            step = (
                f"{job.segments_done} of {pluralize(job.segments_total, 'segment')}"
                if job.segments_total
                else printable(job.status)
            )
            progress.update(task, completed=job.fraction, total=1.0, step=step)

        if self._check_first and not is_url(source):
            check_media(Path(source))
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

    def _show(self, result: ScanResult) -> None:
        if self._as_json:
            document = (
                {"file": result.source, "job": result.job.raw}
                if result.job is not None
                else {"file": result.source, "error": problem_document(result.error or RuntimeError())}
            )
            say(json.dumps(document))
        elif result.job is not None:
            name = result.source if self._options.wait else f"{result.source}: job {result.job.id}"
            print_job(self._console, name, result.job)
        else:
            problem = problem_document(result.error or RuntimeError())
            self._console.print(
                safe_text(result.source, "bold").append(printable(f": {problem['detail']}"), "not bold")
            )

    def _progress(self) -> Progress:
        return Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[step]}", markup=False),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            # Or JSON for a file would go where the progress goes, if that is a terminal.
            redirect_stdout=False,
        )


def _label(source: str) -> str:
    return printable(source if len(source) <= 40 else f"…{source[-39:]}")
