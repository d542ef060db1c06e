"""The command ``scan``: many files at a time, with a service or in this process."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepfakestream.client import Client
from deepfakestream.errors import DeepfakeStreamError, MissingPartError
from deepfakestream.local import load_local_function, scan_local_file
from deepfakestream.outcomes import ScanResult
from deepfakestream.printing import Printer
from deepfakestream.progress import FileProgress, ScanProgress
from deepfakestream.results import Job
from deepfakestream.selection import STANDARD_INPUT, Copies, check_name, copied_pipes
from deepfakestream.signatures import check_media
from deepfakestream.sources import is_url
from deepfakestream.terminal import pluralize

MAX_CONCURRENT_FILES = 4
"""Files that are uploaded or waited for at the same time, so that workers are busy while another file uploads."""
POLL_S = 0.3


@dataclass(frozen=True, slots=True)
class Options:
    """Options of all jobs of one command."""

    model: str | None = None
    sample_fps: float | None = None
    segment_seconds: float | None = None
    webhook_url: str | None = None
    webhook_events: tuple[str, ...] = ()
    explain: bool = False
    timeout_s: float | None = None
    wait: bool = True


class Scan:
    """
    The scan of all sources of one command.

    Args:
        options: Options of all jobs.
        printer: Prints results in the order of the sources, and at the end what they amount to.
        check_first: Refuse files that are certainly neither images nor videos before they are sent.
    """

    def __init__(self, options: Options, printer: Printer, *, check_first: bool = True) -> None:
        self._options = options
        self._printer = printer
        self._check_first = check_first
        self._stopping = threading.Event()
        self._copies: Copies = {}
        self.has_submitted = False
        """Whether a job may have been submitted, which goes on when the command is interrupted."""

    def scan_with_service(self, client: Client, sources: Sequence[str]) -> list[ScanResult]:
        """Scan *sources* with a service; results are printed and returned in their order."""
        began = time.monotonic()
        with copied_pipes(sources, check_first=self._check_first) as self._copies, ScanProgress(len(sources)) as shown:

            def scan_source(source: str) -> ScanResult:
                with shown.file(source) as progress:
                    try:
                        return ScanResult(source, self._submit_and_wait(client, source, progress), None)
                    except (DeepfakeStreamError, OSError) as error:
                        return ScanResult(source, None, error)

            with ThreadPoolExecutor(MAX_CONCURRENT_FILES) as pool:
                futures = [pool.submit(scan_source, source) for source in sources]
                try:
                    for future in futures:
                        result = future.result()
                        with shown.hidden():
                            self._printer.print_result(result)
                except KeyboardInterrupt:
                    self._stopping.set()
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise
        results = [future.result() for future in futures]
        self._printer.print_end(results, time.monotonic() - began)
        return results

    def scan_locally(self, sources: Sequence[str]) -> list[ScanResult]:
        """Scan *sources* in this process, without a service; needs an installed server."""
        scan_file = load_local_function("scan")
        began = time.monotonic()
        results = []
        with copied_pipes(sources, check_first=self._check_first) as self._copies, ScanProgress(len(sources)) as shown:
            for source in sources:
                with shown.file(source) as progress:
                    result = self._scan_file(scan_file, source, progress)
                with shown.hidden():
                    self._printer.print_result(result)
                results.append(result)
        self._printer.print_end(results, time.monotonic() - began)
        return results

    def _scan_file(self, scan_file: Callable[..., dict[str, Any]], source: str, progress: FileProgress) -> ScanResult:
        def report(done: int, total: int) -> None:
            progress.show(f"segment {done} of {total}", done, total)

        if is_url(source):
            return ScanResult(
                source, None, MissingPartError("--local scans files only: leave it out to let a service fetch a URL")
            )
        progress.show("loading", 0.0)
        try:
            file = self._file_of(source)
            document = scan_local_file(
                scan_file,
                file,
                model=self._options.model,
                sample_fps=self._options.sample_fps,
                segment_seconds=self._options.segment_seconds,
                on_progress=report,
            )
        except (DeepfakeStreamError, OSError) as error:
            return ScanResult(source, None, error)
        return ScanResult(source, Job.from_json(document), None)

    def _submit_and_wait(self, client: Client, source: str, progress: FileProgress) -> Job:
        options = self._options

        def on_upload(sent: int, total: int) -> None:
            self._check_stopping()
            progress.show("uploading", sent, max(1, total))

        def on_progress(job: Job) -> None:
            self._check_stopping()
            step = (
                f"{job.segments_done} of {pluralize(job.segments_total, 'segment')}"
                if job.segments_total
                else job.status
            )
            progress.show(step, job.fraction)

        file = source if is_url(source) else self._file_of(source)
        if self._check_first and isinstance(file, Path):
            check_media(file)
        self.has_submitted = True
        job = client.submit(
            file,
            model=options.model,
            sample_fps=options.sample_fps,
            segment_seconds=options.segment_seconds,
            webhook_url=options.webhook_url,
            webhook_events=options.webhook_events or None,
            explain=options.explain or None,
            metadata=_metadata(source),
            on_upload=on_upload,
        )
        if not options.wait:
            return job
        return client.wait(job.id, timeout_s=options.timeout_s, on_progress=on_progress, poll_s=POLL_S)

    def _file_of(self, source: str) -> Path:
        """Return the file of a source that is no URL, for pipes the copy; raise why there is none."""
        copy = self._copies.get(source)
        if isinstance(copy, Exception):
            raise copy
        if copy is None:
            check_name(source)
        return copy or Path(source)

    def _check_stopping(self) -> None:
        """End a thread that uploads or waits, soon after Ctrl-C."""
        if self._stopping.is_set():
            raise InterruptedError("interrupted")


def _metadata(source: str) -> dict[str, Any] | None:
    """Return the name of a file, by which the job's report names it; bytes that are no text are replaced."""
    if source == STANDARD_INPUT or is_url(source):
        return None
    return {"filename": Path(source).name.encode("utf-8", "replace").decode()}
