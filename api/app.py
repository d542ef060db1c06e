"""The api's composition root."""

from threading import BoundedSemaphore

from flask import redirect
from flask_openapi3 import Info, OpenAPI
from werkzeug.wrappers import Response

# Those that are not registered below add their routes to the blueprint of jobs, since the document of a second
# blueprint would replace that.
from api import (  # noqa: F401
    batches,
    deliveries,
    direct_uploads,
    evidence,
    explanations,
    health,
    jobs,
    last_faces,
    models,
    recordings,
    rescoring,
    reviews,
    shares,
    stream_events,
    streams,
    submission,
    usage,
)
from api.admission import register_rate_limits
from api.auth import register_auth
from api.config import APISettings
from api.cors import register_cors
from api.documentation import DESCRIPTION, SECURITY_SCHEMES
from api.errors import register_error_handlers, validation_problem
from api.examples import ExampledAPI
from api.listener import JobEndListener
from api.queries import register_query_check
from api.readiness import Readiness
from api.schemas import Problem
from api.security import add_security_headers, trust_proxies
from api.services import Services
from api.signing import load_keys
from api.slots import KeyedSlots
from api.timestamps import make_stamp
from api.uploads import StreamingRequest, drain_unread
from api.version import VERSION
from api.web import explained_routes, inputs, live_routes, pages  # noqa: F401
from api.webhook_documentation import describe_webhooks, payload_schemas
from shared.config import load_settings
from shared.db import make_engine
from shared.effects import make_session_factory
from shared.manifests import check_manifests, find_manifest
from shared.observability import configure_logging, get_logger
from shared.queues import Sender, make_celery
from shared.storage import Storage, open_storage
from shared.tracing import start_tracing

log = get_logger(__name__)


def create_app(settings: APISettings, *, storage: Storage | None = None, sender: Sender | None = None) -> OpenAPI:
    """
    Make the application of one process. Call it after the fork.

    Args:
        settings: The settings of the api.
        storage: Replaces the storage that *settings* name.
        sender: Replaces the sender to the broker that *settings* name.

    Raises:
        UnknownModelError: The default checkpoint is not installed: each job without ``model`` would be refused.
        ModelError: The default checkpoint's manifest exists but cannot be read. Others are logged.
        ConfigurationError: A key for evidence bundles cannot be read, or time stamps need a package.
    """
    for reason in check_manifests(settings.models.dir, settings.models.default):
        log.error("checkpoint refused", reason=reason)
    find_manifest(settings.models.dir, settings.models.default)
    app = ExampledAPI(
        "api",
        info=Info(title="DeepfakeStream", version=VERSION, description=DESCRIPTION),
        security_schemes=SECURITY_SCHEMES,
        validation_error_model=Problem,
        validation_error_callback=validation_problem,
        doc_prefix="",
        doc_url="/openapi.json",
        openapi_extensions={"webhooks": describe_webhooks()},
    )
    app.components_schemas |= payload_schemas()
    app.request_class = StreamingRequest
    app.json.sort_keys = False  # type: ignore[attr-defined]
    # With fewer connections than threads, connections would be opened and closed all the time under load.
    engine = make_engine(settings.database, threads=settings.api.threads)
    storage = storage or open_storage(settings.storage)
    sender = sender or Sender(make_celery(settings.broker, settings.jobs))
    sessions = make_session_factory(engine, sender, storage)
    listener = JobEndListener(
        engine,
        (settings.api.listen_url or settings.database.url) if settings.api.listen else None,
        connect_timeout_s=settings.database.connect_timeout_s,
        poll_every_s=settings.api.poll_every_s,
    )
    app.extensions["deepfakestream"] = Services(
        settings=settings,
        sessions=sessions,
        storage=storage,
        sender=sender,
        listener=listener,
        readiness=Readiness({"database": sessions.check, "broker": sender.check, "storage": storage.ping}),
        waiting=BoundedSemaphore(settings.api.waiting),
        uploading=BoundedSemaphore(settings.api.uploads),
        small_uploading=BoundedSemaphore(settings.api.uploads),
        receiving=KeyedSlots(direct_uploads.BODIES_PER_UPLOAD),
        streaming=BoundedSemaphore(settings.api.streaming),
        bundling=BoundedSemaphore(settings.api.bundles),
        setting_pdf=BoundedSemaphore(settings.api.pdfs),
        viewing=BoundedSemaphore(settings.api.viewing),
        viewing_images=BoundedSemaphore(settings.api.viewing),
        evidence_keys=load_keys(settings.evidence),
        stamp=make_stamp(settings.evidence.timestamp_url),
    )
    register_cors(app, settings.api.cors_origins)
    # The order matters: a client over its rate limit is refused before its key is looked up.
    register_rate_limits(app, settings)
    register_auth(app, sessions)
    register_query_check(app)
    health.register_request_log(app)
    register_error_handlers(app)
    app.after_request(drain_unread)
    app.after_request(add_security_headers)
    for module in (jobs, streams, direct_uploads, deliveries, evidence, models, health):
        app.register_api(module.blueprint)
    app.register_api(direct_uploads.content)
    app.register_blueprint(pages.blueprint)
    app.add_url_rule("/docs", "docs", _to_docs)
    # In place of the library's page of links.
    app.view_functions["openapi.openapi"] = pages.jobs
    trust_proxies(app, settings.api.trusted_proxies)
    return app


def from_environment() -> OpenAPI:
    """Make the application from the environment, for gunicorn: ``api.app:from_environment()``."""
    settings = load_settings(APISettings)
    configure_logging(settings.logging)
    app = create_app(settings)
    start_tracing(settings.tracing, "api", app)
    return app


def _to_docs() -> Response:
    return redirect("/swagger")
