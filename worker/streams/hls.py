"""HLS (RFC 8216): playlists and segments are fetched by the worker, each from a checked and pinned address."""

import base64
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

import m3u8

from shared.errors import (
    SourceError,
    SourceRefusedError,
    SourceUnreachableError,
    UnsupportedMediaError,
)
from shared.outbound import check_url
from worker.media.sources import follow, read_bounded
from worker.streams.feeds import BLOCK_BYTES, Feed, Mark, Run
from worker.streams.values import Position, Source, StreamLimits

MAX_HEIGHT_PX: Final = 1080
"""Height of the largest variant that is chosen, if there is a smaller one: more adds nothing to the verdict."""
LIVE_SEGMENTS: Final = 3
"""Segments before the end at which a live playlist is entered (RFC 8216, 6.3.3)."""
MAX_FAILURES: Final = 3
MIN_RELOAD_S: Final = 0.5
MAX_RELOAD_S: Final = 10.0
MAX_LATE_SEGMENTS: Final = 20
"""Step back of the numbers of segments that still is a stale copy of the playlist, and not a new count."""
STALE_S: Final = 8.0
"""How long a copy of the playlist can be stale; if it is behind for longer, the server counts anew."""
LONGEST_DELAY_S: Final = 10.0
"""
A playlist that grows later than its segments are long, by more than this and two of its target durations, has missed
the time in between: the server's encoder was away. A shorter delay may be that of a network, and is caught up with.
"""
MAX_SEGMENT_S: Final = 60.0
"""A segment that is said to be longer than this is one whose length is not known."""
LEAST_MISSED_S: Final = 3.0
"""A shorter time between two segments, by the server's clock, is none that was missed."""


@dataclass(frozen=True, slots=True)
class _Part:
    """A resource, or a range of bytes of it."""

    url: str
    first: int | None = None
    length: int | None = None


class HLSFeed(Feed):
    """
    A feed of the segments of one playlist, from the live edge or, if it has ended, from its beginning.

    Each discontinuity begins a new run. Credentials are sent (HTTP Basic) to the server of the playlist only.

    Args:
        timeout_s: Limit of each request.
        position: Where to begin, and where the feed notes how far it has come.
    """

    arrives_live = False

    def __init__(
        self,
        source: Source,
        limits: StreamLimits,
        *,
        allow_insecure: bool,
        timeout_s: float,
        position: Position | None = None,
    ) -> None:
        super().__init__()
        self._source = source
        self._limits = limits
        self._allow_insecure = allow_insecure
        self._timeout_s = timeout_s
        self._position = position or Position()
        self._next_number = self._position.next_number
        """Number of the next segment to fetch; that of the position is the next one to read."""
        self._last_name, self._last_end = self._position.last_name, self._position.last_end
        """Of the segment before it. The position has those of the last one that was read, by another thread."""
        self._missed_s = 0.0
        """What is missed before the next run begins."""
        self._unseen_s = 0.0
        """Length of the segments that were read since the last picture."""
        self._map: _Part | None = None
        self._begins_run = True
        self._is_new_count = False
        self._failures = 0
        self._free_at = time.monotonic()

    def read(self) -> None:
        """Fetch segments until the playlist ends."""
        url, playlist = self._open_media_playlist()
        while not self.is_stopped:
            is_changed = self._read_segments(url, playlist)
            if playlist.is_endlist:
                return
            target_s = min(max(float(playlist.target_duration or 2), MIN_RELOAD_S), MAX_RELOAD_S)
            # RFC 8216, 6.3.4: half of it if the playlist did not change.
            self.sleep(target_s if is_changed else max(MIN_RELOAD_S, target_s / 2))
            playlist = self._reload(url, playlist)

    def _open_media_playlist(self) -> tuple[str, Any]:
        url = self._source.url
        playlist = self._load(url)
        if playlist.is_variant:
            url = self._choose_variant(url, playlist)
            playlist = self._load(url)
        if playlist.is_variant:
            raise UnsupportedMediaError("the HLS playlist leads to another list of variants")
        return url, playlist

    def _choose_variant(self, url: str, playlist: Any) -> str:
        variants = [v for v in playlist.playlists if v.uri]
        with_picture = [v for v in variants if v.stream_info.resolution] or variants
        if not with_picture:
            raise UnsupportedMediaError("the HLS playlist has no variants")

        def rank(variant: Any) -> tuple[bool, int, int]:
            _, height = variant.stream_info.resolution or (0, 0)
            fits = height <= MAX_HEIGHT_PX
            return fits, height if fits else -height, variant.stream_info.bandwidth or 0

        return self._join(url, max(with_picture, key=rank).uri)

    def _reload(self, url: str, playlist: Any) -> Any:
        try:
            playlist = self._load(url)
        except (SourceRefusedError, SourceUnreachableError) as error:
            self._count_failure(error)
        else:
            self._failures = 0
        return playlist

    def begin(self, run: Run) -> None:
        """Note what is missed before *run*, and that nothing came of the run before it since its last picture."""
        self._position.missed_s += run.missed_s + self._unseen_s
        self._unseen_s = 0.0

    def note(self, mark: Mark) -> None:
        """Move the position over the segment of *mark*."""
        position = self._position
        position.next_number, position.last_name, position.last_end = mark.number + 1, mark.name, mark.end
        self._unseen_s += mark.duration_s

    def take_missed(self) -> float:
        """Return what was missed before the picture that has just arrived, in seconds, and count anew."""
        missed_s, self._position.missed_s, self._unseen_s = self._position.missed_s, 0.0, 0.0
        return missed_s

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self._position.missed_s += self._unseen_s

    def _read_segments(self, url: str, playlist: Any) -> bool:
        segments = list(playlist.segments)
        first = int(playlist.media_sequence or 0)
        wanted = self._find_next(playlist, segments, first)
        self._next_number = wanted
        new = [segment for number, segment in enumerate(segments, first) if number >= wanted]
        if new:
            self._note_growth(new, float(playlist.target_duration or 0.0))
        for number in range(wanted, first + len(segments)):
            segment = segments[number - first]
            if self.is_stopped:
                break
            self._begins_run |= bool(segment.discontinuity)
            if getattr(segment, "gap_tag", None):
                self._skip(segment)
            else:
                self._read_segment(url, segments, number - first, number)
            self._next_number, self._last_name, self._last_end = number + 1, _name(segment), _end(segment)
        return bool(new)

    def _find_next(self, playlist: Any, segments: list[Any], first: int) -> int:
        """Return the number of the next segment to fetch; note what was missed, if the playlist says so."""
        end = first + len(segments)
        wanted = self._next_number
        if wanted is None:
            wanted = first + max(0, len(segments) - (len(segments) if playlist.is_endlist else LIVE_SEGMENTS))
            if not playlist.is_endlist:
                self._position.backlog_s = sum(map(_duration, segments[wanted - first :]))
            return wanted
        if first > wanted:
            self._begins_run = True
            self._missed_s += (first - wanted) * (_mean_duration(segments) or float(playlist.target_duration or 0.0))
            return first
        if end + MAX_LATE_SEGMENTS < wanted or self._is_counted_anew(segments, first, wanted):
            self._begins_run, self._is_new_count = True, True
            return first + max(0, len(segments) - LIVE_SEGMENTS)
        return wanted

    def _is_counted_anew(self, segments: list[Any], first: int, wanted: int) -> bool:
        """Return whether the server has begun to count anew, which shows once the playlist has long been the same."""
        grown_at = self._position.grown_at
        if grown_at is None or time.monotonic() - grown_at < STALE_S or not segments:
            return False
        place = wanted - 1 - first
        if place >= len(segments):
            return True
        return place >= 0 and bool(self._last_name) and _name(segments[place]) != self._last_name

    def _note_growth(self, new: list[Any], target_s: float) -> None:
        """Note when the playlist has grown, and what its server's encoder has missed before that."""
        position = self._position
        now = time.monotonic()
        delay_s = 0.0 if position.grown_at is None else now - position.grown_at
        late_s = delay_s - sum(map(_duration, new))
        missed_s = 0.0
        begun_s = _seconds_between(self._last_end, new[0].current_program_date_time)
        if self._is_new_count:
            missed_s = late_s
        elif begun_s is not None:
            missed_s = begun_s if begun_s > LEAST_MISSED_S else 0.0
        elif late_s > (LEAST_MISSED_S if new[0].discontinuity else LONGEST_DELAY_S) + 2 * target_s:
            missed_s = late_s
        if missed_s > self._missed_s:
            self._begins_run, self._missed_s = True, missed_s
        # A server can claim anything; no more can be missed than has passed here.
        self._missed_s = min(self._missed_s, delay_s + 2 * MAX_RELOAD_S)
        position.grown_at, self._is_new_count = now, False

    def _skip(self, segment: Any) -> None:
        self._begins_run = True
        self._missed_s += _duration(segment)

    def _read_segment(self, url: str, segments: list[Any], index: int, number: int) -> None:
        segment = segments[index]
        if segment.key is not None and (segment.key.method or "NONE").upper() != "NONE":
            raise UnsupportedMediaError("the HLS stream is encrypted, which is not supported")
        part = self._part(url, segment.uri, segment.byterange, segments[index - 1] if index else None)
        wanted: _Part | None = None
        if segment.init_section is not None and segment.init_section.uri:
            wanted = self._part(url, segment.init_section.uri, segment.init_section.byterange, None)
        if wanted != self._map:
            self._map = wanted
            self._begins_run = True
        try:
            blocks = [self._fetch(wanted)] if wanted and self._begins_run else []
            blocks.append(self._fetch(part))
        except (SourceRefusedError, SourceUnreachableError) as error:
            self._skip(segment)
            self._count_failure(error)
            return
        self._failures = 0
        if self._begins_run and not self.put(Run("mov" if wanted else "mpegts", self._missed_s)):
            return
        self._begins_run, self._missed_s = False, 0.0
        self.put(Mark(number, _name(segment), _duration(segment), _end(segment)))
        for data in blocks:
            for start in range(0, len(data), BLOCK_BYTES):
                self.put(data[start : start + BLOCK_BYTES])

    def _count_failure(self, error: SourceError) -> None:
        self._failures += 1
        if self._failures >= MAX_FAILURES:
            raise error

    def _part(self, base: str, uri: str, byterange: str | None, before: Any) -> _Part:
        url = self._join(base, uri)
        if not byterange:
            return _Part(url)
        length_text, _, offset_text = byterange.partition("@")
        try:
            length = int(length_text)
            offset = int(offset_text) if offset_text else None
            if offset is None:
                # It continues where the segment before it ends; without one, at the beginning.
                offset = 0
                if before is not None and before.byterange and before.uri == uri and "@" in before.byterange:
                    offset = sum(map(int, before.byterange.split("@")))
        except ValueError as error:
            raise UnsupportedMediaError("the HLS playlist has an invalid range of bytes") from error
        if not (0 < length <= self._limits.max_segment_bytes and 0 <= offset < 2**60):
            raise UnsupportedMediaError("the HLS playlist has an invalid range of bytes")
        return _Part(url, offset, length)

    def _join(self, base: str, uri: str) -> str:
        try:
            url = urljoin(base, uri)
        except ValueError as error:
            raise UnsupportedMediaError("the HLS playlist contains an invalid URL") from error
        check_url(url, allow_insecure=self._allow_insecure)
        return url

    def _load(self, url: str) -> Any:
        data = self._fetch(_Part(url), is_playlist=True)
        text = data.decode("utf-8", "replace").lstrip("\ufeff")
        if not text.startswith("#EXTM3U"):
            raise UnsupportedMediaError("the URL does not lead to an HLS playlist")
        try:
            return m3u8.loads(text)
        except Exception as error:  # m3u8 declares no errors for malformed text
            raise UnsupportedMediaError("the HLS playlist is malformed") from error

    def _fetch(self, part: _Part, *, is_playlist: bool = False) -> bytes:
        headers: dict[str, str] = dict(self._credentials(part.url))
        expected = 200
        if part.first is not None and part.length is not None:
            headers["Range"] = f"bytes={part.first}-{part.first + part.length - 1}"
            expected = 206
        limit = self._limits.max_playlist_bytes if is_playlist else self._limits.max_segment_bytes
        with follow(
            part.url,
            timeout_s=self._timeout_s,
            allow_insecure=self._allow_insecure,
            headers=headers,
            cancel_token=self.cancel_token,
        ) as response:
            if response.status_code in (401, 403):
                raise SourceRefusedError("the source refused the credentials")
            if response.status_code != expected:
                raise SourceRefusedError(f"the URL's server answered {response.status_code}")
            what = "playlist" if is_playlist else "segment"
            data = b"".join(read_bounded(response, part.length or limit, f"the HLS {what} is larger than its limit"))
        self._wait_for_rate(len(data))
        return data

    def _wait_for_rate(self, count: int) -> None:
        now = time.monotonic()
        self._free_at = max(self._free_at, now - 10.0) + count / self._limits.max_bytes_per_s
        if self._free_at > now:
            self.sleep(self._free_at - now)

    def _credentials(self, url: str) -> Mapping[str, str]:
        source = self._source
        if source.username is None and source.password is None:
            return {}
        if urlsplit(url)[:2] != urlsplit(source.url)[:2]:
            return {}
        plain = f"{source.username or ''}:{source.password or ''}".encode()
        return {"Authorization": "Basic " + base64.b64encode(plain).decode()}


def _duration(segment: Any) -> float:
    """Return the length of a segment in seconds, as its playlist says; 0 if it says nothing sensible."""
    duration_s = float(segment.duration or 0.0)
    return duration_s if 0.0 <= duration_s <= MAX_SEGMENT_S else 0.0


def _name(segment: Any) -> str:
    """Return the file name of a segment. Folders and parameters may be other ones in each copy of the playlist."""
    return str(segment.uri).partition("?")[0].rpartition("/")[2]


def _end(segment: Any) -> datetime | None:
    """Return when a segment ends by the server's clock, if the playlist says it."""
    begun = segment.current_program_date_time
    return None if begun is None else begun + timedelta(seconds=_duration(segment))


def _seconds_between(before: datetime | None, after: datetime | None) -> float | None:
    if before is None or after is None or (before.tzinfo is None) != (after.tzinfo is None):
        return None
    return (after - before).total_seconds()


def _mean_duration(segments: Sequence[Any]) -> float:
    return sum(map(_duration, segments)) / max(1, len(segments))
