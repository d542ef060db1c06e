"""Requests about batches of jobs."""

import os
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing, suppress
from functools import partial
from typing import Any, Final

from deepfakestream.batches import Batch, Submission, Upload
from deepfakestream.calls import Call, Iteration
from deepfakestream.errors import InvalidRequestError, NotFoundError, WaitTimeoutError
from deepfakestream.pages import follow_pages
from deepfakestream.requests.base import check_events, collect_options, job_path, parse_document
from deepfakestream.requests.jobs import JobRequests
from deepfakestream.requests.submissions import SubmissionRequests, UploadProgress
from deepfakestream.results import Job
from deepfakestream.retries import RetrySafety
from deepfakestream.sources import Source, check_source, is_url

MAX_ITEMS: Final = 100
"""The most items that the service takes in one batch."""
_MAX_CSV_BYTES: Final = 64 * 1024 * 1024

BatchProgress = Callable[[Batch], None]
BatchUploadProgress = Callable[[int, int, int], None]
"""Called with the index of an item, the bytes of it that were sent, and their total."""


class BatchRequests(SubmissionRequests, JobRequests):
    """Requests that make, list, read, cancel and erase batches."""

    @Call
    async def submit_batch(
        self,
        items: Iterable[Source | Upload | Submission],
        *,
        model: str | None = None,
        sample_fps: float | None = None,
        segment_seconds: float | None = None,
        explain: bool | None = None,
        webhook_url: str | None = None,
        webhook_events: Iterable[str] | None = None,
        metadata: dict[str, Any] | None = None,
        idempotency_key: str | None = None,
        on_upload: BatchUploadProgress | None = None,
    ) -> Batch:
        """
        Submit up to 100 images and videos as one batch.

        The service accepts or refuses each by itself; ``Batch.items`` says which, in the order given.

        Args:
            items: Each is what ``submit`` takes as its file, an ``Upload``, or a ``Submission`` that adds options.
                Files are sent as direct uploads one after the other; addresses are fetched by the service.
            model: Name of a checkpoint for the items without one; the service's default if not given.
            sample_fps: Frames sampled per second of video, likewise.
            segment_seconds: Length of a segment in seconds, likewise.
            explain: Whether the faces are explained once a job has succeeded, likewise.
            webhook_url: Address that the service calls once, when all jobs have ended.
            webhook_events: Names of the events that it is called for, of which a batch has ``batch.ended``; all if
                not given.
            metadata: Values of your own, which the batch keeps; must be JSON.
            idempotency_key: Generated if not given. With a key of your own your program can submit again after it
                crashed without creating a second batch, of addresses or of the same ``Upload``s: a file that is sent
                again is another upload.
            on_upload: Called while files are sent.

        Raises:
            ConflictError: There are files, and the service, an older one that keeps them in a folder, offers no
                direct uploads (``code`` is ``no_direct_uploads``).
            InvalidRequestError: There is no item, there are more than 100, or no item is acceptable; ``errors`` says
                why each is not.
            NotMediaError, TypeError, ValueError, OSError: As from ``submit``, for one of the items or for
                *webhook_events*; nothing was submitted.
        """
        if isinstance(items, str | bytes | bytearray | memoryview | os.PathLike | Submission | Upload):
            raise TypeError("give a list of items: submit takes one")
        submissions = [each if isinstance(each, Submission) else Submission(each) for each in items]
        if not 1 <= len(submissions) <= MAX_ITEMS:
            why = f"a batch has 1 to {MAX_ITEMS} items, and not {len(submissions)}"
            raise InvalidRequestError(422, "invalid_request", why)
        for each in submissions:
            if not isinstance(each.source, Upload):
                check_source(each.source)
        options = collect_options(
            model=model,
            sample_fps=sample_fps,
            segment_seconds=segment_seconds,
            explain=explain,
            webhook_url=webhook_url,
            webhook_events=check_events(webhook_events),
            metadata=metadata,
        )
        own_options = [_options_of(each) for each in submissions]
        bodies = [
            {**await self._place_of(each.source, None if on_upload is None else partial(on_upload, index)), **own}
            for index, (each, own) in enumerate(zip(submissions, own_options, strict=True))
        ]
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        body = {"items": bodies, **options}
        return parse_document(Batch, await self._transport.call("POST", "/v1/batches", headers=headers, json=body))

    @Call
    async def batch(self, batch_id: str) -> Batch:
        """Get a batch with all of its items. Raises NotFoundError if there is no such batch of yours."""
        return await self._get_batch(batch_id, None)

    @Iteration
    async def list_batches(self, *, ended: bool | None = None, limit: int | None = None) -> AsyncGenerator[Batch, None]:
        """
        Iterate over your batches, newest first, without their items; pages are requested as needed.

        Args:
            ended: True for batches all of whose jobs have ended, False for the others; both by default.
            limit: The most batches to return; all by default.
        """
        params = {} if ended is None else {"ended": "true" if ended else "false"}
        async with aclosing(self._get_items("/v1/batches", params, limit=limit)) as items:
            async for item in items:
                yield parse_document(Batch, item)

    @Call
    async def wait_for_batch(
        self,
        batch_id: str,
        *,
        timeout_s: float | None = None,
        on_progress: BatchProgress | None = None,
        poll_s: float = 1.0,
    ) -> Batch:
        """
        Wait until all jobs of a batch have ended.

        Args:
            timeout_s: Seconds after which to give up; never by default.
            on_progress: Called with the batch after each request.
            poll_s: Least time in seconds from one request to the next.

        Raises:
            WaitTimeoutError: They did not end in time. They go on.
            ConnectionFailedError, RateLimitedError, ServerError: As from ``wait``.
        """
        async with aclosing(self._poll_batch(batch_id, timeout_s=timeout_s, poll_s=poll_s)) as states:
            async for batch in states:
                if on_progress is not None:
                    on_progress(batch)
        return batch

    @Iteration
    async def batch_progress(
        self, batch_id: str, *, timeout_s: float | None = None, poll_s: float = 1.0
    ) -> AsyncGenerator[Batch, None]:
        """
        Iterate over the states of a batch until all of its jobs have ended: the one now, and each in which another
        number of items is in some state.

        Args:
            timeout_s: Seconds after which to give up; never by default.
            poll_s: Least time in seconds from one request to the next.

        Raises:
            WaitTimeoutError, ConnectionFailedError, RateLimitedError, ServerError: As from ``wait_for_batch``.
        """
        last = None
        async with aclosing(self._poll_batch(batch_id, timeout_s=timeout_s, poll_s=poll_s)) as states:
            async for batch in states:
                state = (batch.counts, batch.is_final)
                if state != last:
                    last = state
                    yield batch

    @Iteration
    async def batch_jobs(self, batch_id: str) -> AsyncGenerator[Job, None]:
        """
        Iterate over the jobs of a batch in the order of its items, each as from ``get``.

        Items that were refused have no job, and those whose job was erased have none any more.
        """
        batch = await self._get_batch(batch_id, None)
        for item in batch.items:
            if item.job_id is not None:
                # It may be erased meanwhile.
                with suppress(NotFoundError):
                    yield await self._get_job(item.job_id, wait_s=0.0, deadline=None)

    @Call
    async def batch_csv(self, batch_id: str) -> str:
        """Return the results so far as CSV, as the service writes it: a heading, and a line for each item."""
        path = _path(batch_id, "results.csv")
        content = await self._transport.read(path, media_type="text/csv; charset=utf-8", max_bytes=_MAX_CSV_BYTES)
        return content.decode()

    @Call
    async def cancel_batch(self, batch_id: str) -> Batch:
        """Cancel the jobs of a batch that have not ended. Cancelling it again changes nothing."""
        document = await self._transport.call("POST", _path(batch_id, "cancel"))
        return await self._with_all_items(batch_id, document, None)

    @Call
    async def delete_batch(self, batch_id: str) -> None:
        """Erase a batch with all of its jobs, their media and results. No webhook of the batch is sent any more."""
        await self._transport.call("DELETE", _path(batch_id), safety=RetrySafety.DELETION, has_answer=False)

    async def _place_of(self, source: Source | Upload, on_upload: UploadProgress | None) -> dict[str, Any]:
        """Return the fields that say where the service finds the file of an item, which is sent if it is one."""
        if isinstance(source, str) and is_url(source):
            return {"url": source}
        upload = source if isinstance(source, Upload) else await self._upload(source, on_upload)
        return {"upload_id": upload.id, "sha256": upload.sha256}

    async def _poll_batch(
        self, batch_id: str, *, timeout_s: float | None, poll_s: float
    ) -> AsyncGenerator[Batch, None]:
        """Iterate over the answers to repeated requests for a batch until it has ended."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            began = time.monotonic()
            batch = await self._get_batch(batch_id, deadline)
            yield batch
            if batch.is_final:
                return
            pause_s = max(0.0, poll_s - (time.monotonic() - began))
            if deadline is not None:
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    raise WaitTimeoutError(f"batch {batch_id} did not end within {timeout_s:g} s; it goes on")
                pause_s = min(pause_s, left_s)
            await self._transport.driver.sleep(pause_s)

    async def _get_batch(self, batch_id: str, deadline: float | None) -> Batch:
        within_s = None if deadline is None else deadline - time.monotonic()
        # As many items as a batch can have, so that there is one page.
        params = {"limit": MAX_ITEMS}
        document = await self._transport.call("GET", _path(batch_id), params=params, within_s=within_s)
        return await self._with_all_items(batch_id, document, deadline)

    async def _with_all_items(self, batch_id: str, document: Any, deadline: float | None) -> Batch:
        """Read a batch, and add the items that its *document* leaves out."""
        batch = parse_document(Batch, document)
        cursor = document.get("next_cursor")
        if cursor is None:
            return batch
        ask = partial(self._get_page, _path(batch_id), {"limit": MAX_ITEMS}, deadline=deadline)
        async with aclosing(follow_pages(ask, cursor=cursor, max_pages=MAX_ITEMS)) as others:
            items = [*document["items"], *[item async for item in others]]
        return parse_document(Batch, {**document, "items": items, "next_cursor": None})


def _options_of(submission: Submission) -> dict[str, Any]:
    return collect_options(
        model=submission.model,
        sample_fps=submission.sample_fps,
        segment_seconds=submission.segment_seconds,
        explain=submission.explain,
        webhook_url=submission.webhook_url,
        webhook_events=check_events(submission.webhook_events),
        metadata=submission.metadata,
    )


def _path(batch_id: str, *more: str) -> str:
    return job_path(batch_id, *more, collection="batches")
