"""
Explaining the people of a medium that was scored: the highest face of each, and faces of it over time.

The command and the service share it. Only the segments with the chosen faces are decoded again.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from shared.containers import MediaLimits
from shared.errors import DecodeError, JobCancelledError
from shared.manifests import Manifest, Preprocessing
from worker.explain.faces import cut_face
from worker.explain.maps import Explainer, HeatMap
from worker.explain.rendering import Picture, colour_map, encode_lossless, encode_webp, overlay, shrink
from worker.media.decoding import Frame
from worker.media.frames import read_segments
from worker.media.probe import MediaFacts
from worker.media.segments import Segment
from worker.pipeline.results import FaceResult, PersonResult

PEOPLE: Final = 10
"""The most people that are explained, the most suspicious ones."""
THUMBNAILS: Final = 6
"""The most faces of a person that are shown over time."""
MAX_SEGMENTS: Final = 30
"""The most segments that are decoded again. Each person's highest face comes first; thumbnails that would need further
segments are left out."""
THUMBNAIL_PX: Final = 112
MIN_FALL: Final = 0.1
"""The share of its score that a face must lose without the hottest tenth of its crop for the map to explain anything.
It is a choice, and a low one: scores of crops vary by less than that when the same face is encoded again."""
NOTE: Final = (
    "A map shows which parts of the crop raised this checkpoint's score, relative to the hottest place of the same"
    " crop. It does not show where a face was changed, and a real face has a map as well."
)


@dataclass(frozen=True, slots=True)
class ChosenFace:
    """A scored face, and the index of its segment."""

    segment: int
    face: FaceResult

    @property
    def score(self) -> float:
        """The score of the face."""
        return self.face.fake_score or 0.0


@dataclass(frozen=True, slots=True)
class ChosenPerson:
    """A person with the faces to be shown."""

    person: int
    highest: ChosenFace
    """The face with the highest score; of equal ones the first."""
    thumbnails: tuple[ChosenFace, ...]
    """In order of time."""


@dataclass(slots=True)
class FaceChoice:
    """Collects scored faces segment by segment, and keeps a few of each person."""

    _highest: dict[int, ChosenFace] = field(default_factory=dict)
    _candidates: dict[int, list[ChosenFace]] = field(default_factory=dict)

    def add(self, segment: int, people: Iterable[Mapping[str, Any]]) -> None:
        """
        Add the faces of the next segment.

        Args:
            segment: Its index.
            people: As the segment's result holds them.
        """
        for data in people:
            person = PersonResult.from_json(dict(data))
            scored = [ChosenFace(segment, face) for face in person.faces if face.fake_score is not None]
            if not scored:
                continue
            known = self._highest.get(person.person)
            top = max(scored, key=lambda chosen: chosen.score)
            if known is None or top.score > known.score:
                self._highest[person.person] = top
            # A few of each segment are enough, so that memory does not grow with the rate of sampling.
            self._candidates.setdefault(person.person, []).extend(_spread(scored, THUMBNAILS))

    def choose(self, people: int = PEOPLE) -> list[ChosenPerson]:
        """Return at most *people* people, by the scores of their highest faces, highest first."""
        ranked = sorted(self._highest, key=lambda person: (-self._highest[person].score, person))[:people]
        segments = {self._highest[person].segment for person in ranked}
        kept: dict[int, list[ChosenFace]] = {person: [] for person in ranked}
        wanted = {person: _spread_in_time(self._candidates[person], THUMBNAILS) for person in ranked}
        for place in range(THUMBNAILS):
            for person in ranked:
                if place < len(wanted[person]):
                    chosen = wanted[person][place]
                    if chosen.segment in segments or len(segments) < MAX_SEGMENTS:
                        segments.add(chosen.segment)
                        kept[person].append(chosen)
        return [
            ChosenPerson(person, self._highest[person], tuple(sorted(kept[person], key=lambda one: one.face.time_s)))
            for person in ranked
        ]


def _spread(faces: Sequence[ChosenFace], count: int) -> list[ChosenFace]:
    """Return at most *count* of *faces*, evenly spaced by their number."""
    if len(faces) <= count:
        return list(faces)
    return [faces[round(place * (len(faces) - 1) / (count - 1))] for place in range(count)]


def _spread_in_time(faces: Sequence[ChosenFace], count: int) -> list[ChosenFace]:
    """Return at most *count* of *faces*, evenly spaced in time."""
    left = sorted(faces, key=lambda chosen: chosen.face.time_s)
    if len(left) <= count:
        return left
    first_s, last_s = left[0].face.time_s, left[-1].face.time_s
    found = []
    for place in range(count):
        time_s = first_s + place * (last_s - first_s) / (count - 1)
        nearest = min(left, key=lambda chosen: abs(chosen.face.time_s - time_s))
        left.remove(nearest)
        found.append(nearest)
    return found


@dataclass(frozen=True, slots=True)
class Explained:
    """The explanation of a medium."""

    people: list[dict[str, Any]]
    """Plain values, most suspicious person first; see docs/explanations.md."""
    images: dict[str, bytes]
    """WebP by name. Crops are lossless: they are what the network saw."""

    def to_json(self, manifest: Manifest) -> dict[str, Any]:
        """Return the explanation without its images as plain values."""
        model = {"name": manifest.name, "version": manifest.version, "weights_sha256": manifest.weights.sha256}
        return {"note": NOTE, "model": model, "people": self.people}


def explain_people(
    path: Path,
    facts: MediaFacts,
    plan: Mapping[int, Segment],
    chosen: Sequence[ChosenPerson],
    explainer: Explainer,
    *,
    sample_fps: float,
    timeout_s: float,
    limits: MediaLimits,
    should_stop: Callable[[], bool] = lambda: False,
) -> Explained:
    """
    Explain the highest face of each chosen person, and show faces of it over time.

    Args:
        path: The file that was scored.
        facts: Those of its probe.
        plan: Its segments by index; only those with chosen faces are needed.
        chosen: People and faces, as ``FaceChoice`` chooses them.
        explainer: Of the checkpoint that has scored the faces.
        sample_fps: As for scoring, so that the same frames are decoded.
        timeout_s: Wall-clock limit of decoding one segment.
        limits: Limits of the video in a motion photo.
        should_stop: Called between frames and between people.

    Raises:
        JobCancelledError: *should_stop* returned True.
        ModelError: The network gave something that is not a number.
        DecodeError, DecodeTimeoutError, MediaError: The file cannot be decoded as it was for scoring.
    """
    faces = [face for person in chosen for face in (person.highest, *person.thumbnails)]
    frames = read_segments(
        path,
        facts,
        [plan[index] for index in sorted({face.segment for face in faces})],
        sample_fps=sample_fps,
        timeout_s=timeout_s,
        limits=limits,
    )
    with closing(frames):
        crops = _cut_faces(frames, faces, explainer.manifest.preprocessing, should_stop)
    people: list[dict[str, Any]] = []
    images: dict[str, bytes] = {}
    for person in chosen:
        _check(should_stop)
        [heat] = explainer.explain_faces([crops[person.highest]])
        people.append(_explain(person, crops, heat, images))
    return Explained(people, images)


def _check(should_stop: Callable[[], bool]) -> None:
    if should_stop():
        raise JobCancelledError("the lease was lost, or the job was erased")


def _cut_faces(
    frames: Iterator[Frame | None],
    faces: Iterable[ChosenFace],
    preprocessing: Preprocessing,
    should_stop: Callable[[], bool],
) -> dict[ChosenFace, Picture]:
    """Cut each face from the frame that is nearest to its time; no more than two frames are in memory."""
    crops: dict[ChosenFace, Picture] = {}
    by_segment: dict[int, set[ChosenFace]] = {}
    for face in faces:
        by_segment.setdefault(face.segment, set()).add(face)
    for index in sorted(by_segment):
        waiting = sorted(by_segment[index], key=lambda chosen: chosen.face.time_s)
        previous: Frame | None = None
        for frame in iter(lambda: next(frames), None):
            _check(should_stop)
            while waiting and frame.time_s >= waiting[0].face.time_s:
                face = waiting.pop(0)
                is_nearer = previous is None or frame.time_s - face.face.time_s < face.face.time_s - previous.time_s
                crops[face] = cut_face(frame if is_nearer or previous is None else previous, face.face, preprocessing)
            previous = frame
        if waiting and previous is None:
            raise DecodeError("frames that were scored could not be decoded again")
        for face in waiting:
            if previous is not None:
                crops[face] = cut_face(previous, face.face, preprocessing)
    return crops


def _explain(
    person: ChosenPerson, crops: Mapping[ChosenFace, Picture], heat: HeatMap, images: dict[str, bytes]
) -> dict[str, Any]:
    """Return the values of one person, and add its pictures to *images*."""
    crop, names = crops[person.highest], {}
    for kind, data in {
        "crop": encode_lossless(crop),
        "map": encode_webp(colour_map(heat.values)),
        "overlay": encode_webp(overlay(crop, heat.values)),
    }.items():
        names[kind] = f"person-{person.person}-{kind}.webp"
        images[names[kind]] = data
    thumbnails = []
    for number, chosen in enumerate(person.thumbnails):
        name = f"person-{person.person}-thumbnail-{number}.webp"
        images[name] = encode_webp(shrink(crops[chosen], THUMBNAIL_PX))
        thumbnails.append({**_place(chosen), "fake_score": chosen.face.fake_score, "image": name})
    fall = heat.fake_score - heat.fake_score_hidden
    return {
        "person": person.person,
        "face_score": person.highest.face.fake_score,
        **_place(person.highest),
        "explained_score": heat.fake_score,
        "score_without_hottest_tenth": heat.fake_score_hidden,
        "explains": fall >= MIN_FALL * heat.fake_score and fall > 0.0,
        "images": names,
        "thumbnails": thumbnails,
    }


def _place(chosen: ChosenFace) -> dict[str, Any]:
    face = chosen.face
    return {
        "segment": chosen.segment,
        "time_s": face.time_s,
        "box_px": list(face.box_px),
        "turned_deg": face.turned_deg,
    }
