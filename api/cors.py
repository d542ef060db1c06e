"""Requests from web pages of other origins (CORS), for the origins that the operator lists."""

import re
from typing import Final

from flask import Flask, Response, current_app, request
from flask_cors import CORS

ALLOWED_HEADERS: Final = (
    *("Authorization", "Content-Type", "Idempotency-Key", "If-None-Match", "Last-Event-ID", "Prefer", "X-Request-Id"),
)
EXPOSED_HEADERS: Final = (
    *("Content-Disposition", "ETag", "Idempotent-Replayed", "Location", "Preference-Applied", "Retry-After"),
    "X-Request-Id",
)
PREFLIGHT_VALID_S: Final = 600
"""How long browsers may remember an answer to a preflight request."""


def register_cors(app: Flask, origins: list[str]) -> None:
    """
    Let pages of *origins* call the paths below ``/v1``; without any, nothing changes.

    No cookies are involved: a page sends an API key, so everybody who can read its code has that key. Call it before
    keys are checked, since browsers send none in a preflight request.
    """
    if not origins:
        return
    app.before_request(_answer_preflight)
    CORS(
        app,
        resources={
            r"/v1/.*": {
                # The library takes some plain strings for patterns.
                "origins": [
                    one if one == "*" else re.compile(re.escape(one) + r"\Z", re.IGNORECASE) for one in origins
                ],
                "methods": ["GET", "POST", "PUT", "DELETE", "HEAD"],
                "allow_headers": list(ALLOWED_HEADERS),
                "expose_headers": list(EXPOSED_HEADERS),
                "supports_credentials": False,
                "max_age": PREFLIGHT_VALID_S,
            }
        },
    )


def _answer_preflight() -> Response | None:
    """Answer preflight requests, which carry no key; the library adds its headers where the origin is allowed."""
    is_preflight = request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers
    if is_preflight and "Origin" in request.headers and request.path.startswith("/v1/"):
        return current_app.make_default_options_response()
    return None
