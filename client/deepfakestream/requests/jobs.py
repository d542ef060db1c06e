"""Requests about jobs and their segments."""

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

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
            on_progress: Called with the job after each request, at least every ``HELD_FOR_PROGRESS_S`` seconds or so.
            poll_s: Least time in seconds from one request to the next. The service is asked to hold each answer back
                until the job ends, for longer without *on_progress*, so that the end is noticed at once.

        Raises:
            WaitTimeoutError: The job did not end in time. It goes on.
            ConnectionFailedError, RateLimitedError, ServerError: The service did not answer, or asked to wait, until
                the retries or the time were used up. The job may go on.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            began = time.monotonic()
            held_s = HELD_S if on_progress is None else HELD_FOR_PROGRESS_S
            if deadline is not None:
                held_s = min(held_s, deadline - began)
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
            yield parse_document(Job, item)

    def segments(self, job_id: str) -> Iterator[Segment]:
        """Iterate over the segments of a job with their people and faces; pages are requested as needed."""
        for item in follow_pages(partial(self._get_page, job_path(job_id, "segments"), {})):
            yield parse_document(Segment, item)

    def cancel(self, job_id: str) -> Job:
        """
        Cancel a job; it is returned with all of its segments, as by ``get``.

        Raises:
            ConflictError: The job has already succeeded or failed.
        """
        return self._complete_job(self._transport.call("POST", job_path(job_id, "cancel")))

    def delete(self, job_id: str) -> None:
        """
        Delete a job with its media and results.

        Raises:
            NotFoundError: The job does not exist or belongs to another owner, and was not deleted by this call.
        """
        self._transport.call("DELETE", job_path(job_id), safety=RetrySafety.DELETION, has_answer=False)

    def diff(self, job_id: str, other_id: str) -> dict[str, Any]:
        """
        Return what changed between two jobs of the same media that have succeeded, as the API describes it.

        Raises:
            ConflictError: One of them has not succeeded.
            InvalidRequestError: They are of different media.
        """
        found: dict[str, Any] = self._transport.call("GET", job_path(job_id, "diff", other_id))
        return found

    def deliveries(self, job_id: str) -> tuple[Delivery, ...]:
        """Return all attempts to call the webhook of a job, oldest first."""
        body = self._transport.call("GET", job_path(job_id, "deliveries"))
        return tuple(parse_document(Delivery, item) for item in read_items(body))

    def redeliver(self, job_id: str, number: int) -> Delivery:
        """
        Send a webhook again.

        Args:
            number: Number of the delivery that is repeated.

        Raises:
            ConnectionFailedError: The service did not answer. It may have sent the webhook, so the request was not sent
                again; ``deliveries`` shows whether it did.
        """
        path = job_path(job_id, "deliveries", str(number), "redeliver")
        return parse_document(Delivery, self._transport.call("POST", path, safety=RetrySafety.UNSAFE))

    def models(self) -> tuple[dict[str, Any], ...]:
        """Return the documents of the checkpoints that a job can name."""
        return tuple(read_items(self._transport.call("GET", "/v1/models")))

    def _get_job(self, job_id: str, *, wait_s: float, deadline: float | None) -> Job:
        headers = {"Prefer": f"wait={int(wait_s)}"} if wait_s >= 1 else {}
        within_s = None if deadline is None else deadline - time.monotonic()
        path = job_path(job_id)
        document = self._transport.call("GET", path, headers=headers, wait_s=wait_s, within_s=within_s)
        return self._complete_job(document, deadline=deadline)

    def _complete_job(self, document: Any, *, deadline: float | None = None) -> Job:
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
                return self._with_all_segments(job, deadline)
        return job

    def _with_all_segments(self, job: Job, deadline: float | None) -> Job:
        """
        Return *job* with all of its segments.

        Raises:
            DeepfakeStreamError: The service does not give them in time, or gives others.
        """
        ask = partial(self._get_page, job_path(job.id, "segments"), {"view": "summary", "limit": SUMMARIES_PER_PAGE})
        pages = follow_pages(partial(ask, deadline=deadline), cursor=job.segments_next_cursor, max_pages=MAX_PAGES)
        total = job.segments_total or 0
        segments = [*job.raw.get("segments", [])]
        for segment in pages:
            segments.append(segment)
            if len(segments) > total:
                break
        complete = parse_document(Job, {**job.raw, "segments": segments, "segments_next_cursor": None})
        indices = [segment.index for segment in complete.segments]
        if len(indices) != total or not all(index < following for index, following in itertools.pairwise(indices)):
            raise unexpected_answer_error(200, f"its segments are not the {total} that the job says it has")
        return complete
