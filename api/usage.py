"""Endpoint of usage: what was analysed for the caller's owner, by day and key."""

from datetime import UTC, date, datetime, timedelta
from typing import Final

from flask import Response

from api.auth import caller, requires
from api.documentation import authenticated_problems
from api.errors import APIError
from api.jobs import blueprint
from api.responses import document_response
from api.schemas import UsageQuery
from api.services import current_services
from shared.documents.usage import UsageDay, UsageDocument, UsageTotals
from shared.errors import Code
from shared.jobs.usage import read_usage

DEFAULT_DAYS: Final = 30
MAX_DAYS: Final = 366


@blueprint.get("/usage", operation_id="getUsage", responses={200: UsageDocument, **authenticated_problems(422)})
@requires("jobs:read")
def get_usage(query: UsageQuery) -> Response:
    """
    Get what was analysed for you, by day (UTC) and key, from `from` to `to`, both included.

    Without `to` the last day is today; without `from` there are 30 days. Jobs count on the day on which they ended,
    those whose scores were reused and those that are erased as well.
    """
    last = query.last or datetime.now(UTC).date()
    first = query.first or max(last, date.min + timedelta(days=DEFAULT_DAYS)) - timedelta(days=DEFAULT_DAYS - 1)
    if not 0 <= (last - first).days < MAX_DAYS:
        raise APIError(Code.INVALID_REQUEST, f"from {first} to {last} are not between 1 and {MAX_DAYS} days")
    with current_services().sessions.transaction() as session:
        rows = read_usage(session, caller().owner, first, last)
    names = list(UsageTotals.model_fields)
    items = [
        UsageDay(day=day, api_key_id=key_id, key_name=name, **dict(zip(names, sums, strict=True)))
        for day, key_id, name, *sums in rows
    ]
    total = UsageTotals(**{name: sum(getattr(item, name) for item in items) for name in names})
    return document_response(UsageDocument(first_day=first, last_day=last, total=total, items=items))
