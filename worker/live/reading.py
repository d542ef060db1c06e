"""The reading of a stream's source: connections, one after the other, whose pieces are stored and scored."""

import threading
import time
from collections.abc import Callable, Generator
from typing import Final

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from shared.errors import (
    DecodeError,
    DeepfakeStreamError,
    ForbiddenURLError,
    JobCancelledError,
    SourceStalledError,
    StorageError,
)
from shared.media.removals import unclaimed_file
from shared.observability import bind, get_logger
from shared.states import StreamEnd, StreamEventKind, StreamState
from shared.streams.claims import Claim
from shared.streams.events import add_event
from shared.streams.pieces import NewPiece, lock_stream, new_piece_key, record_piece
from shared.streams.pushing import note_left
from worker.live.lateness import Lateness
from worker.media.sandbox import sandbox
from worker.streams.intake import read_pieces, read_pushed
from worker.streams.rtmp.connection import Connection
from worker.streams.values import Piece, Position, Source, StreamLimits
from worker.tasks.context import Context

log = get_logger(__name__)

FIRST_PAUSE_S: Final = 0.5
MAX_PAUSE_S: Final = 10.0
"""Pauses before the source is connected again; each is twice as long as the one before."""
PICTURE_TIMEOUT_S: Final = 10.0
"""A connection without a picture for this long is given up."""
MIN_TIMEOUT_S: Final = 1.0
"""The same for the last connection before the source is given up."""


class SourceReader(threading.Thread):
    """
    A thread that reads one source until it is stopped, the source ends, or it is away for too long.

    Args:
        context: Settings and connections.
        claim: The stream.
        end: Called with the reason when the stream is over for the source's part.
        lose: Called when another reader has the stream, or it has ended.
    """

    def __init__(
        self, context: Context, claim: Claim, end: Callable[[StreamEnd], None], lose: Callable[[], None]
    ) -> None:
        super().__init__(name="stream-source", daemon=True)
        self._context, self._claim, self._end, self._lose = context, claim, end, lose
        self._stopping = threading.Event()
        self._is_connected = False
        self._heard = time.monotonic()
        self._position = Position()
        self._read_to_s: float | None = None
        """Where the last piece ends, in the time of the stream; None before the first one that was stored."""
        self._has_begun = claim.has_begun

    @property
    def is_connected(self) -> bool:
        """Whether pictures arrive, or did until the source said that it has ended."""
        return self._is_connected

    def stop(self) -> None:
        """Ask the thread to stop, which it does within a second."""
        self._stopping.set()

    def run(self) -> None:
        """Read until the end."""
        try:
            with bind(job_id=str(self._claim.lease.job_id)):
                self._read()
        except JobCancelledError as reason:
            log.info("stream abandoned", reason=str(reason))
            self._lose()
        except Exception:
            # Another attempt may succeed; the claim counts it.
            log.exception("reader of a stream failed")
            self._lose()

    def _read(self) -> None:
        timeout_s = self._context.settings.streams.source_timeout_s
        pause_s = FIRST_PAUSE_S
        while not self._stopping.is_set():
            error = self._read_connection()
            if self._stopping.is_set():
                return
            if error is None and self._claim.url.startswith("http"):
                # A playlist says itself that it has ended.
                self._end(StreamEnd.SOURCE)
                return
            if self._is_connected:
                pause_s = FIRST_PAUSE_S
            self._is_connected = False
            self._note_away(error or SourceStalledError("the source closed the connection"))
            is_forbidden = isinstance(error, ForbiddenURLError) and not self._has_begun
            if is_forbidden or time.monotonic() - self._heard > timeout_s:
                self._end(StreamEnd.SOURCE)
                return
            self._stopping.wait(pause_s)
            pause_s = min(2.0 * pause_s, MAX_PAUSE_S)

    def _read_connection(self) -> DeepfakeStreamError | None:
        """Read one connection to its end; return the error that ended it, if there was one."""
        offset_s: float | None = None
        timeout_s = self._picture_timeout_s
        pieces = self._open(timeout_s)
        lateness = Lateness()
        asked = time.monotonic()
        try:
            for piece in pieces:
                self._heard = time.monotonic()
                missed_s = lateness.find_missed(piece, arrived_s=self._heard, waited_s=self._heard - asked)
                if offset_s is not None and self._position.next_number is None:
                    offset_s += missed_s
                if offset_s is None and self._position.next_number is not None and self._read_to_s is not None:
                    # Its times go on where the last connection has come to.
                    offset_s = self._read_to_s
                offset_s = self._store_if_possible(piece, offset_s)
                asked = time.monotonic()
        except JobCancelledError:
            raise
        except SourceStalledError as error:
            # The pieces that came last are of pictures that had arrived before the silence.
            self._heard = min(self._heard, time.monotonic() - timeout_s)
            return error
        except DeepfakeStreamError as error:
            return error
        except OSError:
            log.exception("source of a stream not read")
            return DecodeError("the reader of the stream could not be started")
        finally:
            pieces.close()
        return None

    def _store_if_possible(self, piece: Piece, offset_s: float | None) -> float | None:
        """Store a piece; one that the database or the storage refuses is missed, and the source is read on."""
        try:
            offset_s = self._store(piece, offset_s)
        except JobCancelledError:
            raise
        except (DeepfakeStreamError, SQLAlchemyError, OSError):
            log.warning("piece of a stream not stored", exc_info=True)
            self._is_connected = False
            self._note_away(StorageError("this service's storage or database failed"))
        self._position.backlog_s = 0.0
        self._read_to_s = None if offset_s is None else offset_s + piece.end_s
        return offset_s

    def _open(self, timeout_s: float) -> Generator[Piece, None, None]:
        """Connect to the source."""
        claim, settings = self._claim, self._context.settings
        return read_pieces(
            Source(claim.url, claim.username, claim.password),
            segment_s=claim.segment_seconds,
            limits=StreamLimits(allow_shared_network=settings.streams.allow_shared_network),
            allow_insecure=settings.webhooks.allow_insecure,
            timeout_s=timeout_s,
            should_stop=self._stopping.is_set,
            position=self._position,
        )

    @property
    def _picture_timeout_s(self) -> float:
        left_s = self._context.settings.streams.source_timeout_s - (time.monotonic() - self._heard)
        return min(PICTURE_TIMEOUT_S, max(MIN_TIMEOUT_S, left_s))

    def _store(self, piece: Piece, offset_s: float | None) -> float:
        """
        Store a piece and add its segment.

        Args:
            offset_s: The time of the stream at the beginning of this connection; None for its first piece.

        Returns:
            That time.
        """
        key = new_piece_key()
        upload = self._context.storage.create(key)
        with unclaimed_file(self._context.storage, key):
            try:
                upload.write(piece.data)
                upload.commit()
            finally:
                upload.abort()
            start_s = None if offset_s is None else offset_s + piece.start_s
            age_s = self._position.backlog_s if offset_s is None else 0.0
            new = NewPiece(key, piece.lead_s, piece.end_s - piece.start_s, start_s, age_s)
            with self._context.sessions.transaction() as session:
                place = record_piece(session, self._claim.lease, new)
                if not self._is_connected:
                    self._note_connected(session)
        self._is_connected = self._has_begun = True
        return place.start_s - piece.start_s

    def _note_connected(self, session: Session) -> None:
        """Note that pictures arrive, if that is news: of a reader that was killed, nobody noted that it was away."""
        _, stream = lock_stream(session, self._claim.lease)
        if stream.state == StreamState.CONNECTED:
            return
        if stream.ending is None:
            stream.reconnects += stream.state == StreamState.AWAY
            stream.state = StreamState.CONNECTED
        add_event(session, stream, StreamEventKind.SOURCE, {"state": StreamState.CONNECTED, "error": None})

    def _note_away(self, found: DeepfakeStreamError) -> None:
        """Note why the source is away, if that is news."""
        log.warning("source of a stream is away", code=found.code, decoders=sandbox().describe())
        try:
            with self._context.sessions.transaction() as session:
                _, stream = lock_stream(session, self._claim.lease)
                known = stream.error_code, stream.error_detail, stream.state
                if stream.ending is None and stream.origin_at is not None:
                    stream.state = StreamState.AWAY
                stream.error_code, stream.error_detail = found.code, str(found)
                if (stream.error_code, stream.error_detail, stream.state) != known:
                    payload = {"state": stream.state, "error": {"code": found.code, "detail": str(found)}}
                    add_event(session, stream, StreamEventKind.SOURCE, payload)
        except SQLAlchemyError:
            log.warning("state of a stream not recorded", exc_info=True)


class PublisherReader(SourceReader):
    """
    A thread that reads one connection of a publisher to its end. Another one is another claim.

    Args:
        connection: A connection whose key was accepted. It is closed at the end.
    """

    def __init__(self, context: Context, claim: Claim, lose: Callable[[], None], connection: Connection) -> None:
        super().__init__(context, claim, lambda _: None, lose)
        self._connection = connection

    def stop(self) -> None:
        """Ask the thread to stop, which it does within a second; one that has not begun leaves the publisher."""
        super().stop()
        if not self.is_alive():
            # Its feed never began, or has closed the connection already.
            self._connection.close()

    def _read(self) -> None:
        error = self._read_connection()
        if self._stopping.is_set():
            return
        has_shown, self._is_connected = self._read_to_s is not None, False
        log.info("publisher left", code=None if error is None else error.code)
        with self._context.sessions.transaction() as session:
            job, stream = lock_stream(session, self._claim.lease)
            # The stream has not killed this reader.
            job.attempts = 0
            if not has_shown:
                # A publisher without pictures is none: the time goes on.
                stream.away_since = self._claim.away_since
            note_left(session, self._claim.lease, error)

    def _open(self, timeout_s: float) -> Generator[Piece, None, None]:
        return read_pushed(
            self._connection,
            segment_s=self._claim.segment_seconds,
            limits=StreamLimits(),
            timeout_s=timeout_s,
            should_stop=self._stopping.is_set,
        )
