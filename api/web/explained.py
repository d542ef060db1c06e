"""Explanations on the report of a job: the values for its page, and for the page as one file."""

import base64
import uuid
from collections.abc import Callable
from typing import Any, Final

from sqlalchemy.orm import Session

from api.explanations import load_image
from api.services import Services
from shared.errors import StorageError
from shared.jobs.explanations import find_explanation
from shared.states import ExplanationStatus

KINDS: Final = ("crop", "overlay")
"""The images of the explained face that the page shows."""


def read_explained(session: Session, job_id: uuid.UUID, source_of: Callable[[str], str]) -> list[dict[str, Any]]:
    """
    Return the people of an explanation for the page of a report; none unless it is made and its images are stored.

    Args:
        source_of: Returns the address of the image with this name.
    """
    found = find_explanation(session, job_id)
    if found is None or found.status != ExplanationStatus.SUCCEEDED or found.storage_key is None:
        return []
    return [
        {
            **person,
            "sources": {kind: source_of(person["images"][kind]) for kind in KINDS},
            "thumbnails": [{**each, "source": source_of(each["image"])} for each in person["thumbnails"]],
        }
        for person in (found.result or {}).get("people", [])
    ]


def inline_explained(services: Services, session: Session, job_id: uuid.UUID) -> list[dict[str, Any]]:
    """Return what ``read_explained`` does, with the images themselves in the addresses; none if they are not there."""
    found = find_explanation(session, job_id)
    if found is None:
        return []

    def source_of(name: str) -> str:
        return f"data:image/webp;base64,{base64.b64encode(load_image(services, found, name)).decode()}"

    try:
        return read_explained(session, job_id, source_of)
    except StorageError:
        # The report is worth having without its pictures.
        return []
