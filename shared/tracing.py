"""
OpenTelemetry traces from a request through the queue to each segment. Off unless a collector's address is set.

The libraries come with the extra ``tracing`` and are loaded only if tracing is on. The instrumentation of Celery and
Flask passes the trace on in message headers; a message that upkeep sends again begins a new trace.
"""

from typing import Any

from shared.config import ConfigurationError, Tracing

_is_on = False


def start_tracing(settings: Tracing, service: str, app: Any = None) -> None:
    """
    Send spans of this process to the collector that *settings* name, if any. Call it after a fork.

    Args:
        service: Name of the service in traces.
        app: The Flask application to trace, in the api.

    Raises:
        ConfigurationError: A collector is set, but the libraries are not installed.
    """
    global _is_on
    if settings.otlp_endpoint is None:
        return
    try:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.instrumentation.celery import CeleryInstrumentor
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
    except ModuleNotFoundError as error:
        raise ConfigurationError("tracing.otlp_endpoint needs the extra 'tracing', which is not installed") from error
    provider = TracerProvider(
        sampler=ParentBasedTraceIdRatio(settings.sampled_share),
        resource=Resource.create({"service.name": f"deepfakestream-{service}"}),
    )
    exporter = OTLPSpanExporter(f"{settings.otlp_endpoint.rstrip('/')}/v1/traces", timeout=5)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    CeleryInstrumentor().instrument()  # type: ignore[no-untyped-call]
    if app is not None:
        from opentelemetry.instrumentation.flask import FlaskInstrumentor

        FlaskInstrumentor().instrument_app(  # type: ignore[no-untyped-call]
            app, response_hook=_remove_query, excluded_urls="livez,readyz,metrics"
        )
    _is_on = True


def _remove_query(span: Any, status: str, headers: Any) -> None:
    """Remove the query from a span, since it may contain metadata and addresses of senders."""
    del status, headers
    # This runs at the response, since the instrumentation sets attributes of a request after its request hook.
    for name, value in dict(span.attributes or {}).items():
        if name in {"http.target", "http.url", "url.full"}:
            span.set_attribute(name, str(value).partition("?")[0])
        elif name == "url.query":
            span.set_attribute(name, "")


def annotate(**keys: Any) -> None:
    """Add *keys* to the span of the current task or request, if tracing is on."""
    if _is_on:
        from opentelemetry import trace

        for name, value in keys.items():
            trace.get_current_span().set_attribute(f"deepfakestream.{name}", value)
