"""The cutting of a live stream into pieces that can be decoded on their own."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

from shared.errors import TooLargeError, TooManyPixelsError, UnsupportedMediaError
from worker.streams.matroska import Packet, Track, write_file
from worker.streams.parameters import Parameters, is_of_other_codec, read_parameters
from worker.streams.values import Piece, StreamLimits

JUMP_MS: Final = 50_000
"""
Change of time between two packets, in either direction, that is a jump of the clock. It is half of the gap that
``worker.streams.commands`` puts in place of every jump, and more than any other gap that passes there.
"""
MIN_REORDERED: Final = 2
MAX_REORDERED: Final = 16
"""Most pictures that precede another one in decoding order and follow it in presentation (H.264 and H.265)."""
DEFAULT_PICTURE_MS: Final = 40
MAX_PICTURE_MS: Final = 1000
MAX_PAUSE_MS: Final = 3000
"""
Time without a picture in which none was missed, presumably; after a longer one the next piece begins with the next
picture, so that what was missed is in no piece.
"""
PAUSE_PICTURES: Final = 4
"""The same for sources whose pictures come seldom: a pause is longer than so many of their intervals."""
MAX_PACKETS: Final = 20_000


@dataclass(slots=True)
class _Open:
    """The piece that is being collected."""

    start_ms: int
    """On the source's clock."""
    is_discontinuous: bool


class Cutter:
    """
    Cuts the pictures of one connection at presentation times.

    Pictures come in decoding order. The piece before a cut is complete when more pictures after the cut have come than
    the codec may reorder; how many these are is learned from the stream.
    """

    def __init__(self, segment_s: float, limits: StreamLimits) -> None:
        self._segment_ms = max(1, round(segment_s * 1000))
        self._limits = limits
        self._track: Track | None = None
        self._parameters: Parameters | None = None
        self._packets: list[Packet] = []
        """All packets from the last key frame at or before the open piece, in decoding order."""
        self._bytes = 0
        self._open: _Open | None = None
        self._shift_ms: int | None = None
        """Running time minus the source's clock; None before the first picture of a clock."""
        self._running_ms = 0
        """End of the pictures that were taken, in running time."""
        self._last_ms: int | None = None
        self._picture_ms = DEFAULT_PICTURE_MS
        self._interval_ms = DEFAULT_PICTURE_MS
        """Median of the times between recent pictures; ``_picture_ms`` is the same within limits."""
        self._reordered = MIN_REORDERED
        self._keyless_since_ms: int | None = None
        self._is_discontinuous = False
        self._first_ms = 0
        """Running time at the first picture: what was missed before it."""
        self._has_begun = False
        """Whether there was a picture that can be seen."""
        self.pictures = 0
        """Pictures that came, whether or not they could be used."""
        self.left_out = 0
        """Pictures that are in no piece: before the first key frame, too far from theirs, or too late."""

    @property
    def running_s(self) -> float:
        """Running time of the connection: where the newest picture ends, in seconds."""
        return self._running_ms / 1000

    def miss(self, duration_s: float) -> Iterator[Piece]:
        """Let *duration_s* of running time pass in which the source had pictures that did not arrive."""
        yield from self.finish()
        self._is_discontinuous |= self._has_begun
        self._shift_ms = self._last_ms = None
        if self._has_begun:
            self._running_ms += round(duration_s * 1000)
        else:
            self._first_ms += round(duration_s * 1000)

    def start(self, track: Track) -> Iterator[Piece]:
        """
        Begin a part of the connection whose clock and *track* have nothing to do with what came before.

        Raises:
            TooManyPixelsError: The pictures are too large.
        """
        yield from self.finish()
        self._is_discontinuous = self._track is not None
        self._check_pixels(track.width_px, track.height_px)
        self._track = track
        self._parameters = None
        self._shift_ms = self._last_ms = None

    def add(self, packet: Packet, silent_s: float = 0.0) -> Iterator[Piece]:
        """
        Take the next picture; yield the pieces that it completes.

        Args:
            silent_s: Time since the picture before it arrived, from a source that sends as time goes by. It passed
                even if the source's clock jumps.

        Raises:
            TooLargeError: A piece has too many bytes or pictures.
            TooManyPixelsError: The pictures have become too large.
            UnsupportedMediaError: There was no key frame for too long, or the codec has changed.
        """
        self.pictures += 1
        yield from self._follow_clock(packet, silent_s)
        if packet.is_key:
            yield from self._compare_parameters(packet)
            self._keyless_since_ms = packet.time_ms
        elif self._keyless_since_ms is not None:
            self._check_key(packet.time_ms - self._keyless_since_ms)
        if self._open is None and not packet.is_key:
            self.left_out += 1
            self._advance(packet)
            return
        end_ms = None
        if self._open is None:
            self._open = self._begin(packet)
        elif (end_ms := self._end_before_pause(packet)) is not None:
            yield from self._cut_to(end_ms)
            yield self._make(self._open, end_ms)
            self._open = _Open(packet.time_ms, is_discontinuous=False)
        if end_ms is None:
            self._measure_order(packet)
        if packet.time_ms < self._open.start_ms and packet.is_key is False:
            # It belongs to a piece that was cut already, or needs pictures before the first key frame. It may still be
            # what others refer to.
            self.left_out += 1
        self._advance(packet)
        self._packets.append(packet)
        self._bytes += len(packet.data)
        if self._bytes > self._limits.max_piece_bytes or len(self._packets) > MAX_PACKETS:
            raise TooLargeError(f"a piece of the stream has more than {self._limits.max_piece_bytes} bytes")
        if end_ms is not None:
            self._drop_used()
        yield from self._cut()

    def finish(self) -> Iterator[Piece]:
        """Yield what is left, at an end or a jump of the clock."""
        if self._open is None or self._shift_ms is None:
            return
        end_ms = max(packet.time_ms for packet in self._packets) + self._picture_ms
        yield from self._cut_to(end_ms)
        yield self._make(self._open, end_ms)
        self._running_ms = end_ms + self._shift_ms
        self._forget()

    def _follow_clock(self, packet: Packet, silent_s: float) -> Iterator[Piece]:
        """Let running time go on with the clock of *packet*, which may be another one than before."""
        if self._last_ms is not None and self._is_jump(packet, self._last_ms):
            yield from self.miss(silent_s if silent_s * 1000 > MAX_PAUSE_MS else 0.0)
        self._last_ms = packet.time_ms
        if self._shift_ms is None:
            self._shift_ms = self._running_ms - packet.time_ms
            self._keyless_since_ms = packet.time_ms

    def _begin(self, packet: Packet) -> _Open:
        """Return a new piece that begins with the key frame *packet*."""
        if not self._has_begun:
            # Times count from the first picture that can be seen.
            self._shift_ms, self._running_ms = self._first_ms - packet.time_ms, self._first_ms
            self._has_begun = True
        is_discontinuous, self._is_discontinuous = self._is_discontinuous, False
        return _Open(packet.time_ms, is_discontinuous)

    def _cut_to(self, end_ms: int) -> Iterator[Piece]:
        """Yield the pieces before the last one that ends at *end_ms*, after which nothing is to be waited for."""
        # One picture may complete several pieces, where the source paused for longer than a piece.
        while self._open is not None:
            next_ms = self._next_start(self._open.start_ms + self._segment_ms)
            if next_ms is None or next_ms >= end_ms:
                return
            yield self._make(self._open, next_ms)
            self._open = _Open(next_ms, is_discontinuous=False)

    def _end_before_pause(self, packet: Packet) -> int | None:
        """Return the end of the pictures so far, if there was a pause before *packet* in which some were missed."""
        newest_ms = max(other.time_ms for other in self._packets[-2 * MAX_REORDERED :])
        if self.pictures <= 2 * PAUSE_PICTURES:
            return None  # How often pictures come is not known yet.
        # A gap that the order of decoding makes is much shorter.
        if packet.time_ms - newest_ms <= max(MAX_PAUSE_MS, PAUSE_PICTURES * self._interval_ms):
            return None
        return newest_ms + self._picture_ms

    def _is_jump(self, packet: Packet, last_ms: int) -> bool:
        # Everything before a key frame in decoding order is presented before it, too.
        is_early = packet.is_key and any(other.time_ms >= packet.time_ms for other in self._packets[-MAX_REORDERED:])
        return is_early or abs(packet.time_ms - last_ms) > JUMP_MS

    def _check_key(self, keyless_ms: int) -> None:
        if keyless_ms > self._limits.max_keyless_s * 1000:
            raise UnsupportedMediaError(
                f"the stream had no key frame for {self._limits.max_keyless_s:g} s;"
                " set the key-frame interval of its encoder to about 2 s"
            )

    def _compare_parameters(self, packet: Packet) -> Iterator[Piece]:
        if self._track is None:
            raise UnsupportedMediaError("the stream has pictures before its header")
        if is_of_other_codec(self._track, packet.data):
            raise UnsupportedMediaError("the stream has changed its codec; it has to be connected again")
        found = read_parameters(self._track, packet.data)
        if found is None:
            return
        known, self._parameters = self._parameters, found
        size = (found.width_px, found.height_px)
        if known is not None and known.data == found.data:
            return
        self._check_pixels(*size)
        is_changed = known is not None and known.data != found.data
        if is_changed and self._open is not None and self._shift_ms is not None:
            if packet.time_ms > self._open.start_ms:
                yield self._make(self._open, packet.time_ms)
            self._forget()
        self._is_discontinuous |= is_changed
        if size != (self._track.width_px, self._track.height_px) and is_changed:
            self._track = replace(self._track, width_px=size[0], height_px=size[1], display=b"")

    def _check_pixels(self, width_px: int, height_px: int) -> None:
        if width_px * height_px > self._limits.max_pixels:
            raise TooManyPixelsError(
                f"the stream's pictures have {width_px} x {height_px} pixels, more than {self._limits.max_pixels}"
            )

    def _measure_order(self, packet: Packet) -> None:
        recent = self._packets[-2 * MAX_REORDERED :]
        later = sum(other.time_ms > packet.time_ms for other in recent)
        self._reordered = min(MAX_REORDERED, max(self._reordered, later))
        times = sorted({packet.time_ms, *(other.time_ms for other in recent)})
        if len(times) > 1:
            steps = sorted(after - before for before, after in pairwise(times))
            self._interval_ms = steps[len(steps) // 2]
            self._picture_ms = min(self._interval_ms, MAX_PICTURE_MS)

    def _advance(self, packet: Packet) -> None:
        if self._shift_ms is not None:
            end_ms = packet.time_ms + self._shift_ms + self._picture_ms
            self._running_ms = max(self._running_ms, end_ms)

    def _next_start(self, cut_ms: int) -> int | None:
        return min((packet.time_ms for packet in self._packets if packet.time_ms >= cut_ms), default=None)

    def _cut(self) -> Iterator[Piece]:
        while self._open is not None:
            cut_ms = self._open.start_ms + self._segment_ms
            recent = self._packets[-2 * MAX_REORDERED :]
            if sum(packet.time_ms >= cut_ms for packet in recent) <= self._reordered:
                return
            next_ms = self._next_start(cut_ms)
            if next_ms is None:
                return
            yield self._make(self._open, next_ms)
            self._open = _Open(next_ms, is_discontinuous=False)
            self._drop_used()

    def _drop_used(self) -> None:
        """Drop what the open piece does not need; if its key frame is too far away, wait for another one."""
        if self._open is None:
            return
        key = self._key_of(self._open.start_ms)
        if self._open.start_ms - self._packets[key].time_ms > self._limits.max_lead_s * 1000:
            later = [index for index, packet in enumerate(self._packets) if packet.is_key and index > key]
            if not later:
                self.left_out += sum(packet.time_ms >= self._open.start_ms for packet in self._packets)
                self._forget()
                return
            key = later[0]
            self.left_out += sum(
                self._open.start_ms <= packet.time_ms < self._packets[key].time_ms for packet in self._packets
            )
            self._open = _Open(self._packets[key].time_ms, is_discontinuous=False)
        self._bytes -= sum(len(packet.data) for packet in self._packets[:key])
        del self._packets[:key]

    def _key_of(self, start_ms: int) -> int:
        """Return the index of the last key frame at or before *start_ms*; the first packet always is one."""
        return max(
            (index for index, packet in enumerate(self._packets) if packet.is_key and packet.time_ms <= start_ms),
            default=0,
        )

    def _make(self, piece: _Open, end_ms: int) -> Piece:
        if self._track is None or self._shift_ms is None:
            raise UnsupportedMediaError("the stream has pictures before its header")
        key = self._key_of(piece.start_ms)
        last = max(
            (index for index, packet in enumerate(self._packets) if packet.time_ms < end_ms and index >= key),
            default=key,
        )
        zero_ms = self._packets[key].time_ms
        # Pictures before the key frame that follow it in decoding order refer to what is not in the file.
        chosen = [
            replace(packet, time_ms=packet.time_ms - zero_ms)
            for packet in self._packets[key : last + 1]
            if packet.time_ms >= zero_ms
        ]
        duration_ms = max(end_ms - zero_ms, max(packet.time_ms for packet in chosen) + self._picture_ms)
        return Piece(
            start_s=(piece.start_ms + self._shift_ms) / 1000,
            end_s=(end_ms + self._shift_ms) / 1000,
            lead_s=(piece.start_ms - zero_ms) / 1000,
            data=write_file(self._track, chosen, duration_ms=duration_ms),
            codec=self._track.codec,
            width_px=self._track.width_px,
            height_px=self._track.height_px,
            is_discontinuous=piece.is_discontinuous,
        )

    def _forget(self) -> None:
        self._packets.clear()
        self._bytes = 0
        self._open = None
