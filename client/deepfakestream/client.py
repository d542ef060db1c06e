"""The SDK: one class whose methods are the requests of the API."""

import hashlib
import itertools
import json
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, TypeVar
from urllib.parse import quote

from pydantic import ValidationError

from deepfakestream.errors import DeepfakeStreamError, InvalidRequestError, WaitTimeoutError, unexpected_answer_error
from deepfakestream.pages import follow_pages, read_items
from deepfakestream.results import Delivery, Job, Review, Segment, Share
from deepfakestream.retries import RetrySafety
from deepfakestream.transport import Transport
from deepfakestream.webhooks import verify_webhook

BLOCK_BYTES = 256 * 1024
SUMMARIES_PER_PAGE = 1000
"""The most that the service gives at a time."""
MAX_PAGES = 1000
"""Limit of the pages of a job's segments, so that a faulty service cannot keep the client busy without end."""

Progress = Callable[[Job], None]
UploadProgress = Callable[[int, int], None]
"""Called with the bytes sent and their total."""


class Client:
    """
    A client of a DeepfakeStream service.

    Args:
        base_url: Address of the service, such as ``https://deepfakes.example``.
        api_key: API key, ``dfs_…``.
        timeout_s: Limit in seconds of a single wait on the connection, not of a whole upload.
        retries: How often a request is sent again that got no answer, or 429, 502, 503 or 504. This is safe:
            submissions have an idempotency key, and a request that must not be processed twice is not sent again.

    Raises:
        AddressError: *base_url* is not the address of a service, or *api_key* cannot be a key.
        MissingPartError: The proxy or the certificates that the environment names cannot be used.
    """

    verify_webhook = staticmethod(verify_webhook)

    def __init__(self, base_url: str, api_key: str, *, timeout_s: float = 30.0, retries: int = 3) -> None:
        self._transport = Transport(base_url, api_key, timeout_s=timeout_s, retries=retries)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def submit(
        self,
        file: str | Path | IO[bytes] | None = None,
        *,
        url: str | None = None,
        model: str | None = None,
        sample_fps: float | None = None,
        segment_seconds: float | None = None,
        webhook_url: str | None = None,
        metadata: dict[str, Any] | None = None,
        reuse: bool | None = None,
        idempotency_key: str | None = None,
        on_upload: UploadProgress | None = None,
        direct: bool = False,
    ) -> Job:
        """
        Submit an image or a video.

        Args:
            file: A path, or a seekable binary file opened for reading; its bytes are streamed.
            url: Address from which the service fetches the file, instead of *file*.
            model: Name of a checkpoint; the service's default if not given.
            sample_fps: Frames sampled per second of video, 0.1 to 30; the checkpoint's default if not given.
            segment_seconds: Length of a segment in seconds, 1 to 60; the checkpoint's default if not given.
            webhook_url: Address that the service calls when the job ends.
            metadata: Values of your own, which the job keeps; must be JSON.
            reuse: Whether scores may be copied from an earlier job of yours with the same file, options and
                checkpoint; the operator decides if not given.
            idempotency_key: Generated if not given. With a key of your own your program can submit again after it
                crashed without creating a second job.
            on_upload: Called while *file* is sent, with the bytes sent and their total.
            direct: Upload *file* directly into the storage of the service, which must be S3. Scores cannot be copied
                then.

        Raises:
            ConflictError: *direct* is given, and the service offers no direct uploads.
            InvalidRequestError: The file or an option is not acceptable; ``code`` says why.
        """
        if (file is None) == (url is None):
            raise ValueError("give either a file or a url")
        if direct and (file is None or reuse is not None):
            raise ValueError("direct needs a file, and cannot be combined with reuse")
        options = _collect_options(
            model=model,
            sample_fps=sample_fps,
            segment_seconds=segment_seconds,
            webhook_url=webhook_url,
            reuse=reuse,
            metadata=metadata,
        )
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        if file is None:
            body = {"url": url, **options}
            return _parse_document(Job, self._transport.call("POST", "/v1/jobs", headers=headers, json=body))
        if isinstance(file, (str, Path)):
            with Path(file).open("rb") as opened:
                return self._send(opened, options, headers, on_upload, direct=direct)
        return self._send(file, options, headers, on_upload, direct=direct)

    def get(self, job_id: str, *, wait_s: float = 0.0) -> Job:
        """
        Get a job.

        A job that has ended is returned with all of its segments, without their faces; this takes one more request for
        each thousand segments after the first hundred. A job that has not ended has at most the first hundred. If the
        service does not give the others, ``segments_next_cursor`` is not None.

        Args:
            wait_s: Seconds for which the service holds its answer back until the job ends, at most 60.

        Raises:
            NotFoundError: The job does not exist, or belongs to another owner.
        """
        return self._get_job(job_id, wait_s=wait_s, deadline=None)

    def wait(
        self,
        job_id: str,
        *,
        timeout_s: float | None = None,
        on_progress: Progress | None = None,
        poll_s: float = 0.5,
    ) -> Job:
        """
        Wait until a job has succeeded, failed or been cancelled; it has all of its segments, as from ``get``.

        Args:
            timeout_s: Seconds after which to give up; never by default. The limit includes the requests for segments.
            on_progress: Called with the job after each request. Without it the service is asked to hold its answers
                back, which takes fewer requests.
            poll_s: Seconds between two requests.

        Raises:
            WaitTimeoutError: The job did not end in time. It goes on.
            ConnectionFailedError, RateLimitedError, ServerError: The service did not answer, or asked to wait, until
                the retries or the time were used up. The job may go on.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left_s = 30.0 if deadline is None else deadline - time.monotonic()
            began = time.monotonic()
            held_s = 0.0 if on_progress else min(30.0, left_s)
            job = self._get_job(job_id, wait_s=held_s, deadline=deadline)
            if on_progress is not None:
                on_progress(job)
            if job.is_final:
                return job
            if deadline is not None and time.monotonic() >= deadline:
                raise WaitTimeoutError(f"job {job_id} did not end within {timeout_s:g} s; it goes on")
            # A service that already holds many answers back answers at once.
            time.sleep(max(0.0, poll_s - (time.monotonic() - began)))

    def list(self, *, status: str | None = None, limit: int | None = None) -> Iterator[Job]:
        """Iterate over your jobs, newest first, without their segments; pages are requested as needed."""
        left = limit
        params = {} if status is None else {"status": status}
        for item in follow_pages(partial(self._get_page, "/v1/jobs", params)):
            if left is not None and left <= 0:
                return
            left = None if left is None else left - 1
            yield _parse_document(Job, item)

    def segments(self, job_id: str) -> Iterator[Segment]:
        """Iterate over the segments of a job with their people and faces; pages are requested as needed."""
        for item in follow_pages(partial(self._get_page, _job_path(job_id, "segments"), {})):
            yield _parse_document(Segment, item)

    def cancel(self, job_id: str) -> Job:
        """
        Cancel a job; it is returned with all of its segments, as by ``get``.

        Raises:
            ConflictError: The job has already succeeded or failed.
        """
        return self._complete_job(self._transport.call("POST", _job_path(job_id, "cancel")))

    def delete(self, job_id: str) -> None:
        """
        Delete a job with its media and results.

        Raises:
            NotFoundError: The job does not exist or belongs to another owner, and was not deleted by this call.
        """
        self._transport.call("DELETE", _job_path(job_id), safety=RetrySafety.DELETION, has_answer=False)

    def deliveries(self, job_id: str) -> tuple[Delivery, ...]:
        """Return all attempts to call the webhook of a job, oldest first."""
        body = self._transport.call("GET", _job_path(job_id, "deliveries"))
        return tuple(_parse_document(Delivery, item) for item in read_items(body))

    def redeliver(self, job_id: str, number: int) -> Delivery:
        """
        Send a webhook again.

        Args:
            number: Number of the delivery that is repeated.

        Raises:
            ConnectionFailedError: The service did not answer. It may have sent the webhook, so the request was not sent
                again; ``deliveries`` shows whether it did.
        """
        path = _job_path(job_id, "deliveries", str(number), "redeliver")
        return _parse_document(Delivery, self._transport.call("POST", path, safety=RetrySafety.UNSAFE))

    def rescore(
        self,
        job_id: str,
        *,
        model: str | None = None,
        sample_fps: float | None = None,
        segment_seconds: float | None = None,
        webhook_url: str | None = None,
        metadata: dict[str, Any] | None = None,
        reuse: bool | None = None,
        idempotency_key: str | None = None,
    ) -> Job:
        """
        Score the stored media of a job again, as a new job; what is not given is as it was in that job.

        Args:
            webhook_url: None by default, whatever the job had.
            reuse: Copy the scores of an earlier job with the same options and checkpoint, if there is one.

        Raises:
            DeepfakeStreamError: The media is not stored any more (``code`` is ``media_missing``).
            InvalidRequestError: An option is not acceptable; ``code`` says why.
        """
        options = _collect_options(
            model=model,
            sample_fps=sample_fps,
            segment_seconds=segment_seconds,
            webhook_url=webhook_url,
            reuse=reuse,
            metadata=metadata,
        )
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        return _parse_document(
            Job, self._transport.call("POST", _job_path(job_id, "rescore"), headers=headers, json=options)
        )

    def diff(self, job_id: str, other_id: str) -> dict[str, Any]:
        """
        Return what changed between two jobs of the same media that have succeeded, as the API describes it.

        Raises:
            ConflictError: One of them has not succeeded.
            InvalidRequestError: They are of different media.
        """
        found: dict[str, Any] = self._transport.call("GET", _job_path(job_id, "diff", other_id))
        return found

    def review(self, job_id: str, finding: str, note: str | None = None) -> Review:
        """
        Record what a person found, in place of an earlier finding.

        Args:
            finding: ``confirmed_fake``, ``confirmed_real`` or ``disputed``.

        Raises:
            ConflictError: The job has not ended.
        """
        body = {"finding": finding, **({} if note is None else {"note": note})}
        return _parse_document(Review, self._transport.call("PUT", _job_path(job_id, "review"), json=body))

    def withdraw_review(self, job_id: str) -> None:
        """Withdraw the finding of a person, if there is one."""
        self._transport.call("DELETE", _job_path(job_id, "review"), has_answer=False)

    def report(self, job_id: str, path: str | Path) -> Path:
        """
        Download the report of a job as one HTML file that needs nothing else, without the media.

        Args:
            path: The file to write. An existing file is replaced once the report has arrived whole.

        Returns:
            *path*.

        Raises:
            OSError: The file cannot be written.
        """
        return self._download(_job_path(job_id, "report.html"), Path(path), "text/html; charset=utf-8")

    def share(self, job_id: str, *, valid_s: int | None = None) -> Share:
        """
        Make a link by which people without an API key see the report of a job.

        Args:
            valid_s: Seconds for which it works; the service's default, a week, if not given.
        """
        body = {} if valid_s is None else {"valid_s": valid_s}
        # Sent twice, it makes a second link, which nobody knows and which expires.
        return _parse_document(Share, self._transport.call("POST", _job_path(job_id, "shares"), json=body))

    def shares(self, job_id: str) -> tuple[Share, ...]:
        """Return the links to the report of a job that work, newest first, without their addresses."""
        body = self._transport.call("GET", _job_path(job_id, "shares"))
        return tuple(_parse_document(Share, item) for item in read_items(body))

    def revoke_share(self, job_id: str, share_id: str) -> None:
        """Revoke a link: it shows nothing from now on."""
        path = _job_path(job_id, "shares", share_id)
        self._transport.call("DELETE", path, safety=RetrySafety.DELETION, has_answer=False)

    def evidence(self, job_id: str, path: str | Path) -> Path:
        """
        Download the signed evidence bundle of a job that has ended.

        ``deepfakestream.verification.verify_bundle`` checks it.

        Args:
            path: Where to write the zip file. A file that is there is replaced once the bundle has arrived whole.

        Returns:
            *path*.

        Raises:
            ConflictError: The job has not ended (``job_not_final``), or the service has no key to sign with
                (``no_evidence_key``).
            NotFoundError: There is no such job of yours.
            OSError: The file cannot be written.
        """
        return self._download(_job_path(job_id, "evidence.zip"), Path(path), "application/zip")

    def evidence_key(self) -> dict[str, Any]:
        """
        Return the public key that signs evidence bundles, as the API describes it: ``id``, ``public_key``, ``retired``.

        Raises:
            ConflictError: The service has none.
        """
        document = self._transport.call("GET", "/v1/evidence-key")
        if not isinstance(document, dict) or not isinstance(document.get("public_key"), str):
            raise unexpected_answer_error(200, "it is no document of a key")
        return document

    def models(self) -> tuple[dict[str, Any], ...]:
        """Return the documents of the checkpoints that a job can name."""
        return tuple(read_items(self._transport.call("GET", "/v1/models")))

    def _get_job(self, job_id: str, *, wait_s: float, deadline: float | None) -> Job:
        headers = {"Prefer": f"wait={int(wait_s)}"} if wait_s >= 1 else {}
        within_s = None if deadline is None else deadline - time.monotonic()
        path = _job_path(job_id)
        document = self._transport.call("GET", path, headers=headers, wait_s=wait_s, within_s=within_s)
        return self._complete_job(document, deadline=deadline)

    def _send(
        self,
        file: IO[bytes],
        options: dict[str, Any],
        headers: dict[str, str],
        on_upload: UploadProgress | None,
        *,
        direct: bool,
    ) -> Job:
        begin = file.tell()
        size = file.seek(0, 2) - begin
        digest = hashlib.sha256()

        def blocks() -> Iterator[bytes]:
            # Called again for each attempt.
            nonlocal digest
            file.seek(begin)
            digest = hashlib.sha256()
            sent = 0
            while block := file.read(BLOCK_BYTES):
                if sent + len(block) > size:
                    break
                if direct:
                    digest.update(block)
                yield block
                sent += len(block)
                if on_upload is not None:
                    on_upload(sent, size)
            if block or sent < size:
                raise InvalidRequestError(422, "invalid_request", "the file changed while it was sent")

        if direct:
            # If this request is processed twice, one of the two uploads stays empty, and the service discards it.
            upload = self._transport.call("POST", "/v1/uploads", json={"size_bytes": size})
            upload_id = self._transport.put(upload, blocks)
            body = {"upload_id": upload_id, "sha256": digest.hexdigest(), **options}
            return _parse_document(Job, self._transport.call("POST", "/v1/jobs", headers=headers, json=body))
        if "metadata" in options:
            options["metadata"] = json.dumps(options["metadata"])
        headers |= {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        return _parse_document(
            Job, self._transport.call("POST", "/v1/jobs", headers=headers, params=options, make_content=blocks)
        )

    def _complete_job(self, document: Any, *, deadline: float | None = None) -> Job:
        """
        Read a job, and add the segments that its document leaves out if the job has ended.

        The outcome of the job is known then, so it is not an error if segments are missing: the job keeps its cursor.

        Args:
            document: The document of the job.
            deadline: Time by ``time.monotonic`` after which no page is requested.
        """
        job = _parse_document(Job, document)
        if job.is_final and job.segments_next_cursor is not None:
            with suppress(DeepfakeStreamError):
                return self._with_all_segments(job, deadline)
        return job

    def _with_all_segments(self, job: Job, deadline: float | None) -> Job:
        """
        Return *job* with all of its segments.

        Raises:
            DeepfakeStreamError: The service does not give them in time, or gives others.
        """
        ask = partial(self._get_page, _job_path(job.id, "segments"), {"view": "summary", "limit": SUMMARIES_PER_PAGE})
        pages = follow_pages(partial(ask, deadline=deadline), cursor=job.segments_next_cursor, max_pages=MAX_PAGES)
        total = job.segments_total or 0
        segments = [*job.raw.get("segments", [])]
        for segment in pages:
            segments.append(segment)
            if len(segments) > total:
                break
        complete = _parse_document(Job, {**job.raw, "segments": segments, "segments_next_cursor": None})
        indices = [segment.index for segment in complete.segments]
        if len(indices) != total or not all(index < following for index, following in itertools.pairwise(indices)):
            raise unexpected_answer_error(200, f"its segments are not the {total} that the job says it has")
        return complete

    def _download(self, path: str, target: Path, media_type: str) -> Path:
        """Write the answer to a GET request to *target* once it has arrived whole."""
        # Beside the target, so that it can be moved there in one step.
        partial_file = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
        try:
            self._transport.download(path, partial_file, media_type=media_type)
            partial_file.replace(target)
        except OSError as error:
            # The error names the temporary file, of which the caller knows nothing.
            raise OSError(error.errno, error.strerror, str(target)) from error
        finally:
            with suppress(OSError):
                partial_file.unlink(missing_ok=True)
        return target

    def _get_page(
        self, path: str, params: dict[str, Any], cursor: str | None = None, *, deadline: float | None = None
    ) -> Any:
        left_s = None if deadline is None else deadline - time.monotonic()
        if left_s is not None and left_s <= 0:
            raise WaitTimeoutError("the time limit ended before all pages were read")
        position = {} if cursor is None else {"cursor": cursor}
        return self._transport.call("GET", path, params=params | position, within_s=left_s)


_Document = TypeVar("_Document", Job, Segment, Delivery, Review, Share)


def _parse_document(kind: type[_Document], document: Any) -> _Document:
    """Read *document*, which the service answered. Raises UnexpectedAnswerError if it is not one of that *kind*."""
    try:
        return kind.from_json(document)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in problem["loc"]) or "all of it"
        why = f"it is no document of a {kind.__name__.lower()}: {where}: {problem['msg']}"
        raise unexpected_answer_error(200, why) from error


def _collect_options(**given: Any) -> dict[str, Any]:
    """Return the options that are not None. Raises InvalidRequestError for a value that cannot be written as JSON."""
    options = {name: value for name, value in given.items() if value is not None}
    for name, value in options.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidRequestError(422, "invalid_request", f"{name} cannot be written as JSON: {error}") from error
    return options


def _job_path(job_id: str, *more: str) -> str:
    # Quoted, so that no id can be the path of another resource.
    return "/".join(["/v1/jobs", *(quote(part, safe="", errors="replace") for part in (job_id, *more))])
