"""
JSON logs with bound keys, and the Prometheus metrics of both services.

Log events have keys, but never contain a file name, a URL or a token of a sender. ``bind`` adds ``job_id`` or
``request_id`` to every event of the current request or task.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, multiprocess
from prometheus_client.registry import REGISTRY

from shared.config import Logging

MULTIPROCESS_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable of prometheus_client: the folder in which processes of one service share their metrics."""

JOBS_ACCEPTED: Final = Counter("deepfakestream_jobs_accepted", "Jobs accepted, by kind of source.", ["source"])
JOBS_ENDED: Final = Counter("deepfakestream_jobs_ended", "Jobs ended, by status.", ["status"])
REQUESTS: Final = Histogram(
    "deepfakestream_http_request_seconds",
    "Seconds from request to response, by route, method and status.",
    ["route", "method", "status"],
)
TASK_SECONDS: Final = Histogram(
    "deepfakestream_task_seconds",
    "Seconds a task ran, by task and outcome.",
    ["task", "outcome"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300),
)
STAGE_SECONDS: Final = Histogram(
    "deepfakestream_stage_seconds",
    "Seconds of a stage of work: probe of a file; load, fetch, decode, detect, classify, record of a segment.",
    ["stage"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120),
)
FAKE_SCORES: Final = Histogram(
    "deepfakestream_fake_score",
    "Scores of succeeded jobs, by checkpoint.",
    ["model"],
    buckets=tuple(tenth / 10 for tenth in range(1, 11)),
)
VERDICTS: Final = Counter("deepfakestream_verdicts", "Verdicts of succeeded jobs.", ["model", "verdict"])
GPU_MEMORY: Final = Gauge(
    "deepfakestream_gpu_memory_bytes",
    "Memory of a GPU after the last segment, by device and kind: total, or used by all processes.",
    ["device", "kind"],
    multiprocess_mode="mostrecent",
)
GPU_UTILISATION: Final = Gauge(
    "deepfakestream_gpu_utilisation",
    "Utilisation of a GPU after the last segment, as a share of time.",
    ["device"],
    multiprocess_mode="mostrecent",
)
FRAMES: Final = Counter("deepfakestream_frames", "Frames decoded for scoring.")
FACES: Final = Counter("deepfakestream_faces", "Faces found, by whether they were scored.", ["scored"])
FAILURES: Final = Counter("deepfakestream_failures", "Failed steps, by task and error code.", ["task", "code"])
WEBHOOK_ATTEMPTS: Final = Counter(
    "deepfakestream_webhook_attempts", "Webhook delivery attempts, by outcome.", ["outcome"]
)
STREAM_SEGMENTS: Final = Counter(
    "deepfakestream_stream_segments",
    "Segments of live streams, by outcome: scored, unscorable, failed, dropped or gap.",
    ["outcome"],
)
STREAM_ALERTS: Final = Counter("deepfakestream_stream_alerts", "Alerts about people in live streams.", ["action"])
PUSH_CONNECTIONS: Final = Counter(
    "deepfakestream_push_connections",
    "Connections to the port for publishers, by outcome: accepted, refused, late, malformed or limited.",
    ["outcome"],
)
STREAM_DELAY_SECONDS: Final = Histogram(
    "deepfakestream_stream_delay_seconds",
    "Seconds from the arrival of a segment's last picture to the event with its score.",
    buckets=(0.25, 0.5, 1, 2, 3, 5, 7.5, 10, 15, 20, 30, 60),
)
RESENT: Final = Counter("deepfakestream_resent", "Messages that upkeep sent again, by kind.", ["kind"])


def configure_logging(settings: Logging) -> None:
    """Write events of structlog and of the standard library to standard error in the same format."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    structlog.configure(
        processors=[
            *shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    renderers: list[Any] = (
        [
            # Local variables are left out: they contain addresses, passwords and data of senders.
            structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False)),
            structlog.processors.JSONRenderer(),
        ]
        if settings.format == "json"
        else [
            # Without local variables, too; those of rich have them.
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
        ]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.PositionalArgumentsFormatter()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.level)
    # httpx, httpcore and werkzeug log full URLs, which are confidential; Celery's events repeat those of this project,
    # which have the job's id.
    for name in ("httpx", "httpcore", "werkzeug", "celery.worker.strategy", "celery.app.trace"):
        logging.getLogger(name).setLevel(logging.WARNING)


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """Return a logger whose events have *name*."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger


@contextmanager
def bind(**keys: Any) -> Iterator[None]:
    """Add *keys* to every event until the block ends."""
    with structlog.contextvars.bound_contextvars(**keys):
        yield


def metrics_registry(multiprocess_dir: str | None) -> CollectorRegistry:
    """Return the metrics of this process, or of all processes that share *multiprocess_dir*."""
    if not multiprocess_dir:
        return REGISTRY
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry, path=multiprocess_dir)  # type: ignore[no-untyped-call]
    return registry
