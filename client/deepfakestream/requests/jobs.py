"""Requests about jobs and their segments."""

import itertools
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from functools import partial
from typing import Any

from deepfakestream.calls import Call, Iteration
from deepfakestream.errors import DeepfakeStreamError, WaitTimeoutError, unexpected_answer_error
from deepfakestream.pages import follow_pages, read_items
from deepfakestream.requests.base import Requests, job_path, parse_document
from deepfakestream.results import Delivery, Job, Segment
from deepfakestream.retries import RetrySafety

SUMMARIES_PER_PAGE = 1000
"""The most that the service gives at a time."""
MAX_PAGES = 1000
"""Limit of the pages of a job's segments, so that a faulty service cannot keep the client busy without end."""
HELD_S = 30.0
"""For how long the service is asked to hold an answer back until the job ends."""
HELD_FOR_PROGRESS_S = 1.0
"""The same where progress is shown."""

Progress = Callable[[Job], None]


class JobRequests(Requests):
    """Requests that read, cancel and delete jobs."""

    @Call
    async def get(self, job_id: str, *, wait_s: float = 0.0) -> Job:
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
        return await self._get_job(job_id, wait_s=wait_s, deadline=None)

    @Call
    async def wait(
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
            on_progress: Called with the job after each request, at least every ``HELD_FOR_PROGRESS_S`` seconds or so.
            poll_s: Least time in seconds from one request to the next. The service is asked to hold each answer back
                until the job ends, for longer without *on_progress*, so that the end is noticed at once.

        Raises:
            WaitTimeoutError: The job did not end in time. It goes on.
            ConnectionFailedError, RateLimitedError, ServerError: The service did not answer, or asked to wait, until
                the retries or the time were used up. The job may go on.
        """
        max_held_s = HELD_S if on_progress is None else HELD_FOR_PROGRESS_S
        poll = self._poll_job(job_id, timeout_s=timeout_s, poll_s=poll_s, max_held_s=max_held_s)
        async with aclosing(poll) as states:
            async for job in states:
                if on_progress is not None:
                    on_progress(job)
        return job

    @Iteration
    async def progress(
        self, job_id: str, *, timeout_s: float | None = None, poll_s: float = 0.5
    ) -> AsyncGenerator[Job, None]:
        """
        Iterate over the states of a job until it has ended: the one now, each one that differs in status or progress,
        and the last one, with all of its segments as from ``get``.

        Args:
            timeout_s: Seconds after which to give up; never by default.
            poll_s: Least time in seconds from one request to the next.

        Raises:
            WaitTimeoutError, ConnectionFailedError, RateLimitedError, ServerError: As from ``wait``.
        """
        last = None
        poll = self._poll_job(job_id, timeout_s=timeout_s, poll_s=poll_s, max_held_s=HELD_FOR_PROGRESS_S)
        async with aclosing(poll) as states:
            async for job in states:
                state = (job.status, job.segments_total, job.segments_done, job.fraction)
                if state != last:
                    last = state
                    yield job

    @Iteration
    async def list(self, *, status: str | None = None, limit: int | None = None) -> AsyncGenerator[Job, None]:
        """Iterate over your jobs, newest first, without their segments; pages are requested as needed."""
        params = {} if status is None else {"status": status}
        async with aclosing(self._get_items("/v1/jobs", params, limit=limit)) as items:
            async for item in items:
                yield parse_document(Job, item)

    @Iteration
    async def segments(self, job_id: str) -> AsyncGenerator[Segment, None]:
        """Iterate over the segments of a job with their people and faces; pages are requested as needed."""
        async with aclosing(self._get_items(job_path(job_id, "segments"), {})) as items:
            async for item in items:
                yield parse_document(Segment, item)

    @Call
    async def cancel(self, job_id: str) -> Job:
        """
        Cancel a job; it is returned with all of its segments, as by ``get``.

        Raises:
            ConflictError: The job has already succeeded or failed.
        """
        return await self._complete_job(await self._transport.call("POST", job_path(job_id, "cancel")))

    @Call
    async def delete(self, job_id: str) -> None:
        """
        Delete a job with its media and results.

        Raises:
            NotFoundError: The job does not exist or belongs to another owner, and was not deleted by this call.
        """
        await self._transport.call("DELETE", job_path(job_id), safety=RetrySafety.DELETION, has_answer=False)

    @Call
    async def diff(self, job_id: str, other_id: str) -> dict[str, Any]:
        """
        Return what changed between two jobs of the same media that have succeeded, as the API describes it.

        Raises:
            ConflictError: One of them has not succeeded.
            InvalidRequestError: They are of different media.
        """
        found: dict[str, Any] = await self._transport.call("GET", job_path(job_id, "diff", other_id))
        return found

    @Call
    async def deliveries(self, job_id: str) -> tuple[Delivery, ...]:
        """Return all attempts to call the webhook of a job, oldest first."""
        body = await self._transport.call("GET", job_path(job_id, "deliveries"))
        return tuple(parse_document(Delivery, item) for item in read_items(body))

    @Call
    async def redeliver(self, job_id: str, number: int) -> Delivery:
        """
        Send a webhook again.

        Args:
            number: Number of the delivery that is repeated.

        Raises:
            ConnectionFailedError: The service did not answer. It may have sent the webhook, so the request was not sent
                again; ``deliveries`` shows whether it did.
        """
        path = job_path(job_id, "deliveries", str(number), "redeliver")
        return parse_document(Delivery, await self._transport.call("POST", path, safety=RetrySafety.UNSAFE))

    @Call
    async def models(self) -> tuple[dict[str, Any], ...]:
        """Return the documents of the checkpoints that a job can name."""
        return tuple(read_items(await self._transport.call("GET", "/v1/models")))

    async def _poll_job(
        self, job_id: str, *, timeout_s: float | None, poll_s: float, max_held_s: float
    ) -> AsyncGenerator[Job, None]:
        """
        Iterate over the answers to repeated requests for a job until it has ended.

        Args:
            max_held_s: For how long the service is asked to hold each answer back until the job ends.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            began = time.monotonic()
            held_s = max_held_s if deadline is None else min(max_held_s, deadline - began)
            job = await self._get_job(job_id, wait_s=held_s, deadline=deadline)
            yield job
            if job.is_final:
                return
            if deadline is not None and time.monotonic() >= deadline:
                raise WaitTimeoutError(f"job {job_id} did not end within {timeout_s:g} s; it goes on")
            # A service that already holds many answers back answers at once.
            await self._transport.driver.sleep(max(0.0, poll_s - (time.monotonic() - began)))

    async def _get_job(self, job_id: str, *, wait_s: float, deadline: float | None) -> Job:
        headers = {"Prefer": f"wait={int(wait_s)}"} if wait_s >= 1 else {}
        within_s = None if deadline is None else deadline - time.monotonic()
        path = job_path(job_id)
        document = await self._transport.call("GET", path, headers=headers, wait_s=wait_s, within_s=within_s)
        return await self._complete_job(document, deadline=deadline)

    async def _complete_job(self, document: Any, *, deadline: float | None = None) -> Job:
        """
        Read a job, and add the segments that its document leaves out if the job has ended.

        The outcome of the job is known then, so it is not an error if segments are missing: the job keeps its cursor.

        Args:
            document: The document of the job.
            deadline: Time by ``time.monotonic`` after which no page is requested.
        """
        job = parse_document(Job, document)
        if job.is_final and job.segments_next_cursor is not None:
            with suppress(DeepfakeStreamError):
                return await self._with_all_segments(job, deadline)
        return job

    async def _with_all_segments(self, job: Job, deadline: float | None) -> Job:
        """
        Return *job* with all of its segments.

        Raises:
            DeepfakeStreamError: The service does not give them in time, or gives others.
        """
        ask = partial(self._get_page, job_path(job.id, "segments"), {"view": "summary", "limit": SUMMARIES_PER_PAGE})
        pages = follow_pages(partial(ask, deadline=deadline), cursor=job.segments_next_cursor, max_pages=MAX_PAGES)
        total = job.segments_total or 0
        segments = [*job.raw.get("segments", [])]
        async with aclosing(pages):
            async for segment in pages:
                segments.append(segment)
                if len(segments) > total:
                    break
        complete = parse_document(Job, {**job.raw, "segments": segments, "segments_next_cursor": None})
        indices = [segment.index for segment in complete.segments]
        if len(indices) != total or not all(index < following for index, following in itertools.pairwise(indices)):
            raise unexpected_answer_error(200, f"its segments are not the {total} that the job says it has")
        return complete
