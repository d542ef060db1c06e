"""The option ``webhook_events``: which events a receiver gets."""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from api.errors import APIError
from shared.errors import Code
from shared.states import BATCH_EVENTS, JOB_EVENTS, STREAM_EVENTS, WebhookEvent

DESCRIPTION: Final = "The events to send to `webhook_url`; all of them by default."


def require_receiver(options: Mapping[str, Any]) -> None:
    """Refuse options with events and without an address to send them to."""
    if options.get("webhook_events") is not None and options.get("webhook_url") is None:
        detail = "webhook_events is given without webhook_url; give the address that gets them, or leave both out"
        raise APIError(Code.INVALID_REQUEST, detail, errors=[{"name": "webhook_events", "detail": detail}])


def _choose(known: Sequence[WebhookEvent], given: Sequence[str]) -> list[str]:
    """Return the *given* events, each once and in the order of the *known* ones. Raises if one is not known."""
    takes = {"takes": ", ".join(known)}
    if not given:
        raise PydanticCustomError("no_event", "no event is named; name some of {takes}, or leave it out for all", takes)
    for event in given:
        if event not in known:
            # A text of the sender's may be long.
            named = {"event": repr(event[:64]), **takes}
            raise PydanticCustomError("unknown_event", "{event} is no event that is sent here; name {takes}", named)
    return [str(event) for event in known if event in given]


def _split(given: Any) -> Any:
    """Return the events in a text, which commas separate."""
    return given.split(",") if isinstance(given, str) else given


def _array_schema(known: Sequence[WebhookEvent], description: str = DESCRIPTION) -> WithJsonSchema:
    items = {"type": "string", "enum": list(known)}
    return WithJsonSchema({"type": "array", "items": items, "minItems": 1, "description": description})


def _text_schema(known: Sequence[WebhookEvent]) -> WithJsonSchema:
    event = f"({'|'.join(map(re.escape, known))})"
    description = f"{DESCRIPTION} Commas separate them."
    return WithJsonSchema({"type": "string", "pattern": f"^{event}(,{event})*$", "description": description})


JobEvents = Annotated[list[str], AfterValidator(partial(_choose, JOB_EVENTS)), _array_schema(JOB_EVENTS)]
JobEventsText = Annotated[
    list[str], AfterValidator(partial(_choose, JOB_EVENTS)), BeforeValidator(_split), _text_schema(JOB_EVENTS)
]
"""The same in a query or a form."""
StreamEvents = Annotated[list[str], AfterValidator(partial(_choose, STREAM_EVENTS)), _array_schema(STREAM_EVENTS)]
BatchEvents = Annotated[
    list[str],
    AfterValidator(partial(_choose, BATCH_EVENTS)),
    _array_schema(BATCH_EVENTS, f"{DESCRIPTION} Each item chooses those of its own webhook."),
]
