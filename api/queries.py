"""A check of the query of every request."""

from functools import lru_cache
from inspect import signature
from typing import Any, Final

from flask import Flask, current_app, request
from pydantic import BaseModel

from api.admission import PAGES
from api.errors import APIError
from shared.errors import Code

DOCUMENTATION: Final = ("openapi.openapi", "swagger.", "docs")
"""First letters of the endpoints of the page with jobs, and of the page that shows the OpenAPI document."""
_HINTS: Final = {
    "url": '; send it in a JSON object as application/json: {"url": "https://…"}',
    "upload_id": '; send it in a JSON object as application/json: {"upload_id": "…"}',
    "file": "; send the file as the body, or in the field 'file' of multipart/form-data",
}
"""Option that belongs into the body of a submission → what to do instead."""


def register_query_check(app: Flask) -> None:
    """
    Refuse queries with an option that the route does not have, or with one option twice.

    The options are those of the model that validates the query. Pages that people open are left out, since programs for
    mail and chat add parameters to links.
    """
    app.before_request(_check_query)


def _check_query() -> None:
    if not request.args or request.endpoint is None:
        return
    if request.blueprint == PAGES or request.endpoint.startswith(DOCUMENTATION):
        return
    known = query_options(current_app.view_functions[request.endpoint])
    for name, values in request.args.lists():
        if name not in known:
            takes = f"the query of this request takes {', '.join(known)}" if known else "this request takes none"
            hint = _HINTS.get(name, "") if request.method == "POST" else ""
            detail = f"unknown option {name!r} in the query; {takes}{hint}"
            raise APIError(Code.UNKNOWN_OPTION, detail, errors=[{"name": name, "detail": "unknown option"}])
        if len(values) > 1:
            raise APIError(Code.INVALID_REQUEST, f"the option {name!r} is given more than once")


@lru_cache(maxsize=256)
def query_options(view: Any) -> tuple[str, ...]:
    """Return the names of the options in the query of a *view*, those of the model of its parameter ``query``."""
    parameter = signature(view).parameters.get("query")
    model = None if parameter is None else parameter.annotation
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        return ()
    return tuple(field.alias or name for name, field in model.model_fields.items())
