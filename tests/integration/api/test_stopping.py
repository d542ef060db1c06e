"""A stopping api answers waiting requests at once, under the real server."""

import http.client
import json
import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

from sqlalchemy import text

from tests.servers import free_port

PATIENCE_S = 30.0


@contextmanager
def served(api, **settings):
    """Run the api with these settings under gunicorn with one process; yield the server and its port."""
    port = free_port()
    values = {
        "DATABASE__URL": api.settings.database.url,
        "BROKER__URL": api.settings.broker.url,
        "STORAGE__URL": api.settings.storage.url,
        "API__PORT": port,
        "API__PROCESSES": 1,
        **settings,
    }
    environment = os.environ | {f"DEEPFAKESTREAM_{name}": str(value) for name, value in values.items()}
    command = [sys.executable, "-m", "gunicorn", "-c", "python:api.gunicorn"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            wait_until(lambda: server.poll() is None and is_ready(port))
            yield server, port
        finally:
            server.kill()


def is_ready(port):
    try:
        return ask(port, "/readyz", {})[0] == http.client.OK
    except OSError:
        return False


def ask(port, path, headers):
    """Send a request and return status, document and headers of the response."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read()), answer.headers
    finally:
        connection.close()


def wait_until(condition):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.02)


def test_a_waiting_request_is_answered_when_the_api_stops(make_api):
    """A wait may be longer than the grace period, after which it would be aborted without a response."""
    api = make_api()
    auth, _ = api.key()
    path = api.submit(auth).headers["Location"]
    answers = []

    def wait():
        answers.append(ask(port, path, {**auth, "Prefer": "wait=50"}))

    def is_waiting():
        """Return whether the process listens, which begins with the first waiting request."""
        with api.sessions.transaction() as session:
            listening = (
                "select count(*) from pg_stat_activity where datname = current_database() and query ~ '^listen '"
            )
            return session.scalar(text(listening)) > 0

    with served(api, API__SHUTDOWN_GRACE_S=3) as (server, port):
        waiting = threading.Thread(target=wait)
        waiting.start()
        wait_until(is_waiting)
        server.terminate()
        waiting.join(PATIENCE_S)
        assert server.wait(PATIENCE_S) == 0
    ((status, document, headers),) = answers
    assert (status, document["status"], headers["Preference-Applied"]) == (http.client.OK, "queued", None)
