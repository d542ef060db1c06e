"""The SDK: one class, whose calls are the API's."""

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

from deepfakestream.errors import DeepfakeStreamError, InvalidRequestError, WaitTimeoutError, unreadable
from deepfakestream.pages import follow_pages, items_of
from deepfakestream.repetition import Repetition
from deepfakestream.results import Delivery, Job, Segment
from deepfakestream.transport import Transport
from deepfakestream.webhooks import verify_webhook

BLOCK_BYTES = 256 * 1024
SUMMARIES_ON_A_PAGE = 1000
"""As many as the service gives at a time."""
MAX_PAGES = 1000
"""Of a job's segments. No job has a million."""

Progress = Callable[[Job], None]
UploadProgress = Callable[[int, int], None]
"""Called with the bytes sent and their total."""


class Client:
    """
    Talks to a DeepfakeStream service.

    Args:
        base_url: For instance ``https://deepfakes.example``.
        api_key: ``dfs_…``.
        timeout_s: Of a single wait on the connection, not of a whole upload.
        retries: How often a request that got no answer, or 429, 502, 503 or 504, is repeated. Repeating is safe:
            submissions carry an idempotency key, and what cannot be sent twice is not.

    Raises:
        AddressError: *base_url* is no address of a service, or *api_key* can be no key.
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
            file: A path, or a seekable file opened for reading; its bytes are streamed.
            url: Instead of *file*: where the service fetches it.
            reuse: Take the scores over from an earlier job of yours with the same file, options and checkpoint;
                the operator's choice if not given.
            idempotency_key: Made up if not given. Give one of your own to make a repetition after a crash of
                your program safe, too.
            on_upload: Called while *file* is sent.
            direct: Put *file* into the service's storage without passing through its api; for services that keep
                files in S3. Scores cannot be taken over then.

        Raises:
            ConflictError: *direct*, and the service does not offer it.
            InvalidRequestError: The file or an option is not acceptable; ``code`` says why.
        """
        if (file is None) == (url is None):
            raise ValueError("give either a file or a url")
        if direct and (file is None or reuse is not None):
            raise ValueError("direct goes with a file and without reuse")
        options: dict[str, Any] = {
            "model": model,
            "sample_fps": sample_fps,
            "segment_seconds": segment_seconds,
            "webhook_url": webhook_url,
            "reuse": reuse,
        }
        options = {name: value for name, value in options.items() if value is not None}
        if metadata is not None:
            options["metadata"] = metadata
        _check_json(options)
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        if file is None:
            body = {"url": url, **options}
            return _read(Job, self._transport.call("POST", "/v1/jobs", headers=headers, json=body))
        if isinstance(file, (str, Path)):
            with Path(file).open("rb") as opened:
                return self._send(opened, options, headers, on_upload, direct=direct)
        return self._send(file, options, headers, on_upload, direct=direct)

    def get(self, job_id: str, *, wait_s: float = 0.0) -> Job:
        """
        Look at a job.

        A job that has ended comes with all of its segments, without their faces, which takes a further request for
        each thousand after the first hundred. Of one that goes on the first hundred are enough to look at. Where the
        service does not give the others, the job comes as it is, and its ``segments_next_cursor`` is not None.

        Args:
            wait_s: Let the service hold the answer for up to this long (at most 60) until the job ends.

        Raises:
            NotFoundError: There is no such job of yours.
        """
        return self._look(job_id, wait_s=wait_s, deadline=None)

    def wait(
        self,
        job_id: str,
        *,
        timeout_s: float | None = None,
        on_progress: Progress | None = None,
        poll_s: float = 0.5,
    ) -> Job:
        """
        Wait until a job has ended, however it has; it comes with all of its segments, as from ``get``.

        Args:
            timeout_s: Give up after this long; never by default. It bounds the further requests for segments, too.
            on_progress: Called with the job at each look. Without it the service is asked to hold its answers,
                which is cheaper.
            poll_s: Between looks.

        Raises:
            WaitTimeoutError: It did not end in time. It goes on.
            ConnectionFailedError, RateLimitedError, ServerError: The service did not answer, or asked for patience,
                until retries or the time were over. The job may go on.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left_s = 30.0 if deadline is None else deadline - time.monotonic()
            began = time.monotonic()
            held_s = 0.0 if on_progress else min(30.0, left_s)
            job = self._look(job_id, wait_s=held_s, deadline=deadline)
            if on_progress is not None:
                on_progress(job)
            if job.is_final:
                return job
            if deadline is not None and time.monotonic() >= deadline:
                raise WaitTimeoutError(f"job {job_id} did not end within {timeout_s:g} s; it goes on")
            # A service with many waiting requests answers at once.
            time.sleep(max(0.0, poll_s - (time.monotonic() - began)))

    def list(self, *, status: str | None = None, limit: int | None = None) -> Iterator[Job]:
        """Your jobs, newest first, without their segments; pages are fetched as needed."""
        left = limit
        params = {} if status is None else {"status": status}
        for item in follow_pages(partial(self._page, "/v1/jobs", params)):
            if left is not None and left <= 0:
                return
            left = None if left is None else left - 1
            yield _read(Job, item)

    def segments(self, job_id: str) -> Iterator[Segment]:
        """Every segment of a job with its people and faces; pages are fetched as needed."""
        for item in follow_pages(partial(self._page, _job_path(job_id, "segments"), {})):
            yield _read(Segment, item)

    def cancel(self, job_id: str) -> Job:
        """
        Stop a job; it comes with all of its segments, as from ``get``.

        Raises:
            ConflictError: It has ended otherwise.
        """
        return self._whole(self._transport.call("POST", _job_path(job_id, "cancel")))

    def delete(self, job_id: str) -> None:
        """
        Erase a job with its media and results.

        Raises:
            NotFoundError: There is no such job of yours, and it was not this call that erased it.
        """
        self._transport.call("DELETE", _job_path(job_id), repetition=Repetition.GONE_IS_DONE, has_answer=False)

    def deliveries(self, job_id: str) -> tuple[Delivery, ...]:
        """Every attempt to call the job's webhook, oldest first."""
        body = self._transport.call("GET", _job_path(job_id, "deliveries"))
        return tuple(_read(Delivery, item) for item in items_of(body))

    def redeliver(self, job_id: str, number: int) -> Delivery:
        """
        Send a webhook once more.

        Raises:
            ConnectionFailedError: No answer. The webhook may be on its way all the same, so it was not asked for again:
                ``deliveries`` tells.
        """
        path = _job_path(job_id, "deliveries", str(number), "redeliver")
        return _read(Delivery, self._transport.call("POST", path, repetition=Repetition.UNSAFE))

    def evidence(self, job_id: str, path: str | Path) -> Path:
        """
        Download the signed evidence bundle of a job that has ended; ``deepfakestream.verify_bundle`` checks it.

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
        target = Path(path)
        # Beside the target, so that it can be moved there in one step.
        partial_file = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
        try:
            self._transport.download(_job_path(job_id, "evidence.zip"), partial_file, media_type="application/zip")
            partial_file.replace(target)
        finally:
            partial_file.unlink(missing_ok=True)
        return target

    def evidence_key(self) -> dict[str, Any]:
        """
        Return the public key that signs evidence bundles, as the API describes it: ``id``, ``public_key``, ``retired``.

        Raises:
            ConflictError: The service has none.
        """
        document = self._transport.call("GET", "/v1/evidence-key")
        if not isinstance(document, dict) or not isinstance(document.get("public_key"), str):
            raise unreadable(200, "it is no document of a key")
        return document

    def models(self) -> tuple[dict[str, Any], ...]:
        """The checkpoints that can be asked for, as the API describes them."""
        return tuple(items_of(self._transport.call("GET", "/v1/models")))

    def _look(self, job_id: str, *, wait_s: float, deadline: float | None) -> Job:
        headers = {"Prefer": f"wait={int(wait_s)}"} if wait_s >= 1 else {}
        within_s = None if deadline is None else deadline - time.monotonic()
        path = _job_path(job_id)
        document = self._transport.call("GET", path, headers=headers, wait_s=wait_s, within_s=within_s)
        return self._whole(document, deadline=deadline)

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
            # Anew for each attempt.
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
            # Asked for twice, one of the two places stays empty and is given up by the service.
            upload = self._transport.call("POST", "/v1/uploads", json={"size_bytes": size})
            upload_id = self._transport.put(upload, blocks)
            body = {"upload_id": upload_id, "sha256": digest.hexdigest(), **options}
            return _read(Job, self._transport.call("POST", "/v1/jobs", headers=headers, json=body))
        if "metadata" in options:
            options["metadata"] = json.dumps(options["metadata"])
        headers |= {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        return _read(
            Job, self._transport.call("POST", "/v1/jobs", headers=headers, params=options, make_content=blocks)
        )

    def _whole(self, document: Any, *, deadline: float | None = None) -> Job:
        """
        The job of a *document*, completed with the segments that it leaves out if the job has ended.

        How it ended is known then, so a job that cannot be completed is no error: it comes as it is, with its cursor.

        Args:
            deadline: By ``time.monotonic``; no page is asked for later.
        """
        job = _read(Job, document)
        if job.is_final and job.segments_next_cursor is not None:
            with suppress(DeepfakeStreamError):
                return self._completed(job, deadline)
        return job

    def _completed(self, job: Job, deadline: float | None) -> Job:
        """
        Return the *job* with all of its segments.

        Raises:
            DeepfakeStreamError: The service does not give them, or others, or not in time.
        """
        ask = partial(self._page, _job_path(job.id, "segments"), {"view": "summary", "limit": SUMMARIES_ON_A_PAGE})
        pages = follow_pages(partial(ask, deadline=deadline), cursor=job.segments_next_cursor, most=MAX_PAGES)
        total = job.segments_total or 0
        segments = [*job.raw.get("segments", [])]
        for segment in pages:
            segments.append(segment)
            if len(segments) > total:
                break
        whole = _read(Job, {**job.raw, "segments": segments, "segments_next_cursor": None})
        indices = [segment.index for segment in whole.segments]
        if len(indices) != total or not all(index < following for index, following in itertools.pairwise(indices)):
            raise unreadable(200, f"its segments are not the {total} that the job says it has")
        return whole

    def _page(
        self, path: str, params: dict[str, Any], cursor: str | None = None, *, deadline: float | None = None
    ) -> Any:
        left_s = None if deadline is None else deadline - time.monotonic()
        if left_s is not None and left_s <= 0:
            raise WaitTimeoutError("the time was over before all pages were there")
        at = {} if cursor is None else {"cursor": cursor}
        return self._transport.call("GET", path, params=params | at, within_s=left_s)


_Document = TypeVar("_Document", Job, Segment, Delivery)


def _read(kind: type[_Document], document: Any) -> _Document:
    """The typed form of *document*, which is what the service answered."""
    try:
        return kind.from_json(document)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in problem["loc"]) or "all of it"
        why = f"it is no document of a {kind.__name__.lower()}: {where}: {problem['msg']}"
        raise unreadable(200, why) from error


def _check_json(options: dict[str, Any]) -> None:
    for name, value in options.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidRequestError(422, "invalid_request", f"{name} cannot be written as JSON: {error}") from error


def _job_path(job_id: str, *more: str) -> str:
    # Whatever an id is, it names a job and nothing else of the service.
    return "/".join(["/v1/jobs", *(quote(part, safe="", errors="replace") for part in (job_id, *more))])
