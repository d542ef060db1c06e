"""
Traces, from a request over the queue to each segment, by OpenTelemetry. Off unless an address to send them to is given.

The libraries come with the extra ``tracing`` and are loaded only where it is on. Celery's and Flask's own
instrumentation carries a trace in the headers of messages; what upkeep sends again begins a new one.
"""

from typing import Any

from shared.config import ConfigurationError, Tracing

_is_on = False


def start_tracing(settings: Tracing, service: str, app: Any = None) -> None:
    """
    Send spans of this process to the collector that *settings* name, if any. Call it after a fork.

    Args:
        service: As the traces name it.
        app: The Flask application whose requests are traced, in the api.

    Raises:
        ConfigurationError: An address is given, and the libraries are not installed.
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
        raise ConfigurationError("tracing.otlp_endpoint: the extra 'tracing' is not installed") from error
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
    """Options may stand in a request's query, and with them metadata and addresses of senders."""
    del status, headers
    # At the response, since what is set at the request is set after its hook.
    for name, value in dict(span.attributes or {}).items():
        if name in {"http.target", "http.url", "url.full"}:
            span.set_attribute(name, str(value).partition("?")[0])
        elif name == "url.query":
            span.set_attribute(name, "")


def annotate(**keys: Any) -> None:
    """Put *keys* on the span of the current task or request, if it is traced."""
    if _is_on:
        from opentelemetry import trace

        for name, value in keys.items():
            trace.get_current_span().set_attribute(f"deepfakestream.{name}", value)
