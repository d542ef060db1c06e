"""Security headers of responses, and the number of proxies that are trusted."""

from flask import Flask, Response
from werkzeug.middleware.proxy_fix import ProxyFix


def trust_proxies(app: Flask, count: int) -> None:
    """Take the client's address from ``X-Forwarded-For``, to which *count* trusted proxies have appended."""
    if count:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=count, x_proto=count)  # type: ignore[method-assign]


def add_security_headers(response: Response) -> Response:
    """Add headers that restrict what browsers do with a response."""
    headers = response.headers
    headers.setdefault("X-Content-Type-Options", "nosniff")
    headers.setdefault("Referrer-Policy", "no-referrer")
    headers.setdefault("X-Frame-Options", "DENY")
    headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")
    if response.mimetype != "text/html":
        headers.setdefault("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
    else:
        # The documentation page has its own scripts and styles, some of them inline.
        own = "'self' 'unsafe-inline'"
        policy = f"default-src 'self'; script-src {own}; style-src {own}; img-src 'self' data:; frame-ancestors 'none'"
        headers.setdefault("Content-Security-Policy", policy)
    return response
