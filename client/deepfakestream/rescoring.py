"""Scoring the stored media of all jobs again, after a change of checkpoint."""

from collections.abc import Callable

from deepfakestream.client import Client
from deepfakestream.errors import NotFoundError
from deepfakestream.results import Job

Rescored = Callable[[Job, Job], None]
"""Called with a job and with the one that scores its media again."""
Gone = Callable[[Job, NotFoundError], None]
"""Called with a job that was erased, or whose media was, before it could be scored again."""


def select_outdated_jobs(client: Client, model: str) -> list[Job]:
    """
    Return the jobs to score again with the checkpoint *model*: of each media the newest that has succeeded.

    Media is left out if it is not stored any more, or if a job of that checkpoint has succeeded with it or is open.
    """
    newest: dict[str, Job] = {}
    is_done: set[str] = set()
    for job in client.list():
        media = job.raw.get("media") or {}
        sha256 = media.get("sha256")
        if sha256 is None or not media.get("stored"):
            continue
        if (job.raw.get("options") or {}).get("model") == model and job.status not in {"failed", "cancelled"}:
            is_done.add(sha256)
        elif job.status == "succeeded":
            newest.setdefault(sha256, job)
    return [job for sha256, job in newest.items() if sha256 not in is_done]


def rescore_jobs(client: Client, jobs: list[Job], model: str, on_rescored: Rescored, on_gone: Gone) -> None:
    """
    Score the media of *jobs* again with the checkpoint *model*, oldest first, and wait for each.

    One is open at a time, so that a service that limits open jobs takes them all, and new uploads do not queue behind
    them. ``select_outdated_jobs`` and this again take up where this one ended, and try again what has failed.
    """
    for job in reversed(jobs):
        try:
            made = client.rescore(job.id, model=model)
            after = client.wait(made.id)
        except NotFoundError as error:
            # Erased, or its media has expired, since it was selected.
            on_gone(job, error)
        else:
            on_rescored(job, after)
