"""Explanations on the report of a job: the values for its page, for the page as one file, and for the PDF."""

import base64
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

from api.explanations import IMAGE_TYPE
from api.services import Services
from api.web.faces import MAX_PEOPLE, MAX_THUMBNAILS, Faces
from shared.errors import StorageError
from shared.jobs.explanations import read_images
from shared.models import Explanation
from shared.states import ExplanationStatus

KINDS: Final = ("crop", "overlay")
"""The images of the explained face that reports show."""


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
    images = _read_images(services, found, None)
    if not images:
        return []
    return describe_explained(found, lambda name: f"data:{IMAGE_TYPE};base64,{base64.b64encode(images[name]).decode()}")


def choose_faces(services: Services, found: Explanation | None) -> Faces:
    """
    Return the ``MAX_PEOPLE`` most suspicious people with ``MAX_THUMBNAILS`` faces each, spread over all of theirs.

    Returns:
        No people if there is no explanation, or its images are gone.
    """
    people = describe_explained(found, lambda name: name)
    kept = [{**person, "thumbnails": _spread(person["thumbnails"])} for person in people[:MAX_PEOPLE]]
    names = {name for person in kept for name in person["sources"].values()}
    names |= {each["source"] for person in kept for each in person["thumbnails"]}
    images = _read_images(services, found, names)
    if not images:
        return Faces()
    before = sum(len(person["thumbnails"]) for person in people[:MAX_PEOPLE])
    after = sum(len(person["thumbnails"]) for person in kept)
    return Faces(kept, images, len(people) - len(kept), before - after)


def _spread(thumbnails: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    last = len(thumbnails) - 1
    if last < MAX_THUMBNAILS:
        return list(thumbnails)
    return [thumbnails[round(place * last / (MAX_THUMBNAILS - 1))] for place in range(MAX_THUMBNAILS)]


def _read_images(services: Services, found: Explanation | None, names: Collection[str] | None) -> dict[str, bytes]:
    """Return images of an explanation by their names, all if *names* is None; none if they are gone."""
    places = {} if found is None else (found.result or {}).get("images", {})
    if found is None or found.storage_key is None:
        return {}
    try:
        # In order, so that the same explanation gives the same bytes of a report.
        wanted = places if names is None else {name: places[name] for name in sorted(names)}
        return read_images(services.storage, found.storage_key, wanted)
    except StorageError:
        # The report is worth having without its pictures.
        return {}
