"""
``python -m tests.load.polling``: measure the cost of polling and deleting a job by its number of segments.

Starts a Postgres, a Redis and, for each size, the API under gunicorn with one process. Writes jobs of these sizes with
the results of a video of two people, polls each over one connection, in turns, and deletes it. Prints a table and one
JSON line.
"""

import http.client
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import click
import psycopg

from api.keys import create_key
from migrations.schema import migrate
from shared.commands import POSITIVE
from shared.config import Database
from shared.db import SessionFactory, make_engine
from tests.integration.rows import add_job
from tests.servers import free_port, new_database, running_postgres, running_redis

PEOPLE, FACES = 2, 10
"""People in each segment, and faces of each person."""
VARIANTS = 50
"""Number of different results; the database compresses each row separately."""
SIZES = (1, 1000, 10_000)
PATIENCE_S = 60.0
SLICE_S = 1.0
"""How long a job is polled before the next one."""
LOOK_CHARACTERS = 344


@click.command(context_settings={"show_default": True}, help=__doc__)
@click.option("--segments", type=int, multiple=True, default=SIZES, help="Segments of a job; can be repeated.")
@click.option("--polls", type=int, default=500, help="Number of polls of each job.")
@click.option("--seconds", type=POSITIVE, default=60.0, help="Longest time in which a job is polled.")
def main(segments: tuple[int, ...], polls: int, seconds: float) -> None:
    """Run the command line."""
    with ExitStack() as running:
        redis = running.enter_context(running_redis())
        url = running.enter_context(new_database(running.enter_context(running_postgres())))
        engine = make_engine(Database(url=url))
        running.callback(engine.dispose)
        migrate(engine)
        sessions = SessionFactory(engine)
        with sessions.transaction() as session:
            key = create_key(session, owner="somebody", name="test", scopes=["jobs:write", "jobs:read"]).secret
        jobs = []
        for count in segments:
            with sessions.transaction() as session:
                job_id = add_job(session, owner="somebody").id
            add_segments(url, job_id, count)
            jobs.append(PolledJob(count, job_id, key, *running.enter_context(running_api(url, redis.url))))
        # In turns, so that other load on the machine affects all sizes equally.
        while waiting := [job for job in jobs if not job.is_done(polls, seconds)]:
            for job in waiting:
                job.poll_for(SLICE_S, polls)
        rows = [job.report() for job in jobs]
    print_table(rows)
    click.echo(json.dumps(rows))


def add_segments(url: str, job_id: uuid.UUID, count: int) -> None:
    """Give a running job *count* segments, all of them scored; if there are several, the last one is pending."""
    results = [json.dumps(make_result(random.Random(number))) for number in range(VARIANTS)]
    looks = json.dumps(["x" * LOOK_CHARACTERS] * PEOPLE)
    columns = "job_id, index, start_s, end_s, status, fake_score, result, looks, attempts, started_at, finished_at"
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        connection.execute("update jobs set status = 'running', segments_total = %s where id = %s", (count, job_id))
        now = connection.execute("select now()").fetchone()
        moment = now[0] if now else None
        with connection.cursor().copy(f"copy segments ({columns}) from stdin") as copy:
            for index in range(count):
                found: tuple[Any, ...] = ("scored", 0.25, results[index % VARIANTS], looks, 1, moment, moment)
                if index and index == count - 1:
                    found = ("pending", None, None, None, 0, None, None)
                copy.write_row((job_id, index, index * 5.0, index * 5.0 + 5.0, *found))
        summarise(connection)
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("vacuum analyze")


def summarise(connection: psycopg.Connection[Any]) -> None:
    """Fill the summary columns as a worker does; older schemas do not have them."""
    known = connection.execute(
        "select 1 from information_schema.columns where table_name = 'segments' and column_name = 'people_count'"
    ).fetchone()
    if known:
        connection.execute(
            "update segments set people_count = jsonb_array_length(result -> 'people'),"
            " faces_found = (result ->> 'faces_found')::int, faces_scored = (result ->> 'faces_scored')::int,"
            " frames_decoded = (result ->> 'frames_decoded')::int, engine = result ->> 'engine',"
            " reasons = result -> 'reasons' where result is not null and people_count is null"
        )


def make_result(chance: random.Random) -> dict[str, Any]:
    """Make the result of a segment, with random numbers, which compress as badly as real ones."""

    def face(frame: int) -> dict[str, Any]:
        left, top, size = (round(chance.uniform(0, 900), 1) for _ in range(3))
        return {
            "time_s": round(frame / 2, 4),
            "box_px": [left, top, round(left + size, 1), round(top + size, 1)],
            "landmarks_px": [[round(chance.uniform(0, 1900), 1), round(chance.uniform(0, 1000), 1)] for _ in range(5)],
            "confidence": round(chance.uniform(0.9, 1), 4),
            "size_px": size,
            "sharpness": round(chance.uniform(10, 200), 2),
            "problem": None,
            "fake_score": chance.random(),
            "luma": round(chance.uniform(40, 200), 1),
            "turned_deg": 0,
        }

    people = [
        {"person": person, "fake_score": chance.random(), "faces": [face(frame) for frame in range(FACES)]}
        for person in range(PEOPLE)
    ]
    counts = {"frames_decoded": FACES, "faces_found": PEOPLE * FACES, "faces_scored": PEOPLE * FACES}
    return {"fake_score": 0.25, "reasons": [], **counts, "people": people, "engine": "openvino-float32"}


@contextmanager
def running_api(database_url: str, broker_url: str) -> Iterator[tuple[int, int]]:
    """Run the API under gunicorn; yield its port and the id of its worker process."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="dfs-polling-") as folder:
        settings = {
            "DATABASE__URL": database_url,
            "BROKER__URL": broker_url,
            "STORAGE__URL": f"file://{folder}",
            "API__PORT": str(port),
            "API__PROCESSES": "1",
            "API__REQUESTS_PER_MINUTE": "1000000",
        }
        environment = os.environ | {f"DEEPFAKESTREAM_{name}": value for name, value in settings.items()}
        command = [sys.executable, "-m", "gunicorn", "-c", "python:api.gunicorn"]
        server = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_for(port)
            children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
            yield port, int(children[0])
        finally:
            server.terminate()
            server.wait()


def wait_for(port: int) -> None:
    """Wait until the API is ready."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
        try:
            connection.request("GET", "/readyz")
            if connection.getresponse().status == http.client.OK:
                return
        except OSError:
            if time.monotonic() > deadline:
                raise
        finally:
            connection.close()
        time.sleep(0.1)


class PolledJob:
    """A job with its own API process, so that the peak memory of the process is that of the job."""

    def __init__(self, count: int, job_id: uuid.UUID, key: str, port: int, process: int) -> None:
        self._count, self._key, self._process = count, key, process
        self._path = f"/v1/jobs/{job_id}"
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
        # The first request opens the process's connections.
        self._body = ask(self._connection, "GET", self._path, key)
        self._processor_ms = processor_ms(process)
        self._times_ms: list[float] = []

    def is_done(self, polls: int, seconds: float) -> bool:
        """Whether it was polled often enough, or for long enough."""
        return len(self._times_ms) >= polls or sum(self._times_ms) >= seconds * 1e3

    def poll_for(self, seconds: float, polls: int) -> None:
        """Poll once, and again until *seconds* are over or there were *polls* in all."""
        # The API closes connections that are idle for long, as this one is while other jobs are polled.
        self._connection.close()
        over = time.monotonic() + seconds
        while True:
            began = time.perf_counter()
            self._body = ask(self._connection, "GET", self._path, self._key)
            self._times_ms.append((time.perf_counter() - began) * 1e3)
            if time.monotonic() > over or len(self._times_ms) >= polls:
                return

    def report(self) -> dict[str, Any]:
        """Return the figures and delete the job."""
        used_ms = processor_ms(self._process) - self._processor_ms
        peak_mb = memory_mb(self._process, "VmHWM")
        self._connection.close()
        began = time.perf_counter()
        ask(self._connection, "DELETE", self._path, self._key)
        erased_ms = (time.perf_counter() - began) * 1e3
        self._connection.close()
        return {
            "segments": self._count,
            "polls": len(self._times_ms),
            "p50_ms": round(median(self._times_ms), 2),
            "p99_ms": round(quantiles(self._times_ms, n=100, method="inclusive")[98], 2),
            "processor_ms": round(used_ms / len(self._times_ms), 2),
            "body_kb": round(len(self._body) / 1e3, 1),
            "peak_mb": peak_mb,
            "delete_ms": round(erased_ms, 1),
            "peak_with_delete_mb": memory_mb(self._process, "VmHWM"),
        }


def processor_ms(process: int) -> float:
    """Read the CPU time that a process has used, in milliseconds."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1e3 / os.sysconf("SC_CLK_TCK")


def ask(connection: http.client.HTTPConnection, method: str, path: str, key: str) -> bytes:
    """Send a request; return the body of the response, or raise RuntimeError if it is an error."""
    connection.request(method, path, headers={"Authorization": f"Bearer {key}"})
    answer = connection.getresponse()
    body = answer.read()
    if answer.status >= http.client.BAD_REQUEST:
        raise RuntimeError(f"{method} {path}: {answer.status} {body[:200]!r}")
    return body


def memory_mb(process: int, name: str) -> float:
    """Read a figure of a process's memory from /proc, in megabytes."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return round(int(next(line for line in lines if line.startswith(f"{name}:")).split()[1]) / 1024, 1)


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print the table of docs/performance.md."""
    click.echo("| segments | poll, p50 | p99 | processor | body | peak memory | DELETE |")
    click.echo("| --- | --- | --- | --- | --- | --- | --- |")
    for row in rows:
        click.echo(
            f"| {row['segments']:,} | {row['p50_ms']} ms | {row['p99_ms']} ms | {row['processor_ms']} ms"
            f" | {row['body_kb']} KB | {row['peak_with_delete_mb']} MB | {row['delete_ms']} ms |"
        )


if __name__ == "__main__":
    main()
