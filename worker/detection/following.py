"""
Search of a segment's frames for faces: some frames as a whole, those between only near the faces of their neighbours.

A face that is visible in a wholly searched frame is also found in the frames before and after it. Only a face that
appears and vanishes between two of them can be missed, within ``interval`` sampled frames.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from worker.detection.faces import Box
from worker.detection.mtcnn import MTCNN
from worker.detection.orientation import (
    OrientationTracker,
    OrientedFrame,
    Picture,
    determine_orientations,
    turn,
)

THUMBNAIL_PX: Final = 16
MIN_CUT_CHANGE: Final = 30.0
"""Mean change of a thumbnail's grey levels from which a frame begins another scene."""
MAX_FOLLOWED_PIXELS: Final = 3840 * 2160
"""Larger frames are all searched as a whole, so that only one of them is in memory at a time."""


@dataclass(frozen=True, slots=True)
class _Known:
    """A frame that was searched as a whole."""

    frame: OrientedFrame
    thumbnail: NDArray[np.float32]
    shape: tuple[int, ...]
    """Shape of the frame before it was turned."""

    @property
    def can_lead(self) -> bool:
        """Whether its neighbours can be searched near its faces."""
        return self.frame.has_upright or not self.frame.faces

    @property
    def places(self) -> list[Box]:
        """The boxes of its faces, in the turned frame."""
        return [item.face.box_px for item in self.frame.faces]


class FaceSearch:
    """
    Detector of the faces in the frames of one segment.

    Args:
        min_confidence: Lowest confidence of the faces to keep.
        interval: Every how many frames a whole frame is searched; 1 for all.
    """

    def __init__(self, mtcnn: MTCNN, min_confidence: float, interval: int) -> None:
        self._mtcnn, self._min_confidence, self._interval = mtcnn, min_confidence, interval
        self._tracker = OrientationTracker(mtcnn, min_confidence)
        self._last: _Known | None = None
        self.whole = 0
        """Number of frames that were searched as a whole."""

    def detect(self, pictures: Sequence[Picture], batch: int) -> list[OrientedFrame]:
        """
        Detect the faces of the next frames.

        Args:
            pictures: (H, W, 3) uint8 RGB each, of one size. The last one is searched as a whole.
            batch: How many of them may be searched as a whole at a time.
        """
        if self._interval == 1 or not can_follow(pictures[0]):
            return self._detect_whole(pictures, batch)
        if self._last is not None and self._last.shape != pictures[0].shape:
            self._last = None
        thumbnails = [_make_thumbnail(picture) for picture in pictures]
        planned = self._plan(len(pictures))
        found: dict[int, OrientedFrame] = dict(
            zip(planned, self._detect_whole([pictures[row] for row in planned], batch), strict=True)
        )
        known = {row: _Known(frame, thumbnails[row], pictures[row].shape) for row, frame in found.items()}
        near: dict[int, list[_Known]] = {}
        for row in range(len(pictures)):
            if row not in found:
                leads = self._find_leads(row, known, thumbnails)
                if leads:
                    near[row] = leads
        found |= self._detect_near(pictures, near)
        missed = [row for row in range(len(pictures)) if row not in found]
        found |= dict(zip(missed, self._detect_whole([pictures[row] for row in missed], batch), strict=True))
        self._last = known[len(pictures) - 1]
        return [found[row] for row in range(len(pictures))]

    def _plan(self, count: int) -> list[int]:
        """Return the rows of the frames to search as a whole: at intervals, and the last one."""
        first = 0 if self._last is None else self._interval - 1
        return sorted({*range(first, count, self._interval), count - 1})

    def _find_leads(
        self, row: int, known: dict[int, _Known], thumbnails: Sequence[NDArray[np.float32]]
    ) -> list[_Known]:
        """Return the wholly searched neighbours of the same scene, if frame *row* can be searched near their faces."""
        before = max((place for place in known if place < row), default=-1)
        after = min(place for place in known if place > row)
        earlier = known.get(before, self._last)
        chain = [*([] if earlier is None else [earlier.thumbnail]), *thumbnails[before + 1 : after + 1]]
        cuts = [bool(np.abs(one - other).mean() >= MIN_CUT_CHANGE) for one, other in zip(chain, chain[1:], strict=False)]
        own = row - before
        leads = []
        if earlier is not None and not any(cuts[:own]):
            leads.append(earlier)
        if not any(cuts[own:]):
            leads.append(known[after])
        if not all(lead.can_lead for lead in leads):
            return []
        with_faces = [lead for lead in leads if lead.frame.faces]
        return leads if len({lead.frame.quarter_turns for lead in with_faces}) <= 1 else []

    def _detect_near(self, pictures: Sequence[Picture], near: dict[int, list[_Known]]) -> dict[int, OrientedFrame]:
        """Search frames near the faces of their neighbours; leave out those where fewer faces are found than there."""
        found: dict[int, OrientedFrame] = {}
        by_turn: dict[int, list[int]] = {}
        for row, leads in near.items():
            turns = [lead.frame.quarter_turns for lead in leads if lead.frame.faces]
            if turns:
                by_turn.setdefault(turns[0], []).append(row)
            else:
                found[row] = OrientedFrame(leads[0].frame.quarter_turns, pictures[row], [])
        for quarter_turns, rows in by_turn.items():
            turned = [turn(pictures[row], quarter_turns) for row in rows]
            places = [[box for lead in near[row] for box in lead.places] for row in rows]
            faces = determine_orientations(
                self._mtcnn, turned, self._mtcnn.detect_near(turned, places), self._min_confidence
            )
            for row, picture, items in zip(rows, turned, faces, strict=True):
                frame = OrientedFrame(quarter_turns, picture, items)
                if frame.has_upright and len(items) >= max(len(lead.frame.faces) for lead in near[row]):
                    found[row] = frame
        return found

    def _detect_whole(self, pictures: Sequence[Picture], batch: int) -> list[OrientedFrame]:
        self.whole += len(pictures)
        found: list[OrientedFrame] = []
        for start in range(0, len(pictures), batch):
            found += self._tracker.detect(pictures[start : start + batch])
        return found


def can_follow(picture: Picture) -> bool:
    """Whether frames like *picture* can be searched near known faces; very large ones are searched as a whole."""
    return picture.shape[0] * picture.shape[1] <= MAX_FOLLOWED_PIXELS


def _make_thumbnail(picture: Picture) -> NDArray[np.float32]:
    """Return a tiny picture in grey levels, (16, 16); every few pixels are looked at."""
    step = max(1, min(picture.shape[:2]) // (4 * THUMBNAIL_PX))
    small = cv2.resize(
        np.ascontiguousarray(picture[::step, ::step, 1]), (THUMBNAIL_PX, THUMBNAIL_PX), interpolation=cv2.INTER_AREA
    )
    return np.asarray(small, np.float32)
