"""HLS (RFC 8216): playlists and segments are fetched by the worker, each from a checked and pinned address."""

import base64
import time
from collections.abc import Mapping
from dataclasses import dataclass
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
from worker.streams.feeds import BLOCK_BYTES, Feed, Run
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
        self._position.is_continued = self._position.next_number is not None
        self._map: _Part | None = None
        self._begins_run = True
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

    def _read_segments(self, url: str, playlist: Any) -> bool:
        segments = list(playlist.segments)
        first = int(playlist.media_sequence or 0)
        position = self._position
        wanted = position.next_number
        if wanted is None:
            count = len(segments) if playlist.is_endlist else LIVE_SEGMENTS
            wanted = first + max(0, len(segments) - count)
        elif first > wanted or first + len(segments) + MAX_LATE_SEGMENTS < wanted:
            # Segments were missed, or the server counts anew.
            wanted = first if first > wanted else first + max(0, len(segments) - LIVE_SEGMENTS)
            self._begins_run, position.is_continued = True, False
        position.next_number = wanted
        is_changed = False
        for number, segment in enumerate(segments, first):
            if number < wanted:
                continue
            if self.is_stopped:
                break
            is_changed = True
            position.next_number = number + 1
            self._begins_run |= bool(segment.discontinuity)
            if getattr(segment, "gap_tag", None):
                self._begins_run = True
                continue
            self._read_segment(url, segments, number - first)
        return is_changed

    def _read_segment(self, url: str, segments: list[Any], index: int) -> None:
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
            self._begins_run = True
            self._count_failure(error)
            return
        self._failures = 0
        if self._begins_run and not self.put(Run("mov" if wanted else "mpegts")):
            return
        self._begins_run = False
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
