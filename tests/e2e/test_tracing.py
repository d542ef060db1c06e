"""A trace from a request to its segments, as an OpenTelemetry collector receives it."""

import threading
import time
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from deepfakestream import Client
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from api.embedded.stack import EmbeddedStack
from tests.servers import free_port, state_folder

PATIENCE_S = 60


@pytest.fixture
def collector():
    """Run an OTLP receiver; yield its address and the (service, span) pairs that it has received."""
    received = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            for part in ExportTraceServiceRequest.FromString(body).resource_spans:
                names = {item.key: item.value.string_value for item in part.resource.attributes}
                received.extend((names["service.name"], span) for scope in part.scope_spans for span in scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", received
        server.shutdown()
        thread.join()


RAN = [
    "run/deepfakestream.finish",
    "run/deepfakestream.ingest",
    "run/deepfakestream.score_segment",
    "run/deepfakestream.score_segment",
]


def test_a_trace_links_the_request_with_every_segment_and_the_finish(collector, clip, monkeypatch):
    address, received = collector
    monkeypatch.setenv("DEEPFAKESTREAM_TRACING__OTLP_ENDPOINT", address)
    monkeypatch.setenv("DEEPFAKESTREAM_WORKER__PROCESSES_PER_DEVICE", "1")
    ports = {name: free_port() for name in ("port", "flower_port", "push_port")}
    with state_folder() as state, EmbeddedStack(state, **ports) as stack:
        with Client(stack.url, stack.api_key_file.read_text().strip()) as client:
            # Options are in the query string here; traces must not contain them.
            job = client.submit(clip, segment_seconds=3.0, metadata={"case": "sealed"})
            job = client.wait(job.id, timeout_s=120)
        assert job.status == "succeeded"
        deadline = time.monotonic() + PATIENCE_S
        while True:
            trace = of_job(list(received), job.id)
            ran = [name for _, name, _ in trace if name.startswith("run/")]
            # Processes send their spans independently, in any order.
            if sorted(ran) == RAN:
                break
            assert time.monotonic() < deadline, sorted({span.name for _, span in received})
            time.sleep(0.5)
    assert "sealed" not in str(received)
    services = {service for service, _, _ in trace}
    assert services == {"deepfakestream-api", "deepfakestream-worker-cpu", "deepfakestream-worker-gpu"}
    assert any(name.startswith("POST /v1/jobs") for _, name, _ in trace)
    segments = {keys["deepfakestream.segment"] for _, name, keys in trace if name == "run/deepfakestream.score_segment"}
    assert segments == {0, 1}


def of_job(received, job_id):
    """Return (service, name, attributes) of all spans of the trace that has a span of this job."""
    traces = defaultdict(list)
    for service, span in received:
        keys = {item.key: item.value.string_value or item.value.int_value for item in span.attributes}
        traces[span.trace_id].append((service, span.name, keys))
    for spans in traces.values():
        if any(keys.get("deepfakestream.job_id") == job_id for _, _, keys in spans):
            return spans
    return []
