"""The command ``batch``: many files as one batch, whose results are those of ``scan``."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from deepfakestream.batches import Batch, BatchItem, Submission, Upload
from deepfakestream.client import Client
from deepfakestream.errors import APIError, ConnectionFailedError, DeepfakeStreamError, MissingPartError
from deepfakestream.outcomes import ScanResult
from deepfakestream.printing import Printer
from deepfakestream.progress import FileProgress, ScanProgress
from deepfakestream.scanning import MAX_CONCURRENT_FILES, Options, file_of, metadata_of
from deepfakestream.selection import Copies, copied_pipes
from deepfakestream.signatures import check_media
from deepfakestream.sources import is_url

POLL_S = 1.0

NO_FILES = (
    "this service is older than this command and keeps files where a batch cannot take them from, so that a batch can"
    " have URLs only: scan files by 'deepfakestream scan', which takes any number of them"
)
"""What to do where the service answers ``no_direct_uploads``, which no service of this release does."""

NameOf = Callable[[BatchItem], str]
"""Returns the name under which the result of an item is printed."""


class BatchScan:
    """
    The scan of all sources of one command as one batch; results are printed when they are known.

    Args:
        options: Options of all jobs; the time limit is that of the whole batch.
        printer: Prints the results: first those of sources that could not be sent, then those of the batch in order.
        check_first: Refuse files that are certainly neither images nor videos before they are sent.
    """

    def __init__(self, options: Options, printer: Printer, *, check_first: bool = True) -> None:
        self._options = options
        self._printer = printer
        self._check_first = check_first
        self._stopping = threading.Event()
        self._sent: list[str] = []
        self.results: list[ScanResult] = []
        """The results so far."""
        self.batch: Batch | None = None
        """The batch as it was submitted; None before that, and if nothing could be."""
        self.has_submitted = False
        """Whether a batch may have been submitted, which goes on when the command is interrupted."""

    def submit(self, client: Client, sources: Sequence[str]) -> None:
        """
        Upload the files of *sources*, and submit what the service can take as a batch.

        Raises:
            DeepfakeStreamError: The service takes no files into batches, or the batch as a whole is not acceptable.
        """
        submissions = []
        for source, made in zip(sources, self._send(client, sources), strict=True):
            if isinstance(made, Submission):
                submissions.append(made)
                self._sent.append(source)
            else:
                self._add(ScanResult(source, None, made))
        if not submissions:
            return
        self.has_submitted = True
        try:
            self.batch = client.submit_batch(
                submissions,
                model=self._options.model,
                sample_fps=self._options.sample_fps,
                segment_seconds=self._options.segment_seconds,
                explain=self._options.explain or None,
                webhook_url=self._options.webhook_url,
                webhook_events=self._options.webhook_events or None,
            )
        except APIError as error:
            details = {name: detail for name, detail in error.errors if name.startswith("items.")}
            if not details:
                raise
            for index, source in enumerate(self._sent):
                detail = details.get(f"items.{index}", error.detail)
                self._add(ScanResult(source, None, APIError(error.status, error.code, detail, error.request_id)))

    def wait(self, client: Client) -> None:
        """Wait until all jobs of the batch have ended; the results are those of ``follow_batch``."""
        if self.batch is not None:
            results, _ = follow_batch(
                client, self.batch, self._printer, self.name_of, timeout_s=self._options.timeout_s
            )
            self.results += results

    def name_of(self, item: BatchItem) -> str:
        """Return the source of an item."""
        return self._sent[item.index]

    def _add(self, result: ScanResult) -> None:
        self.results.append(result)
        self._printer.print_result(result)

    def _send(self, client: Client, sources: Sequence[str]) -> list[Submission | Exception]:
        """Upload files, several at the same time; return for each source an item, or the error."""
        with (
            copied_pipes(sources, check_first=self._check_first) as copies,
            ScanProgress(len(sources)) as shown,
            ThreadPoolExecutor(MAX_CONCURRENT_FILES) as pool,
        ):

            def send_one(source: str) -> Submission | Exception:
                with shown.file(source) as progress:
                    try:
                        place = self._place_of(client, source, copies, progress)
                    except (DeepfakeStreamError, OSError) as error:
                        if getattr(error, "code", None) == "no_direct_uploads":
                            raise MissingPartError(NO_FILES) from error
                        return error
                return Submission(place, metadata=_metadata(source))

            futures = [pool.submit(send_one, source) for source in sources]
            try:
                return [future.result() for future in futures]
            except BaseException:
                self._stopping.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _place_of(self, client: Client, source: str, copies: Copies, progress: FileProgress) -> str | Upload:
        def on_upload(sent: int, total: int) -> None:
            if self._stopping.is_set():
                raise InterruptedError("interrupted")
            progress.show("uploading", sent, max(1, total))

        if is_url(source):
            return source
        file = file_of(source, copies)
        if self._check_first:
            check_media(file)
        return client.upload(file, on_upload=on_upload)


def follow_batch(
    client: Client, batch: Batch, printer: Printer, name_of: NameOf, *, timeout_s: float | None = None
) -> tuple[list[ScanResult], Batch]:
    """
    Wait until the jobs of *batch* have ended, and print the results in the order of its items as they are known.

    If the wait fails, for instance after *timeout_s* seconds, the items that have ended by then have their results, and
    the others the error of the wait.

    Returns:
        The results of all items, and the last state that is known.
    """
    results: list[ScanResult] = []
    last = batch
    with ScanProgress(batch.counts.total, has_total=True) as shown:

        def add(result: ScanResult) -> None:
            results.append(result)
            with shown.hidden():
                printer.print_result(result)

        try:
            for last in client.batch_progress(batch.id, timeout_s=timeout_s, poll_s=POLL_S):
                shown.show_done(last.counts.ended)
                for item in last.items[len(results) :]:
                    if _is_open(item):
                        break
                    add(result_of(client, item, name_of))
        except DeepfakeStreamError as error:
            for result in _results_after(error, client, last.items[len(results) :], name_of):
                add(result)
    return results, last


def _results_after(
    failure: DeepfakeStreamError, client: Client, items: Sequence[BatchItem], name_of: NameOf
) -> Iterator[ScanResult]:
    """Iterate over the results of *items* after a wait for them failed: of those that are open, its error."""
    lost: Exception | None = None
    for item in items:
        if _is_open(item):
            yield ScanResult(name_of(item), None, failure)
        elif lost is not None:
            # Each job would be asked for several times, with pauses.
            yield ScanResult(name_of(item), None, lost, item.verdict)
        else:
            result = result_of(client, item, name_of)
            lost = result.error if isinstance(result.error, ConnectionFailedError) else None
            yield result


def result_of(client: Client, item: BatchItem, name_of: NameOf) -> ScanResult:
    """Return the result of an item, with its whole job."""
    if item.job_id is None:
        # Without an error it was not refused.
        code, detail = (item.error.code, item.error.detail) if item.error else ("not_found", "its job was erased")
        return ScanResult(name_of(item), None, APIError(0, code, detail))
    try:
        return ScanResult(name_of(item), client.get(item.job_id), None)
    except DeepfakeStreamError as error:
        return ScanResult(name_of(item), None, error, item.verdict)


def _is_open(item: BatchItem) -> bool:
    return item.status in ("queued", "running")


def stored_name(item: BatchItem) -> str:
    """Return the name with which an item was submitted, or its place."""
    found = item.metadata.get("filename")
    return found if isinstance(found, str) and found else f"item {item.index}"


def _metadata(source: str) -> dict[str, Any] | None:
    """Return the metadata of a job: the name of its file; of an address, only its last part, which is no secret."""
    if not is_url(source):
        return metadata_of(source)
    try:
        name = Path(unquote(urlsplit(source).path)).name
    except ValueError:
        # The service says what is wrong with the address.
        return None
    return {"filename": name} if name else None
