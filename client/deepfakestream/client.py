"""The SDK: one class, whose calls are the API's."""

import hashlib
import json
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import httpx

from deepfakestream.errors import ConnectionFailedError, WaitTimeoutError, error_from_response
from deepfakestream.results import Delivery, Job, Segment
from deepfakestream.webhooks import verify_webhook

BLOCK_BYTES = 256 * 1024
RETRIED_STATUSES = frozenset({429, 502, 503, 504})
LONGEST_PAUSE_S = 60.0

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
        retries: How often a request that got no answer, or 429 or 503, is repeated. Repeating is safe:
            submissions carry an idempotency key.
    """

    verify_webhook = staticmethod(verify_webhook)

    def __init__(self, base_url: str, api_key: str, *, timeout_s: float = 30.0, retries: int = 3) -> None:
        self._retries = retries
        self._http = httpx.Client(
            base_url=base_url,
            headers={"Authorization": f"Bearer {api_key}", "User-Agent": "deepfakestream-client"},
            timeout=timeout_s,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

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
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        if file is None:
            body = {"url": url, **options, **({} if metadata is None else {"metadata": metadata})}
            return Job.from_json(self._call("POST", "/v1/jobs", headers=headers, json=body))
        if isinstance(file, (str, Path)):
            with Path(file).open("rb") as opened:
                return self._send(opened, options, metadata, headers, on_upload, direct=direct)
        return self._send(file, options, metadata, headers, on_upload, direct=direct)

    def get(self, job_id: str, *, wait_s: float = 0.0) -> Job:
        """
        Look at a job.

        Args:
            wait_s: Let the service hold the answer for up to this long (at most 60) until the job ends.

        Raises:
            NotFoundError: There is no such job of yours.
        """
        headers = {"Prefer": f"wait={int(wait_s)}"} if wait_s >= 1 else {}
        return Job.from_json(self._call("GET", f"/v1/jobs/{job_id}", headers=headers, wait_s=wait_s))

    def wait(
        self,
        job_id: str,
        *,
        timeout_s: float | None = None,
        on_progress: Progress | None = None,
        poll_s: float = 0.5,
    ) -> Job:
        """
        Wait until a job has ended, however it has.

        Args:
            timeout_s: Give up after this long; never by default.
            on_progress: Called with the job at each look. Without it the service is asked to hold its answers,
                which is cheaper.
            poll_s: Between looks.

        Raises:
            WaitTimeoutError: It did not end in time. It goes on.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left_s = 30.0 if deadline is None else deadline - time.monotonic()
            began = time.monotonic()
            job = self.get(job_id, wait_s=0.0 if on_progress else min(30.0, left_s))
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
        for item in self._pages("/v1/jobs", params):
            if left is not None and left <= 0:
                return
            left = None if left is None else left - 1
            yield Job.from_json(item)

    def segments(self, job_id: str) -> Iterator[Segment]:
        """Every segment of a job with its people and faces; pages are fetched as needed."""
        for item in self._pages(f"/v1/jobs/{job_id}/segments", {}):
            yield Segment.from_json(item)

    def cancel(self, job_id: str) -> Job:
        """Stop a job. Raises ConflictError if it has ended otherwise."""
        return Job.from_json(self._call("POST", f"/v1/jobs/{job_id}/cancel"))

    def delete(self, job_id: str) -> None:
        """Erase a job with its media and results."""
        self._call("DELETE", f"/v1/jobs/{job_id}")

    def deliveries(self, job_id: str) -> tuple[Delivery, ...]:
        """Every attempt to call the job's webhook, oldest first."""
        body = self._call("GET", f"/v1/jobs/{job_id}/deliveries")
        return tuple(Delivery.from_json(item) for item in body["items"])

    def redeliver(self, job_id: str, number: int) -> Delivery:
        """Send a webhook once more."""
        return Delivery.from_json(self._call("POST", f"/v1/jobs/{job_id}/deliveries/{number}/redeliver"))

    def models(self) -> tuple[dict[str, Any], ...]:
        """The checkpoints that can be asked for, as the API describes them."""
        return tuple(self._call("GET", "/v1/models")["items"])

    def _send(
        self,
        file: IO[bytes],
        options: dict[str, Any],
        metadata: dict[str, Any] | None,
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
                if direct:
                    digest.update(block)
                yield block
                sent += len(block)
                if on_upload is not None:
                    on_upload(sent, size)

        if direct:
            upload = self._call("POST", "/v1/uploads", json={"size_bytes": size})
            self._put(upload, blocks)
            given = {} if metadata is None else {"metadata": metadata}
            body = {"upload_id": upload["id"], "sha256": digest.hexdigest(), **options, **given}
            return Job.from_json(self._call("POST", "/v1/jobs", headers=headers, json=body))
        if metadata is not None:
            options["metadata"] = json.dumps(metadata)
        headers |= {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        return Job.from_json(self._call("POST", "/v1/jobs", headers=headers, params=options, make_content=blocks))

    def _put(self, upload: dict[str, Any], make_content: Callable[[], Iterator[bytes]]) -> None:
        """Put a file where the service said, without the API key: that address is not the service's own."""
        with httpx.Client(timeout=self._http.timeout, headers={"User-Agent": "deepfakestream-client"}) as storage:
            for attempt in range(self._retries + 1):
                is_last = attempt == self._retries
                try:
                    response = storage.request(
                        upload["method"], upload["url"], headers=upload["headers"], content=make_content()
                    )
                except httpx.TransportError as error:
                    if is_last:
                        raise ConnectionFailedError(
                            f"no answer from the service's storage ({type(error).__name__})"
                        ) from error
                else:
                    if response.is_success:
                        return
                    if response.status_code < 500 or is_last:
                        # Its body is XML, and names things of the service's inside.
                        raise error_from_response(response.status_code, None, None, None)
                time.sleep(_pause_s(attempt, None))

    def _pages(self, path: str, params: dict[str, Any]) -> Iterator[dict[str, Any]]:
        cursor: str | None = None
        while True:
            page = self._call("GET", path, params={**params, **({"cursor": cursor} if cursor else {})})
            yield from page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def _call(
        self,
        method: str,
        path: str,
        *,
        wait_s: float = 0.0,
        make_content: Callable[[], Iterator[bytes]] | None = None,
        **arguments: Any,
    ) -> Any:
        """Send a request, repeating it where that can help; the parsed answer."""
        if wait_s:
            arguments["timeout"] = httpx.Timeout(self._http.timeout.read or 30.0, read=wait_s + 30.0)
        for attempt in range(self._retries + 1):
            is_last = attempt == self._retries
            try:
                content = None if make_content is None else make_content()
                response = self._http.request(method, path, content=content, **arguments)
            except httpx.TransportError as error:
                if is_last:
                    kind = type(error).__name__
                    raise ConnectionFailedError(f"no answer from {self._http.base_url} ({kind})") from error
                time.sleep(_pause_s(attempt, None))
                continue
            if response.is_success:
                return response.json() if response.content else None
            retry_after_s = _retry_after_s(response)
            if response.status_code not in RETRIED_STATUSES or is_last:
                raise error_from_response(
                    response.status_code,
                    _json(response),
                    response.headers.get("x-request-id"),
                    retry_after_s,
                )
            time.sleep(_pause_s(attempt, retry_after_s))
        raise AssertionError("unreachable: the last attempt returns or raises")


def _pause_s(attempt: int, retry_after_s: float | None) -> float:
    return min(LONGEST_PAUSE_S, retry_after_s if retry_after_s is not None else 0.25 * 2**attempt)


def _retry_after_s(response: httpx.Response) -> float | None:
    value = response.headers.get("retry-after", "")
    return float(value) if value.isdigit() else None


def _json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        return None
