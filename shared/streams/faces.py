"""
Pictures of the newest face of each person at present, for those who follow a live stream that asks for them.

The worker that scores a segment stores them with the people's numbers within it; the reader gives them their numbers in
the stream, and erases those that are not the newest or whose person has gone. The database erases all of them when the
stream ends or is erased (migration 0019).
"""

import uuid
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from shared.models import Stream, StreamFace

MAX_FACES: Final = 20
"""The most pictures of a stream."""


def keeps_last_faces(session: Session, job_id: uuid.UUID) -> bool:
    """Return whether the job is a stream that keeps pictures of faces while it runs."""
    wanted = select(Stream.last_faces).where(Stream.job_id == job_id, Stream.ended_at.is_(None))
    return bool(session.scalar(wanted))


def record_faces(session: Session, job_id: uuid.UUID, index: int, faces: Sequence[tuple[int, float, bytes]]) -> None:
    """
    Store the newest faces of a segment that has just been recorded; its job is locked.

    Args:
        faces: Number of the person within the segment, time and JPEG of each.
    """
    for within, time_s, jpeg in faces:
        session.add(StreamFace(job_id=job_id, index=index, within=within, time_s=round(time_s, 4), jpeg=jpeg))


def name_faces(
    session: Session, job_id: uuid.UUID, numbers: Mapping[int, Mapping[int, int]], present: Collection[int]
) -> dict[int, float]:
    """
    Give the faces of segments that have been judged the numbers of their people, and erase what is not to be kept.

    The job must be locked.

    Args:
        numbers: Of each segment that was judged, by index: the number in the stream by the number within the segment.
        present: The numbers of the people at present.

    Returns:
        The time of the newest face by the number of its person.
    """
    query = select(StreamFace.index, StreamFace.within, StreamFace.person, StreamFace.time_s)
    rows = session.execute(query.where(StreamFace.job_id == job_id)).all()
    newest: dict[int, tuple[float, int, int]] = {}
    for index, within, number, time_s in rows:
        person = number if number is not None else numbers.get(index, {}).get(within)
        if person in present and person is not None:
            newest[person] = max(newest.get(person, (-1.0, 0, 0)), (time_s, index, within))
    kept = dict(sorted(newest.items(), key=lambda item: item[1], reverse=True)[:MAX_FACES])
    places = {(index, within): person for person, (_, index, within) in kept.items()}
    last = max(numbers, default=-1)
    for index, within, number, _ in rows:
        place = StreamFace.job_id == job_id, StreamFace.index == index, StreamFace.within == within
        named = places.get((index, within))
        if named is None and (number is not None or index <= last):
            session.execute(delete(StreamFace).where(*place))
        elif named is not None and number is None:
            session.execute(update(StreamFace).where(*place).values(person=named))
    return {person: time_s for person, (time_s, _, _) in kept.items()}


def find_face(session: Session, job_id: uuid.UUID, person: int) -> bytes | None:
    """Return the picture of the newest face of a person as a JPEG; None if there is none."""
    return session.scalar(select(StreamFace.jpeg).where(StreamFace.job_id == job_id, StreamFace.person == person))
