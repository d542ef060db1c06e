"""
``python -m tests.load --seconds N``: test the whole service at several times its capacity.

Starts the embedded stack with two API processes and a short queue, measures how many small pictures it scores per
second, and then submits several times as many while other clients poll. Prints one JSON line; exits with status 1 if a
response was unexpected, an accepted job did not end, or the queue exceeded its limit.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import click
from deepfakestream import Client

from api.embedded.stack import EmbeddedStack
from shared.commands import POSITIVE, SETTINGS
from tests.clips import noise_picture
from tests.inside import postgres_of
from tests.nodes.cluster import Cluster
from tests.options import nodes_option

HERE = Path(__file__).parent
WARM_UP_JOBS = 6
DRAIN_S = 120.0
"""Timeout for jobs that are open at the end."""


@click.command(context_settings=SETTINGS, help=__doc__)
@click.option("--seconds", type=click.IntRange(1), default=60, help="Duration of the load.")
@click.option("--times", type=POSITIVE, default=4.0, help="Load as a multiple of the capacity.")
@click.option("--polls", type=click.FloatRange(0), default=20.0, help="Polls per second.")
@click.option("--max-open-jobs", type=int, default=100, help="Limit of open jobs.")
@nodes_option
def main(*, seconds: int, times: float, polls: float, max_open_jobs: int, nodes: bool) -> None:
    """Run the command line."""
    settings = {"PROCESSES": 2, "MAX_OPEN_JOBS": max_open_jobs, "MAX_OPEN_JOBS_PER_OWNER": max_open_jobs}
    for name, value in settings.items():
        os.environ[f"DEEPFAKESTREAM_API__{name}"] = str(value)
    kind = Cluster if nodes else EmbeddedStack
    with tempfile.TemporaryDirectory(prefix="dfs-load-") as state, kind(Path(state)) as stack:
        report = run(stack, max_open_jobs, seconds=seconds, times=times, polls_per_s=polls)
    click.echo(json.dumps(report))
    in_order = not report["not_in_order"] and not report["unfinished"]
    # All jobs are of one owner, whose limit also holds for requests at the same time.
    sys.exit(0 if in_order and report["most_open_jobs"] <= max_open_jobs else 1)


def run(stack: EmbeddedStack, max_open_jobs: int, *, seconds: int, times: float, polls_per_s: float) -> dict[str, Any]:
    """Measure the capacity, submit *times* as much for *seconds*, and wait for every accepted job."""
    key = stack.api_key_file.read_text().strip()
    with Client(stack.url, key) as client:
        capacity = measure_capacity(client, max_open_jobs)
        accepted_file = stack.state / "accepted"
        environment = {
            **os.environ,
            "DEEPFAKESTREAM_API_KEY": key,
            "SUBMISSIONS_PER_S": str(capacity * times),
            "POLLS_PER_S": str(polls_per_s),
            "ACCEPTED_FILE": str(accepted_file),
        }
        command = [sys.executable, "-m", "locust", "-f", str(HERE / "locustfile.py"), "--headless", "--json"]
        command += ["--only-summary", "--loglevel", "ERROR", "--host", stack.url, "--users", "20"]
        command += ["--spawn-rate", "20", "--run-time", f"{seconds}s"]
        with watched_queue(stack) as depths:
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
        rows = {row["name"]: row for row in json.loads(done.stdout)}
        accepted = accepted_file.read_text().split()
        unfinished = wait_for_all(client, accepted)
    polls = rows.get("poll", {})
    return {
        "capacity_per_s": round(capacity, 2),
        "offered_per_s": round(capacity * times, 2),
        "seconds": seconds,
        "accepted": len(accepted),
        "shed": count(rows, "shed"),
        "not_in_order": count(rows, "not in order"),
        "unfinished": unfinished,
        "most_open_jobs": max(depths, default=0),
        "max_open_jobs": max_open_jobs,
        "polls": count(rows, "poll"),
        "poll_ms": {f"p{share:g}": percentile(polls.get("response_times", {}), share) for share in (50, 95, 99)},
        "shed_ms_p99": percentile(rows.get("shed", {}).get("response_times", {}), 99),
    }


def measure_capacity(client: Client, jobs: int) -> float:
    """Measure how many small pictures are scored per second while the queue is never empty."""
    ids: list[str] = []
    began = 0.0
    for number in range(WARM_UP_JOBS + jobs):
        if number == WARM_UP_JOBS:
            wait_for_all(client, ids)
            ids, began = [], time.monotonic()
        ids.append(client.submit(BytesIO(noise_picture(10**6 + number))).id)
    wait_for_all(client, ids)
    return jobs / (time.monotonic() - began)


@contextmanager
def watched_queue(stack: EmbeddedStack) -> Iterator[list[int]]:
    """Count open jobs five times a second while the context lasts; yield the list of counts."""
    depths: list[int] = []
    over = threading.Event()

    def watch() -> None:
        with postgres_of(stack) as connection:
            while not over.wait(0.2):
                row = connection.execute("select count(*) from jobs where status in ('queued', 'running')").fetchone()
                depths.append(row[0] if row else 0)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield depths
    finally:
        over.set()
        thread.join()


def wait_for_all(client: Client, ids: list[str]) -> int:
    """Wait for jobs; return how many have not ended within ``DRAIN_S``."""
    deadline = time.monotonic() + DRAIN_S
    left = set(ids)
    while left and time.monotonic() < deadline:
        left = {job_id for job_id in left if not client.get(job_id).is_final}
        time.sleep(0.2 if left else 0.0)
    return len(left)


def count(rows: dict[str, Any], name: str) -> int:
    """Return the number of requests that locust counted under *name*."""
    return int(rows.get(name, {}).get("num_requests", 0))


def percentile(times_ms: dict[str, int], share: float) -> float | None:
    """Compute a percentile of a histogram of milliseconds; None if it is empty."""
    rank = sum(times_ms.values()) * share / 100
    count_below = 0
    for value in sorted(times_ms, key=float):
        count_below += times_ms[value]
        if count_below >= rank:
            return float(value)
    return None


if __name__ == "__main__":
    main()
