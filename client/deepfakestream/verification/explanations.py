"""
The explanation in a bundle: its images are those that it names, and its faces are those of the segments.

Heat maps are not made again, and images are not decoded: more than their headers would need libraries that the client
does without.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from deepfakestream.errors import BundleError
from deepfakestream.terminal import pluralize
from deepfakestream.verification.archive import Archive
from deepfakestream.verification.documents import read_object
from deepfakestream.verification.files import EXPLANATION, IMAGES, JOB, MAX_IMAGES, MAX_SEGMENTS, SEGMENTS
from deepfakestream.verification.webp import read_webp_size

MAX_IMAGE_BYTES: Final = 4 * 1024**2
"""Of one image. A lossless crop of 380 px has at most 0.5 MB, everything else 20 kB."""
MAX_SIDE_PX: Final = 2048
"""Larger images could fill the memory of a program that shows them."""
_NAME: Final = re.compile(r"person-(0|[1-9][0-9]{0,5})-(crop|map|overlay|thumbnail-[0-9])\.webp", re.ASCII)
_KINDS: Final = frozenset({"crop", "map", "overlay"})
"""The images of an explained face."""
_SCORES: Final = ("face_score", "explained_score", "score_without_hottest_tenth")


@dataclass(frozen=True, slots=True)
class _Face:
    """A face that the explanation shows."""

    person: int
    segment: int
    time_s: float
    box_px: list[float]
    turned_deg: int
    score: float

    def check_among(self, people: Iterable[dict[str, Any]]) -> None:
        """Raise BundleError unless one of *people* of its segment is its person and has it with its score."""
        where = f"the face of person {self.person} at {self.time_s} s that {EXPLANATION} shows"
        place = (self.time_s, self.box_px, self.turned_deg)
        scores = [
            face["fake_score"]
            for person in people
            if person["person"] == self.person
            for face in person["faces"]
            # Results of earlier releases have no turned faces.
            if (face["time_s"], face["box_px"], face.get("turned_deg", 0)) == place
        ]
        if not scores:
            raise BundleError(f"{where} is not among the faces of segment {self.segment} in {SEGMENTS}")
        if self.score not in scores:
            raise BundleError(f"{where} has the score {self.score} there, and {scores[0]} in {SEGMENTS}")


def check_explanation(archive: Archive, job: dict[str, Any], highest: Mapping[int, float] | None) -> str:
    """
    Check the explanation of a bundle: ``explanation.json`` and the images beside it.

    Args:
        job: The document of the job.
        highest: The highest score of a face of each person in the segments; None where these could not be read.

    Returns:
        A sentence that says what was found.

    Raises:
        BundleError: It contradicts itself, its images, the job or the segments.
    """
    explanation = read_object(archive.read(EXPLANATION), EXPLANATION)
    _check_job(explanation, job)
    people = explanation["people"]
    named = _check_names(explanation, people, archive.names)
    for image in explanation["images"]:
        _check_image(archive, image)
    crop_px = job["model"]["preprocessing"]["crop_size_px"]
    for person in people:
        name = IMAGES + person["images"]["crop"]
        if read_webp_size(archive.read(name, limit=MAX_IMAGE_BYTES), name) != (crop_px, crop_px):
            raise BundleError(f"{name} is not as large as the crops that the checkpoint scores ({crop_px} px)")
    _check_faces(archive, list(_read_faces(people)))
    if highest is not None and (other := [one for one in people if one["face_score"] != highest.get(one["person"])]):
        raise BundleError(f"{EXPLANATION} explains another face of person {other[0]['person']} than the highest")
    images, shown = pluralize(named, "image"), pluralize(len(people), "person", "people")
    return f"All of {images} of {shown} are there, and their faces have the same scores in {SEGMENTS}."


def _check_job(explanation: dict[str, Any], job: dict[str, Any]) -> None:
    if explanation["job_id"] != job.get("id"):
        raise BundleError(f"{EXPLANATION} is about another job than {JOB}")
    if explanation["status"] != "succeeded" or explanation["images_stored"] is not True:
        raise BundleError(f"{EXPLANATION} says that there is no explanation with images")
    if (job["explanation"] or {}).get("status") != "succeeded":
        raise BundleError(f"{JOB} says that the job has no explanation")
    if any(explanation["model"][name] != job["model"][name] for name in ("name", "version", "weights_sha256")):
        raise BundleError(f"{EXPLANATION} explains the scores of another checkpoint than {JOB} names")


def _check_names(explanation: dict[str, Any], people: list[dict[str, Any]], files: list[str]) -> int:
    """Check that images that are listed, those of people and those in the bundle are the same; return their number."""
    listed = [image["name"] for image in explanation["images"]]
    if len(listed) > MAX_IMAGES:
        raise BundleError(f"{EXPLANATION} lists {len(listed)} images; the limit is {MAX_IMAGES}")
    if strange := [name for name in listed if not isinstance(name, str) or _NAME.fullmatch(name) is None]:
        raise BundleError(f"{EXPLANATION} lists an image with the unusual name {strange[0]!r}")
    if len({person["person"] for person in people}) != len(people):
        raise BundleError(f"{EXPLANATION} has a person twice")
    shown: list[str] = []
    for person in people:
        if set(person["images"]) != _KINDS:
            raise BundleError(f"{EXPLANATION} has other images of person {person['person']} than a service makes")
        shown += [*person["images"].values(), *(each["image"] for each in person["thumbnails"])]
    if len(set(shown)) != len(shown) or len(set(listed)) != len(listed):
        raise BundleError(f"{EXPLANATION} names an image twice")
    there = {name.removeprefix(IMAGES) for name in files if name.startswith(IMAGES)}
    if missing := sorted({*listed, *shown} - there):
        raise BundleError(f"the image {missing[0]} that {EXPLANATION} names is missing")
    if extra := sorted(there - set(listed)):
        raise BundleError(f"the image {extra[0]} is not among those that {EXPLANATION} lists")
    if unused := sorted(set(listed) - set(shown)):
        raise BundleError(f"the image {unused[0]} belongs to no face in {EXPLANATION}")
    return len(listed)


def _check_image(archive: Archive, listed: dict[str, Any]) -> None:
    name = f"{IMAGES}{listed['name']}"
    data = archive.read(name, limit=MAX_IMAGE_BYTES)
    if (len(data), hashlib.sha256(data).hexdigest()) != (listed["size_bytes"], listed["sha256"]):
        raise BundleError(f"{name} is not the image whose size and SHA-256 {EXPLANATION} lists")
    across, down = read_webp_size(data, name)
    if not (1 <= across <= MAX_SIDE_PX and 1 <= down <= MAX_SIDE_PX):
        raise BundleError(f"{name} has {across} x {down} pixels; between 1 and {MAX_SIDE_PX} a side are expected")


def _read_faces(people: list[dict[str, Any]]) -> Iterator[_Face]:
    for person in people:
        scores = [*(person[name] for name in _SCORES), *(each["fake_score"] for each in person["thumbnails"])]
        if not all(0.0 <= score <= 1.0 for score in scores) or not isinstance(person["explains"], bool):
            raise BundleError(f"{EXPLANATION} has a score of person {person['person']} that is none")
        shown = [(person, person["face_score"]), *((each, each["fake_score"]) for each in person["thumbnails"])]
        for face, score in shown:
            place = (face["segment"], face["time_s"], face["box_px"], face["turned_deg"])
            yield _Face(person["person"], *place, score)


def _check_faces(archive: Archive, faces: list[_Face]) -> None:
    """Hold each face against its segment, of which only those with such faces are read."""
    left: dict[int, list[_Face]] = {}
    for face in faces:
        left.setdefault(face.segment, []).append(face)
    for index, line in enumerate(archive.lines(SEGMENTS, limit=MAX_SEGMENTS)):
        if found := left.pop(index, None):
            people = read_object(line, f"segment {index} of {SEGMENTS}")["people"]
            for face in found:
                face.check_among(people)
    if left:
        raise BundleError(f"{EXPLANATION} shows a face of segment {next(iter(left))}, which {SEGMENTS} does not have")
