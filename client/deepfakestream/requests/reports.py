"""Requests about what is handed on of a job: its review, report, links to the report, and evidence."""

from pathlib import Path
from typing import Any, Final

from deepfakestream.calls import Call
from deepfakestream.errors import unexpected_answer_error
from deepfakestream.pages import read_items
from deepfakestream.requests.base import Requests, job_path, parse_document
from deepfakestream.results import Review, Share
from deepfakestream.retries import RetrySafety

REPORT_TYPES: Final = {".html": "text/html; charset=utf-8", ".pdf": "application/pdf"}
"""Ending of a report's file → its media type."""


class ReportRequests(Requests):
    """Requests about reviews, reports, links to them, and evidence."""

    @Call
    async def review(self, job_id: str, finding: str, note: str | None = None) -> Review:
        """
        Record what a person found, in place of an earlier finding.

        Args:
            finding: ``confirmed_fake``, ``confirmed_real`` or ``disputed``.

        Raises:
            ConflictError: The job has not ended.
        """
        body = {"finding": finding, **({} if note is None else {"note": note})}
        return parse_document(Review, await self._transport.call("PUT", job_path(job_id, "review"), json=body))

    @Call
    async def withdraw_review(self, job_id: str) -> None:
        """Withdraw the finding of a person, if there is one."""
        await self._transport.call("DELETE", job_path(job_id, "review"), has_answer=False)

    @Call
    async def report(self, job_id: str, path: str | Path) -> Path:
        """
        Download the report of a job as one file that needs nothing else, without the media.

        Args:
            path: The file to write, ``….html`` or ``….pdf``. An existing file is replaced once the report has arrived
                whole.

        Returns:
            *path*.

        Raises:
            ValueError: The name ends otherwise.
            OSError: The file cannot be written.
        """
        suffix = Path(path).suffix.lower()
        if suffix not in REPORT_TYPES:
            raise ValueError(f"a report is written as .html or .pdf, and not as {suffix or 'a file without an ending'}")
        return await self._download(job_path(job_id, f"report{suffix}"), Path(path), REPORT_TYPES[suffix])

    @Call
    async def share(self, job_id: str, *, valid_s: int | None = None) -> Share:
        """
        Make a link by which people without an API key see the report of a job.

        Args:
            valid_s: Seconds for which it works; the service's default, a week, if not given.
        """
        body = {} if valid_s is None else {"valid_s": valid_s}
        # Sent twice, it makes a second link, which nobody knows and which expires.
        return parse_document(Share, await self._transport.call("POST", job_path(job_id, "shares"), json=body))

    @Call
    async def shares(self, job_id: str) -> tuple[Share, ...]:
        """Return the links to the report of a job that work, newest first, without their addresses."""
        body = await self._transport.call("GET", job_path(job_id, "shares"))
        return tuple(parse_document(Share, item) for item in read_items(body))

    @Call
    async def revoke_share(self, job_id: str, share_id: str) -> None:
        """Revoke a link: it shows nothing from now on."""
        path = job_path(job_id, "shares", share_id)
        await self._transport.call("DELETE", path, safety=RetrySafety.DELETION, has_answer=False)

    @Call
    async def evidence(self, job_id: str, path: str | Path) -> Path:
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
        return await self._download(job_path(job_id, "evidence.zip"), Path(path), "application/zip")

    @Call
    async def evidence_key(self) -> dict[str, Any]:
        """
        Return the public key that signs evidence bundles, as the API describes it: ``id``, ``public_key``, ``retired``.

        Raises:
            ConflictError: The service has none.
        """
        document = await self._transport.call("GET", "/v1/evidence-key")
        if not isinstance(document, dict) or not isinstance(document.get("public_key"), str):
            raise unexpected_answer_error(200, "it is no document of a key")
        return document
