"""The metrics of a worker, served for Prometheus."""

import os

from prometheus_client import start_http_server

from shared.observability import MULTIPROCESS_VARIABLE, metrics_registry
from worker.config import Worker


def serve_metrics(worker: Worker) -> None:
    """Serve the metrics of this worker's processes from a thread; do nothing where no port is configured."""
    if worker.metrics_port is not None:
        registry = metrics_registry(os.environ.get(MULTIPROCESS_VARIABLE))
        start_http_server(worker.metrics_port, addr=worker.metrics_address, registry=registry)
