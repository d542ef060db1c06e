"""The command ``scan``: many files at a time, with a service or in this process."""

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
from deepfakestream.local import load_local_function, scan_local_file
from deepfakestream.results import Job
from deepfakestream.signatures import check_media, is_media
from deepfakestream.sources import check_scheme, false_if_unreadable, is_url
from deepfakestream.tables import print_job, problem_document
from deepfakestream.terminal import pluralize, printable, safe_text, say

MAX_CONCURRENT_FILES = 4
"""Files that are uploaded or waited for at the same time, so that workers are busy while another file uploads."""
POLL_S = 0.3
MAX_EXAMPLES = 3
"""How many names of skipped files are printed."""


@dataclass(frozen=True, slots=True)
class Options:
    """Options of all jobs of one command."""

    model: str | None = None
    sample_fps: float | None = None
    segment_seconds: float | None = None
    webhook_url: str | None = None
    explain: bool = False
    timeout_s: float | None = None
    wait: bool = True


@dataclass(frozen=True, slots=True)
class ScanResult:
    """The outcome for one source: its job, or the error that prevented the scan."""

    source: str
    job: Job | None
    error: Exception | None


@dataclass(slots=True)
class Selection:
    """The files and URLs that a command scans, and the files of its folders that it skips."""

    sources: list[str] = field(default_factory=list)
    """Files and URLs without duplicates, in the order of the arguments, and by name within a folder."""
    not_media: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)

    def describe_skipped(self) -> str:
        """Say how many files were skipped, with examples; empty if none was."""
        parts = [
            _describe_paths(self.not_media, "unrecognised"),
            _describe_paths(self.hidden, "hidden"),
        ]
        said = ", and ".join(part for part in parts if part)
        return f"left out {said}; --all sends every file" if said else ""


def _describe_paths(paths: list[str], kind: str) -> str:
    if not paths:
        return ""
    examples = ", ".join(Path(path).name for path in paths[:MAX_EXAMPLES])
    more = ", …" if len(paths) > MAX_EXAMPLES else ""
    return f"{pluralize(len(paths), f'{kind} file')} ({examples}{more})"


def select_sources(sources: Iterable[str], *, all_files: bool = False) -> Selection:
    """
    Select what to scan: files and URLs as given, and the images and videos in folders.

    Args:
        sources: Files, folders and URLs.
        all_files: Select every file of a folder, including hidden ones and those that are not media.
    """
    found = Selection()
    for source in sources:
        path = Path(source)
        if is_url(source) or not false_if_unreadable(path.is_dir):
            found.sources.append(source)
            continue
        for inside in sorted(path.rglob("*")):
            if not false_if_unreadable(inside.is_file):
                continue
            is_hidden = any(part.startswith(".") for part in inside.relative_to(path).parts)
            if all_files or not (is_hidden or not is_media(inside)):
                found.sources.append(str(inside))
            else:
                (found.hidden if is_hidden else found.not_media).append(str(inside))
    found.sources = list(dict.fromkeys(found.sources))
    return found


class Scan:
    """
    The scan of all sources of one command.

    Args:
        options: Options of all jobs.
        console: Console for progress and tables.
        as_json: Print one JSON object for each source to standard output, instead of tables.
        check_first: Refuse files that are certainly neither images nor videos before they are sent.
    """

    def __init__(self, options: Options, console: Console, *, as_json: bool, check_first: bool = True) -> None:
        self._options = options
        self._console = console
        self._as_json = as_json
        self._check_first = check_first
        self._stopping = threading.Event()

    def scan_with_service(self, client: Client, sources: list[str]) -> list[ScanResult]:
        """Scan *sources* with a service; results are printed and returned in their order."""

        def scan_source(source: str, progress: Progress, task: TaskID) -> ScanResult:
            try:
                return ScanResult(source, self._submit_and_wait(client, source, progress, task), None)
            except (DeepfakeStreamError, OSError) as error:
                return ScanResult(source, None, error)
            finally:
                progress.remove_task(task)

        with self._progress() as progress, ThreadPoolExecutor(MAX_CONCURRENT_FILES) as pool:
            tasks = {source: progress.add_task(_label(source), total=1.0, step="waiting") for source in sources}
            futures = [pool.submit(scan_source, source, progress, tasks[source]) for source in sources]
            try:
                for future in futures:
                    # With --no-wait the id is printed beside the name.
                    self._show(future.result(), has_id=self._options.wait)
            except KeyboardInterrupt:
                self._stopping.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return [future.result() for future in futures]

    def scan_locally(self, sources: list[str]) -> list[ScanResult]:
        """Scan *sources* in this process, without a service; needs an installed server."""
        scan_file = load_local_function("scan")
        results = []
        with self._progress() as progress:
            for source in sources:
                task = progress.add_task(_label(source), total=1.0, step="loading")
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
            return ScanResult(
                source, None, MissingPartError("--local scans files only: leave it out to let a service fetch a URL")
            )
        try:
            check_scheme(source)
            document = scan_local_file(
                scan_file,
                Path(source),
                model=self._options.model,
                sample_fps=self._options.sample_fps,
                segment_seconds=self._options.segment_seconds,
                on_progress=report,
            )
        except DeepfakeStreamError as error:
            return ScanResult(source, None, error)
        return ScanResult(source, Job.from_json(document), None)

    def _submit_and_wait(self, client: Client, source: str, progress: Progress, task: TaskID) -> Job:
        options = self._options

        def on_upload(sent: int, total: int) -> None:
            self._check_stopping()
            progress.update(task, completed=sent, total=max(1, total), step="uploading")

        def on_progress(job: Job) -> None:
            self._check_stopping()
            step = (
                f"{job.segments_done} of {pluralize(job.segments_total, 'segment')}"
                if job.segments_total
                else printable(job.status)
            )
            progress.update(task, completed=job.fraction, total=1.0, step=step)

        check_scheme(source)
        if self._check_first and not is_url(source):
            check_media(Path(source))
        job = client.submit(
            source,
            model=options.model,
            sample_fps=options.sample_fps,
            segment_seconds=options.segment_seconds,
            webhook_url=options.webhook_url,
            explain=options.explain or None,
            metadata=None if is_url(source) else {"filename": _portable_name(Path(source))},
            on_upload=on_upload,
        )
        if not options.wait:
            return job
        return client.wait(job.id, timeout_s=options.timeout_s, on_progress=on_progress, poll_s=POLL_S)

    def _check_stopping(self) -> None:
        """End a thread that uploads or waits, soon after Ctrl-C."""
        if self._stopping.is_set():
            raise InterruptedError("interrupted")

    def _show(self, result: ScanResult, *, has_id: bool = False) -> None:
        if self._as_json:
            document = (
                {"file": result.source, "job": result.job.raw}
                if result.job is not None
                else {"file": result.source, "error": problem_document(result.error or RuntimeError())}
            )
            say(json.dumps(document))
        elif result.job is not None:
            name = result.source if self._options.wait else f"{result.source}: job {result.job.id}"
            print_job(self._console, name, result.job, has_id=has_id)
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
            # Otherwise JSON for standard output would be written to the console of the progress.
            redirect_stdout=False,
        )


def _portable_name(file: Path) -> str:
    """Return the file's name, by which the job's report names it; bytes that are no text are replaced."""
    return file.name.encode("utf-8", "replace").decode()


def _label(source: str) -> str:
    return printable(source if len(source) <= 40 else f"…{source[-39:]}")
