"""Requests about explanations: which parts of a face raised its score."""

import time
from typing import Final

from deepfakestream.calls import Call
from deepfakestream.errors import WaitTimeoutError
from deepfakestream.explanations import Explanation
from deepfakestream.requests.base import Requests, choose_pause, job_path, parse_document

IMAGE_TYPE: Final = "image/webp"
POLL_S: Final = 0.5
"""The least time between two requests, unless the caller says another."""
MAX_IMAGE_BYTES: Final = 4 * 1024 * 1024
"""The most that is read of an image; the four images of one face have about 60 kB together."""


class ExplanationRequests(Requests):
    """Requests that make and read explanations."""

    @Call
    async def explain(self, job_id: str, *, timeout_s: float | None = None) -> Explanation:
        """
        Request the explanation of a job that has succeeded; see ``wait_for_explanation``.

        Repeating it changes nothing while the explanation is pending, running or made. One that failed is tried again,
        and images that were erased before the media are made again. For a minute after a failure the service refuses
        that (``rate_limited``); the request is then repeated once it may succeed, as after every such refusal.

        Args:
            timeout_s: Seconds after which it is not repeated any more; without it, the client's number of retries alone
                limits that.

        Raises:
            APIError: The service refused, for instance as it asks for a longer pause than *timeout_s* allows.
            ConflictError: The job has not succeeded (``job_not_final``), and will not (``job_already_final``).
            NotFoundError: There is no such job of yours, or its media is not stored any more (``media_missing``).
        """
        path = job_path(job_id, "explanations")
        return parse_document(Explanation, await self._transport.call("POST", path, within_s=timeout_s))

    @Call
    async def explanation(self, job_id: str) -> Explanation:
        """
        Return the explanation of a job: its state and, once it is made, people, faces and names of images.

        Raises:
            NotFoundError: There is no such job of yours, or none was requested.
        """
        return await self._get_explanation(job_id, within_s=None)

    @Call
    async def wait_for_explanation(
        self, job_id: str, *, timeout_s: float | None = None, poll_s: float | None = None
    ) -> Explanation:
        """
        Wait until the explanation of a job is made or has failed.

        One that was requested when the job was submitted begins once the job has succeeded.

        Args:
            timeout_s: Seconds after which to give up; never by default.
            poll_s: Seconds between two requests; as many as the service asks for if not given.

        Raises:
            NotFoundError: There is no such job of yours, or no explanation: none was requested, or the job ended
                without a result.
            WaitTimeoutError: It was not made in time. It goes on.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            began = time.monotonic()
            found = await self._get_explanation(job_id, within_s=None if deadline is None else deadline - began)
            if found.is_final:
                return found
            if deadline is not None and time.monotonic() >= deadline:
                raise WaitTimeoutError(
                    f"the explanation of job {job_id} was not made within {timeout_s:g} s; it goes on"
                )
            pause_s = choose_pause(found.poll_after_s, POLL_S) if poll_s is None else poll_s
            left_s = pause_s if deadline is None else min(pause_s, deadline - began)
            await self._transport.driver.sleep(max(0.0, left_s - (time.monotonic() - began)))

    @Call
    async def explanation_image(self, job_id: str, name: str) -> bytes:
        """
        Return one image of an explanation, as WebP.

        Args:
            name: Its name, from ``Explanation.images`` or a person.

        Raises:
            NotFoundError: There is no such image, or the images were erased (``media_missing``).
            UnexpectedAnswerError: The answer is no WebP, or has more than 4 MiB.
        """
        path = job_path(job_id, "explanations", name)
        return await self._transport.read(path, media_type=IMAGE_TYPE, max_bytes=MAX_IMAGE_BYTES)

    async def _get_explanation(self, job_id: str, *, within_s: float | None) -> Explanation:
        path = job_path(job_id, "explanations")
        return parse_document(Explanation, await self._transport.call("GET", path, within_s=within_s))
