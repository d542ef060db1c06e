"""Probes and metrics, without a key and meant for the internal network."""

import ipaddress
import os
import secrets
import time
import uuid

import structlog
from flask import Response, current_app, g, jsonify, request
from flask_openapi3 import APIBlueprint, OpenAPI, Tag
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from api.documentation import problems
from api.errors import APIError
from api.schemas import Health
from api.services import current_services
from api.state_metrics import StateCollector
from shared.errors import Code
from shared.observability import MULTIPROCESS_VARIABLE, REQUESTS, get_logger, metrics_registry

log = get_logger(__name__)
blueprint = APIBlueprint("health", __name__, abp_tags=[Tag(name="operations")])
MAX_REQUEST_ID = 128


@blueprint.get("/livez", operation_id="livez", responses={200: Health, **problems()})
def livez() -> Response:
    """Report that the process answers."""
    return jsonify({"status": "ok", "checks": {}})


@blueprint.get("/readyz", operation_id="readyz", responses={200: Health, 503: Health, **problems()})
def readyz() -> Response:
    """
    Report whether the database, the broker and storage are available.

    The result is at most a few seconds old. Nothing is written, so that it does not show whether storage accepts files.
    """
    checks = current_services().readiness.checks()
    is_ready = all(outcome == "ok" for outcome in checks.values())
    response = jsonify({"status": "ok" if is_ready else "unavailable", "checks": checks})
    response.status_code = 200 if is_ready else 503
    return response


@blueprint.get(
    "/metrics",
    operation_id="metrics",
    responses={
        "200": {"description": "Prometheus text.", "content": {"text/plain": {"schema": {"type": "string"}}}},
        **problems(404),
    },
)
def metrics() -> Response:
    """
    Return Prometheus metrics of all processes of this api, and of the state of the whole service.

    They need the token `api.metrics_token`; without one they are available only on loopback.
    """
    services = current_services()
    token = services.settings.api.metrics_token
    if token is not None:
        given = request.headers.get("Authorization", "")
        allowed = secrets.compare_digest(given.encode(), f"Bearer {token.get_secret_value()}".encode())
    else:
        allowed = _is_loopback(request.remote_addr or "")
    if not allowed:
        raise APIError(
            Code.NOT_FOUND, "metrics are not available from this address or with this token; see api.metrics_token"
        )
    state = CollectorRegistry()
    state.register(StateCollector(services.sessions, services.sender, services.settings.models.dir))
    counted = generate_latest(metrics_registry(os.environ.get(MULTIPROCESS_VARIABLE)))
    return Response(counted + generate_latest(state), content_type=CONTENT_TYPE_LATEST)


def register_request_log(app: OpenAPI) -> None:
    """Assign an id to every request, add it to its log events, and measure the request."""

    def begin() -> None:
        given = request.headers.get("X-Request-Id", "")
        usable = 0 < len(given) <= MAX_REQUEST_ID and given.isascii() and given.isprintable()
        g.request_id = given if usable else uuid.uuid4().hex
        g.began = time.monotonic()
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=g.request_id)

    def end(response: Response) -> Response:
        response.headers["X-Request-Id"] = g.get("request_id", "")
        response.headers.setdefault("Cache-Control", "no-store")
        route = request.url_rule.rule if request.url_rule else "(none)"
        seconds = time.monotonic() - g.get("began", time.monotonic())
        REQUESTS.labels(route=route, method=request.method, status=str(response.status_code)).observe(seconds)
        if current_app.debug or response.status_code >= 400 or request.method != "GET":
            log.info(
                "request",
                route=route,
                method=request.method,
                status=response.status_code,
                seconds=round(seconds, 4),
            )
        return response

    app.before_request_funcs.setdefault(None, []).insert(0, begin)
    app.after_request(end)


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:  # A proxy may forward anything.
        return False
