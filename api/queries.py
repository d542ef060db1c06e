"""A check of the query of every request."""

from flask import Flask, request

from api.errors import APIError
from shared.errors import Code


def register_query_check(app: Flask) -> None:
    """Refuse queries that give an option twice, since it is unclear which value is meant."""
    app.before_request(_refuse_repetition)


def _refuse_repetition() -> None:
    for name, values in request.args.lists():
        if len(values) > 1:
            raise APIError(Code.INVALID_REQUEST, f"the option {name!r} is given more than once")
