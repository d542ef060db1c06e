"""The recorded segments of a stream: those around alerts, if that was asked for."""

from collections.abc import Iterator
from typing import BinaryIO, Final

from flask import Response
from sqlalchemy import select

from api.auth import requires
from api.documentation import authenticated_problems
from api.errors import APIError
from api.paging import page_limit, parse_cursor
from api.responses import document_response
from api.schemas import Page, RecordingPath, StreamPath
from api.services import current_services
from api.slots import take_slot
from api.streams import blueprint, find_own_stream
from shared.cursors import write_cursor
from shared.documents.streams import RecordingDocument, RecordingList
from shared.errors import Code
from shared.models import Segment, Stream
from shared.states import Recording
from shared.storage import BLOCK_BYTES

MEDIA_TYPE: Final = "video/x-matroska"
WAIT_S: Final = 0.5
BUSY_RETRY_S: Final = 2


@blueprint.get(
    "/streams/<string:stream_id>/recordings",
    operation_id="listRecordings",
    responses={200: RecordingList, **authenticated_problems(404, 422)},
)
@requires("jobs:read")
def list_recordings(path: StreamPath, query: Page) -> Response:
    """
    List the segments of a stream whose video is stored, in order.

    While the stream runs these include the newest ones, of which only those around alerts are kept.
    """
    services = current_services()
    limit = page_limit(services, query)
    after = -1 if query.cursor is None else parse_cursor(query.cursor, int)
    wanted = (
        select(Segment.index, Segment.start_s, Segment.end_s, Segment.lead_s)
        .join(Stream, Stream.job_id == Segment.job_id)
        .where(Segment.job_id == path.stream_id, Segment.index > after, Segment.storage_key.is_not(None))
        .where(Stream.record == Recording.SUSPICIOUS)
        .order_by(Segment.index)
        .limit(limit + 1)
    )
    with services.sessions.transaction() as session:
        find_own_stream(session, path.stream_id)
        rows = session.execute(wanted).all()
    items = [
        RecordingDocument(index=index, start_s=start_s, end_s=end_s, lead_s=lead_s or 0.0)
        for index, start_s, end_s, lead_s in rows[:limit]
    ]
    more = len(rows) > limit
    return document_response(RecordingList(items=items, next_cursor=write_cursor(items[-1].index) if more else None))


@blueprint.get(
    "/streams/<string:stream_id>/recordings/<int:index>",
    operation_id="getRecording",
    responses={
        "200": {
            "description": "A Matroska file without sound.",
            "content": {MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}},
        },
        **authenticated_problems(404, 410, 422),
    },
)
@requires("jobs:read")
def get_recording(path: RecordingPath) -> Response:
    """Get the recorded video of one segment; see `GET /v1/streams/{id}/recordings`."""
    services = current_services()
    with services.sessions.transaction() as session:
        job, stream = find_own_stream(session, path.stream_id)
        segment = session.get(Segment, (job.id, path.index))
        if segment is None or segment.storage_key is None or stream.record != Recording.SUSPICIOUS:
            raise APIError(Code.NOT_FOUND, f"segment {path.index} of this stream is not recorded")
        key = segment.storage_key
    slot = take_slot(
        services.viewing, refusal="too many recordings are being sent", retry_after_s=BUSY_RETRY_S, wait_s=WAIT_S
    )
    try:
        file = services.storage.open(key)
    except BaseException:
        slot.release()
        raise
    response = Response(_read_blocks(file), mimetype=MEDIA_TYPE)
    response.call_on_close(file.close)
    response.call_on_close(slot.release)
    response.headers["Content-Disposition"] = f'attachment; filename="stream-{path.stream_id}-{path.index}.mkv"'
    response.headers["Cache-Control"] = "private, no-store"
    # Whatever the file is, it runs nothing.
    response.headers["Content-Security-Policy"] = "default-src 'none'; sandbox"
    return response


def _read_blocks(file: BinaryIO) -> Iterator[bytes]:
    while block := file.read(BLOCK_BYTES):
        yield block
