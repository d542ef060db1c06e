"""Requests that make jobs: submissions, and scoring stored media again."""

import hashlib
import json
import uuid
from collections.abc import AsyncGenerator, Callable, Iterable
from typing import IO, Any

from deepfakestream.batches import Upload
from deepfakestream.calls import Call
from deepfakestream.drivers import Driver
from deepfakestream.errors import InvalidRequestError
from deepfakestream.requests.base import Requests, check_events, collect_options, job_path, parse_document
from deepfakestream.results import Job
from deepfakestream.sources import Source, check_source, is_url, open_source

BLOCK_BYTES = 256 * 1024

UploadProgress = Callable[[int, int], None]
"""Called with the bytes sent and their total."""


class SubmissionRequests(Requests):
    """Requests that make jobs."""

    @Call
    async def submit(
        self,
        file: Source | None = None,
        *,
        url: str | None = None,
        model: str | None = None,
        sample_fps: float | None = None,
        segment_seconds: float | None = None,
        webhook_url: str | None = None,
        webhook_events: Iterable[str] | None = None,
        metadata: dict[str, Any] | None = None,
        reuse: bool | None = None,
        explain: bool | None = None,
        idempotency_key: str | None = None,
        on_upload: UploadProgress | None = None,
        direct: bool = False,
    ) -> Job:
        """
        Submit an image or a video.

        Args:
            file: A path, the content as bytes, or a seekable file opened in binary mode, which is sent from where it
                stands; its bytes are streamed. Text that begins with ``http://`` or ``https://`` is an address from
                which the service fetches the file.
            url: That address, instead of *file*.
            model: Name of a checkpoint; the service's default if not given.
            sample_fps: Frames sampled per second of video, 0.1 to 30; the checkpoint's default if not given.
            segment_seconds: Length of a segment in seconds, 1 to 60; the checkpoint's default if not given.
            webhook_url: Address that the service calls when the job ends.
            webhook_events: Names of the events that it is called for, such as ``job.failed``; all if not given.
            metadata: Values of your own, which the job keeps; must be JSON.
            reuse: Whether scores may be copied from an earlier job of yours with the same file, options and
                checkpoint; the operator decides if not given.
            explain: Whether the faces are explained once the job has succeeded; see ``wait_for_explanation``. Not done
                by default.
            idempotency_key: Generated if not given. With a key of your own your program can submit again after it
                crashed without creating a second job.
            on_upload: Called while *file* is sent, with the bytes sent and their total.
            direct: Upload *file* before the job is submitted, directly into the storage of the service where that is
                an S3 server that clients can reach. Scores cannot be copied then.

        Raises:
            ConflictError: *direct* is given, and the service, an older one that keeps files in a folder, offers no
                direct uploads.
            InvalidRequestError: The file or an option is not acceptable; ``code`` says why.
            NotMediaError: The path is that of a pipe or a device.
            TypeError: *file* is of another type, or a file that is opened as text; *webhook_events* is text.
            ValueError: *file* cannot be read a second time, as a repetition of the request needs it; *webhook_events*
                is empty, or a name in it has a comma.
            OSError: *file* cannot be read.
        """
        if (file is None) == (url is None):
            raise ValueError("give either a file or a url")
        if file is not None:
            check_source(file)
        if isinstance(file, str) and is_url(file):
            file, url = None, file
        if direct and (file is None or reuse is not None):
            raise ValueError("direct needs a file, and cannot be combined with reuse")
        options = collect_options(
            model=model,
            sample_fps=sample_fps,
            segment_seconds=segment_seconds,
            webhook_url=webhook_url,
            webhook_events=check_events(webhook_events),
            reuse=reuse,
            explain=explain,
            metadata=metadata,
        )
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        if file is None:
            body = {"url": url, **options}
            return parse_document(Job, await self._transport.call("POST", "/v1/jobs", headers=headers, json=body))
        if direct:
            upload = await self._upload(file, on_upload)
            body = {"upload_id": upload.id, "sha256": upload.sha256, **options}
            return parse_document(Job, await self._transport.call("POST", "/v1/jobs", headers=headers, json=body))
        with await self._transport.driver.call(open_source, file) as opened:
            return await self._send(opened, options, headers, on_upload)

    @Call
    async def upload(self, file: Source, *, on_upload: UploadProgress | None = None) -> Upload:
        """
        Send a file to the service as a direct upload, for an item of ``submit_batch``.

        Args:
            file: A path, the content, or a file, as for ``submit``.
            on_upload: Called while *file* is sent, with the bytes sent and their total.

        Raises:
            ConflictError: The service, an older one that keeps files in a folder, offers no direct uploads (``code`` is
                ``no_direct_uploads``).
            NotMediaError, TypeError, ValueError, OSError: As from ``submit``.
        """
        check_source(file)
        if isinstance(file, str) and is_url(file):
            raise ValueError("an address is not uploaded: the service fetches it")
        return await self._upload(file, on_upload)

    @Call
    async def rescore(
        self,
        job_id: str,
        *,
        model: str | None = None,
        sample_fps: float | None = None,
        segment_seconds: float | None = None,
        webhook_url: str | None = None,
        webhook_events: Iterable[str] | None = None,
        metadata: dict[str, Any] | None = None,
        reuse: bool | None = None,
        explain: bool | None = None,
        idempotency_key: str | None = None,
    ) -> Job:
        """
        Score the stored media of a job again, as a new job; what is not given is as it was in that job.

        Args:
            webhook_url: None by default, whatever the job had.
            webhook_events: Names of the events that it is called for; all if not given.
            reuse: Copy the scores of an earlier job with the same options and checkpoint, if there is one.
            explain: Whether the faces are explained once the job has succeeded; as in that job if not given.

        Raises:
            DeepfakeStreamError: The media is not stored any more (``code`` is ``media_missing``).
            InvalidRequestError: An option is not acceptable; ``code`` says why.
            TypeError, ValueError: *webhook_events* is not a list of names, as from ``submit``.
        """
        options = collect_options(
            model=model,
            sample_fps=sample_fps,
            segment_seconds=segment_seconds,
            webhook_url=webhook_url,
            webhook_events=check_events(webhook_events),
            reuse=reuse,
            explain=explain,
            metadata=metadata,
        )
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        return parse_document(
            Job, await self._transport.call("POST", job_path(job_id, "rescore"), headers=headers, json=options)
        )

    async def _upload(self, source: Source, on_upload: UploadProgress | None) -> Upload:
        with await self._transport.driver.call(open_source, source) as file:
            blocks = _Blocks(file, self._transport.driver, on_upload, has_digest=True)
            # If this request is processed twice, one of the two uploads stays empty, and the service discards it.
            begun = await self._transport.call("POST", "/v1/uploads", json={"size_bytes": blocks.size_bytes})
            upload_id = await self._transport.put(begun, blocks.iterate, blocks.size_bytes)
        made = {"id": upload_id, "sha256": blocks.sha256, "size_bytes": blocks.size_bytes}
        return parse_document(Upload, made | {"expires_at": begun.get("expires_at")})

    async def _send(
        self, file: IO[bytes], options: dict[str, Any], headers: dict[str, str], on_upload: UploadProgress | None
    ) -> Job:
        blocks = _Blocks(file, self._transport.driver, on_upload)
        if "webhook_events" in options:
            options["webhook_events"] = ",".join(options["webhook_events"])
        if "metadata" in options:
            options["metadata"] = json.dumps(options["metadata"])
        headers |= {"Content-Type": "application/octet-stream", "Content-Length": str(blocks.size_bytes)}
        answered = await self._transport.call(
            "POST", "/v1/jobs", headers=headers, params=options, make_content=blocks.iterate
        )
        return parse_document(Job, answered)


class _Blocks:
    """
    The content of a file from where it stands, which can be iterated over again for each attempt to send it.

    Args:
        has_digest: Whether ``sha256`` is computed meanwhile.
    """

    def __init__(
        self, file: IO[bytes], driver: Driver, on_upload: UploadProgress | None, *, has_digest: bool = False
    ) -> None:
        self._file = file
        self._driver = driver
        self._on_upload = on_upload
        self._has_digest = has_digest
        self._begin = file.tell()
        self._digest = hashlib.sha256()
        self.size_bytes = file.seek(0, 2) - self._begin

    @property
    def sha256(self) -> str:
        """Digest of what the last iteration has given."""
        return self._digest.hexdigest()

    async def iterate(self) -> AsyncGenerator[bytes, None]:
        """Iterate over the content. Raises InvalidRequestError if the file is longer or shorter than it was."""
        self._file.seek(self._begin)
        self._digest = hashlib.sha256()
        sent = 0
        while block := await self._driver.call(self._file.read, BLOCK_BYTES):
            if sent + len(block) > self.size_bytes:
                break
            if self._has_digest:
                self._digest.update(block)
            yield block
            sent += len(block)
            if self._on_upload is not None:
                self._on_upload(sent, self.size_bytes)
        if block or sent < self.size_bytes:
            raise InvalidRequestError(422, "invalid_request", "the file changed while it was sent")
