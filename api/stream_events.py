"""The events of a live stream as server-sent events."""

import json
import time
import uuid
from collections.abc import Iterator
from functools import partial
from typing import Final

from flask import Response, stream_with_context
from sqlalchemy.exc import SQLAlchemyError

from api.auth import caller, requires
from api.documentation import authenticated_problems
from api.errors import APIError
from api.schemas import EventsHeaders, EventsQuery, StreamPath
from api.services import Services, current_services
from api.slots import take_slot
from api.streams import blueprint, find_own_stream, has_event
from shared.documents.streams import StreamEventDocument
from shared.models import Stream
from shared.states import StreamEventKind
from shared.streams.events import MAX_EVENTS, read_events

RECONNECT_MS: Final = 2000
"""How long browsers wait before they connect again."""
MAX_CONNECTION_S: Final = 300.0
"""After this time the client connects again, and goes on after the last event."""
HEARTBEAT_S: Final = 15.0
"""A comment is sent after this time without an event, which shows in time that the client has gone."""
BUSY_RETRY_S: Final = 5


EVENT_SCHEMA: Final = {
    "type": "object",
    "description": "One event; the first line of a connection has `retry` alone.",
    "properties": {
        "id": {"type": "string"},
        "event": {"type": "string", "enum": [kind.value for kind in StreamEventKind]},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
}


@blueprint.get(
    "/streams/<string:stream_id>/events",
    operation_id="followStream",
    responses={
        "200": {
            "description": "Events as they happen: `id` is `seq`, `event` is `kind`, `data` is the event as JSON.",
            "content": {"text/event-stream": {"schema": EVENT_SCHEMA}},
        },
        "204": {"description": "The stream has ended, and there is no event after the given one."},
        **authenticated_problems(404, 422),
    },
)
@requires("jobs:read")
def follow(path: StreamPath, header: EventsHeaders, query: EventsQuery) -> Response:
    """
    Follow a stream by server-sent events, from its first event or the one after `Last-Event-ID`.

    The connection ends after the event `ended`, and otherwise after five minutes: connect again with `Last-Event-ID`.
    Where too many clients follow streams already, the answer is 503; use `GET /v1/streams/{id}?after=…&wait_s=…`.
    """
    services = current_services()
    after = header.last_event_id if header.last_event_id is not None else query.after
    with services.sessions.transaction() as session:
        _, stream = find_own_stream(session, path.stream_id)
        if stream.ended_at is not None and after >= stream.last_seq:
            return Response(status=204)
    take = partial(take_slot, refusal="too many clients follow streams", retry_after_s=BUSY_RETRY_S)
    slots = [take(services.streaming)]
    try:
        slots.append(take(services.waiting))
    except APIError:
        services.streaming.release()
        raise
    events = stream_with_context(_write_events(services, path.stream_id, after))
    response = Response(events, mimetype="text/event-stream")
    response.headers["Cache-Control"] = "no-store"
    # Proxies would collect events otherwise.
    response.headers["X-Accel-Buffering"] = "no"
    # Not in the generator, whose ``finally`` does not run if the client has gone before it begins.
    for slot in slots:
        response.call_on_close(slot.release)
    return response


def _write_events(services: Services, stream_id: uuid.UUID, after: int) -> Iterator[str]:
    deadline = time.monotonic() + MAX_CONNECTION_S
    yield f"retry: {RECONNECT_MS}\n\n"
    try:
        while time.monotonic() < deadline and not services.listener.is_ending_waits:
            is_due = partial(has_event, services, caller().owner, stream_id, after)
            services.listener.wait(stream_id, is_due, HEARTBEAT_S)
            with services.sessions.transaction() as session:
                stream = session.get(Stream, stream_id)
                found = read_events(session, stream_id, after=after)
                events = [StreamEventDocument.from_event(event) for event in found]
            for event in events:
                after = event.seq
                # JSON has no line breaks outside of strings, and escapes those inside.
                yield f"id: {event.seq}\nevent: {event.kind}\ndata: {json.dumps(event.to_json())}\n\n"
            if stream is None or (stream.ended_at is not None and len(events) < MAX_EVENTS):
                return
            if not events:
                yield ": \n\n"
    except SQLAlchemyError:
        # The client connects again, and goes on after the last event.
        return
