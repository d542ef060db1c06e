"""Explanations on the report of a job: the values for its page, and for the page as one file."""

import base64
from collections.abc import Callable
from typing import Any, Final

from api.explanations import IMAGE_TYPE
from api.services import Services
from shared.errors import StorageError
from shared.jobs.explanations import read_images
from shared.models import Explanation
from shared.states import ExplanationStatus

KINDS: Final = ("crop", "overlay")
"""The images of the explained face that the page shows."""


def describe_explained(found: Explanation | None, source_of: Callable[[str], str]) -> list[dict[str, Any]]:
    """
    Return the people of an explanation for the page of a report; none unless it is made and its images are stored.

    Args:
        found: The explanation with its result; None if none was requested.
        source_of: Returns the address of the image with this name.
    """
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


def inline_explained(services: Services, found: Explanation | None) -> list[dict[str, Any]]:
    """Return what ``describe_explained`` does, with the images themselves in the addresses; none if they are gone."""
    if found is None or found.storage_key is None:
        return []
    try:
        images = read_images(services.storage, found.storage_key, (found.result or {}).get("images", {}))
    except StorageError:
        # The report is worth having without its pictures.
        return []
    return describe_explained(found, lambda name: f"data:{IMAGE_TYPE};base64,{base64.b64encode(images[name]).decode()}")
