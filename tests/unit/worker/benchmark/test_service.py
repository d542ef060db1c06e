"""What the service's benchmark does when the service is busy, against a real HTTP server with scripted answers."""

import json
import threading
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from worker.benchmark import service
from worker.benchmark.errors import BenchmarkError
from worker.benchmark.service import APIConnection, BusyError, measure_submissions_per_s

BUSY = (503, {"Retry-After": "0"}, {"code": "too_many_uploads"})


@contextmanager
def answering(*answers):
    """Serve the first of *answers*, then the next, and jobs after the last one; give the address and what was sent."""
    left, sent, lock = list(answers), [], threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with lock:
                sent.append(body)
                status, headers, document = left.pop(0) if left else (202, {}, {"id": f"job-{len(sent)}"})
            self.answer(status, headers, json.dumps(document).encode())

        def do_DELETE(self):
            self.answer(204, {}, b"")

        def answer(self, status, headers, data):
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if status != 204:
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", sent
        finally:
            server.shutdown()
            thread.join()


def test_a_submission_is_sent_again_when_the_service_was_busy():
    with answering(BUSY, BUSY) as (url, sent), closing(APIConnection(url, "key")) as api:
        assert api.submit(b"picture") == "job-3"
        assert (sent, api.refusals) == ([b"picture"] * 3, 2)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ((503, {"Retry-After": "10"}, {"code": "too_many_uploads"}), BusyError),
        ((503, {}, {"code": "too_many_uploads"}), BenchmarkError),
        ((503, {"Retry-After": "0"}, {"code": "service_unavailable"}), BenchmarkError),
        ((429, {"Retry-After": "0"}, {"code": "rate_limited"}), BenchmarkError),
    ],
    ids=["for too long", "for an unknown time", "a database that is away", "a rate"],
)
def test_a_submission_that_is_refused_otherwise_ends_the_benchmark(monkeypatch, answer, kind):
    monkeypatch.setattr(service, "TIMEOUT_S", 5.0)
    with answering(answer) as (url, sent), closing(APIConnection(url, "key")) as api:
        with pytest.raises(kind, match=answer[2]["code"]):
            api.submit(b"picture")
        assert len(sent) == 1


def test_the_rate_is_of_all_submissions_and_says_how_many_were_refused_at_first():
    with answering(BUSY) as (url, sent):
        rate, refusals = measure_submissions_per_s(url, "key", 6, 4)
    assert rate > 0.0
    assert (refusals, len(sent)) == (1, 7)
    assert len(set(sent)) == 6
