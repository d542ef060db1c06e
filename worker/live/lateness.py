"""What a live source missed together with its clock, which only the times of arrival show."""

import math
from typing import Final

from worker.streams.values import Piece

LATE_S: Final = 5.0
"""Two pieces in turn that come so much later than the earliest one are late since their source missed something."""
CAUGHT_UP_S: Final = 1.0
CAUGHT_UP_SHARE: Final = 0.1
"""
A piece that is less late than the one before it by the one, or by the other of its length, is of a source that catches
up. One that sends a fifth faster than its pictures last gains a sixth of each piece.
"""
WAITED_SHARE: Final = 0.2
"""
A piece that was waited for during less than this share of its length may have been there already. Even those of a
source that sends four times as fast as its pictures last are waited for longer, where storing is quick.
"""


class Lateness:
    """
    How late the pieces of one connection are, compared with the earliest of them, by the clock.

    A source that stops for seconds together with its clock, and then goes on, shows this in no other way. One that was
    held up by the network sends what it had meanwhile, so that its next piece is less late. When a piece arrived that
    was there already, after others had been stored, nobody knows: it may have been less late than it seems, so that it
    proves that a source has caught up, and no delay.

    Args:
        late_s: See ``LATE_S``.
    """

    def __init__(self, late_s: float = LATE_S) -> None:
        self._late_s = late_s
        self._least_s = self._last_s = math.inf

    def find_missed(self, piece: Piece, *, arrived_s: float, waited_s: float) -> float:
        """
        Return how many seconds the source missed before *piece*.

        Args:
            arrived_s: When it arrived, by any clock that goes on evenly.
            waited_s: For how long it had been waited for, the reader's own work on it included.
        """
        length_s = piece.end_s - piece.start_s
        late_s, last_s = arrived_s - piece.end_s, self._last_s
        has_caught_up = late_s < last_s - min(CAUGHT_UP_S, CAUGHT_UP_SHARE * length_s)
        # It was no later than this, whenever it arrived.
        self._least_s = min(self._least_s, late_s)
        if waited_s < WAITED_SHARE * length_s:
            if has_caught_up:
                # Whatever comes late from here on is the first of two again.
                self._last_s = self._least_s
            return 0.0
        self._last_s = late_s
        if min(late_s, last_s) - self._least_s < self._late_s or has_caught_up:
            return 0.0
        missed_s, self._least_s = late_s - self._least_s, late_s
        return missed_s
