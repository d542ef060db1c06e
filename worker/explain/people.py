"""
Explaining the people of a medium that was scored: the highest face of each, and faces of it over time.

The command and the service share it. Only the segments with the chosen faces are decoded again.
"""

import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from shared.containers import MediaLimits
from shared.errors import DecodeError, DecodeTimeoutError, JobCancelledError, MediaError
from shared.manifests import Manifest, Preprocessing
from worker.explain.choosing import ChosenFace, ChosenPerson
from worker.explain.faces import cut_face
from worker.explain.maps import Explainer, HeatMap
from worker.explain.rendering import Picture, colour_map, encode_lossless, encode_webp, overlay, shrink
from worker.media.decoding import Frame
from worker.media.frames import read_segments
from worker.media.probe import MediaFacts
from worker.media.process import CancelToken
from worker.media.segments import Segment

DECODE_SHARE: Final = 2 / 3
"""The share of the time for an explanation after which decoding ends, so that there is time left for the maps."""
THUMBNAIL_PX: Final = 112
MIN_FALL: Final = 0.1
"""The share of its score that a face must lose without the hottest tenth of its crop for the map to explain anything.
It is a choice. Of 100 fakes of DFDC 81 lose as much, and of 100 real faces 75, so it says nothing about the verdict.
JPEG at quality 95 alone moves the score of a real face by 13 % in the median, and of a fake by 1 %."""
NOTE: Final = (
    "A map shows which parts of the crop raised this checkpoint's score, relative to the hottest place of the same"
    " crop. It does not show where a face was changed, and a real face has a map as well."
)


class ExplanationTimeoutError(DecodeTimeoutError):
    """Not one face could be decoded in the time for an explanation, and another attempt would take as long."""

    retryable = False


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
    budget_s: float | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Explained:
    """
    Explain the highest face of each chosen person, and show faces of it over time.

    When *budget_s* is spent, people whose face was not decoded or not explained yet are left out, and thumbnails too.

    Args:
        path: The file that was scored.
        facts: Those of its probe.
        plan: Its segments by index; only those with chosen faces are needed.
        chosen: People and faces, as ``FaceChoice`` chooses them.
        explainer: Of the checkpoint that has scored the faces.
        sample_fps: As for scoring, so that the same frames are decoded.
        timeout_s: Wall-clock limit of decoding one segment.
        limits: Limits of the video in a motion photo.
        budget_s: Wall-clock time for all of it, which only the last map may exceed; no limit by default. Decoders are
            ended after ``DECODE_SHARE`` of it.
        should_stop: Called between frames and between people.

    Raises:
        JobCancelledError: *should_stop* returned True.
        ExplanationTimeoutError: No person could be explained within *budget_s*.
        ModelError: The network gave something that is not a number.
        DecodeError, DecodeTimeoutError, MediaError: The file cannot be decoded as it was for scoring.
    """
    until = math.inf if budget_s is None else time.monotonic() + budget_s
    faces = [face for person in chosen for face in (person.highest, *person.thumbnails)]
    # The highest faces come first, in case the time does not suffice for all. Neighbours share a decoder.
    first = list(dict.fromkeys(person.highest.segment for person in chosen))
    order = [*first, *sorted({face.segment for face in faces} - {*first})]
    token = CancelToken()
    frames = read_segments(
        path,
        facts,
        [plan[index] for index in order],
        sample_fps=sample_fps,
        timeout_s=timeout_s,
        cancel_token=token,
        limits=limits,
    )
    with _cancelled_after(token, None if budget_s is None else DECODE_SHARE * budget_s), closing(frames):
        crops = cut_faces(frames, faces, order, explainer.manifest.preprocessing, token, should_stop)
    people: list[dict[str, Any]] = []
    images: dict[str, bytes] = {}
    for person in chosen:
        _check(should_stop)
        if person.highest in crops and time.monotonic() < until:
            [heat] = explainer.explain_faces([crops[person.highest]])
            people.append(_explain(person, crops, heat, images))
    if chosen and not people:
        raise ExplanationTimeoutError("no face could be decoded and explained in the time for one explanation")
    return Explained(people, images)


@contextmanager
def _cancelled_after(token: CancelToken, seconds: float | None) -> Iterator[None]:
    """Cancel *token* unless the block ends within *seconds*."""
    if seconds is None:
        yield
        return
    timer = threading.Timer(seconds, token.cancel)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _check(should_stop: Callable[[], bool]) -> None:
    if should_stop():
        raise JobCancelledError("the lease was lost, or the job was erased")


def cut_faces(
    frames: Iterator[Frame | None],
    faces: Iterable[ChosenFace],
    order: Sequence[int],
    preprocessing: Preprocessing,
    token: CancelToken,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[ChosenFace, Picture]:
    """
    Cut each face from the frame that is nearest to its time; no more than two frames are in memory.

    Args:
        frames: Those of the segments, with None after those of each.
        order: The indices of the segments.
        token: Ends the decoder; the faces that were not cut before are left out then.

    Raises:
        DecodeError, DecodeTimeoutError, MediaError: The frames cannot be decoded.
        JobCancelledError: *should_stop* returned True.
    """
    crops: dict[ChosenFace, Picture] = {}
    by_segment: dict[int, set[ChosenFace]] = {}
    for face in faces:
        by_segment.setdefault(face.segment, set()).add(face)
    try:
        for index in order:
            waiting = sorted(by_segment[index], key=lambda chosen: chosen.face.time_s)
            _cut_segment(frames, waiting, crops, preprocessing, token, should_stop)
            if token.is_cancelled:
                break
    except (DecodeError, MediaError):
        # A decoder that was ended leaves damaged or no output.
        if not token.is_cancelled:
            raise
    return crops


def _cut_segment(
    frames: Iterator[Frame | None],
    waiting: list[ChosenFace],
    crops: dict[ChosenFace, Picture],
    preprocessing: Preprocessing,
    token: CancelToken,
    should_stop: Callable[[], bool],
) -> None:
    """Cut the faces *waiting*, in order of time, from the frames up to the next None."""
    previous: Frame | None = None
    for frame in iter(lambda: next(frames), None):
        _check(should_stop)
        while waiting and frame.time_s >= waiting[0].face.time_s:
            face = waiting.pop(0)
            is_nearer = previous is None or frame.time_s - face.face.time_s < face.face.time_s - previous.time_s
            crops[face] = cut_face(frame if is_nearer or previous is None else previous, face.face, preprocessing)
        previous = frame
    if token.is_cancelled:
        # The frames of these faces may be among those that were not decoded.
        return
    if waiting and previous is None:
        raise DecodeError("frames that were scored could not be decoded again")
    for face in waiting:
        if previous is not None:
            crops[face] = cut_face(previous, face.face, preprocessing)


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
    for number, chosen in enumerate(face for face in person.thumbnails if face in crops):
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
