"""
``python -m tests.nodes``: test the service on several machines, and measure the gain from a second gpu worker.

Two API nodes, a cpu worker, beat, and first one, then two gpu workers share Postgres, Redis and an S3 server. Each runs
in its own network namespace if these are permitted. The same videos are scored by one and by both gpu workers. Prints
one JSON line; exits with status 1 if a job failed or had another result.
"""

import json
import os
import sys
import tempfile
import time
from io import BytesIO
from pathlib import Path
from statistics import median
from typing import Any

import click
from deepfakestream import Client

from shared.commands import POSITIVE
from shared.commands import SETTINGS as COMMAND
from tests.clips import make_clip
from tests.faults.audit import result
from tests.nodes.cluster import Cluster

# One process with one thread, so that each worker uses one core.
SETTINGS = {"WORKER__PROCESSES_PER_DEVICE": "1", "WORKER__THREADS_PER_PROCESS": "1"}


@click.command(context_settings=COMMAND, help=__doc__)
@click.option("--videos", type=int, default=6, help="Number of videos that are scored in each round.")
@click.option("--seconds", type=POSITIVE, default=20.0, help="Length of each video.")
@click.option("--rounds", type=click.IntRange(1), default=3, help="Rounds, of which the median counts.")
def main(videos: int, seconds: float, rounds: int) -> None:
    """Run the command line."""
    for name, value in SETTINGS.items():
        os.environ[f"DEEPFAKESTREAM_{name}"] = value
    with tempfile.TemporaryDirectory(prefix="dfs-nodes-") as folder:
        video = make_clip(Path(folder) / "clip.mp4", seconds=seconds, size=(1280, 720))
        with Cluster(Path(folder) / "state", gpu_workers=1) as cluster:
            report = run(cluster, video, videos, rounds)
    click.echo(json.dumps(report))
    sys.exit(0 if report["same_results"] else 1)


def run(cluster: Cluster, video: Path, videos: int, rounds: int) -> dict[str, Any]:
    """Measure videos per minute with one gpu worker and with two."""
    content = video.read_bytes()
    results: list[Any] = []
    minutes: dict[str, float] = {}
    with Client(cluster.url, cluster.api_key_file.read_text().strip()) as client:
        for workers in ("one", "two"):
            if workers == "two":
                cluster.add("worker-gpu", 2)
                wait_for(cluster, "worker-gpu-2")
            times = []
            for number in range(rounds + 1):
                began = time.monotonic()
                # Different bytes after the end make each a different file.
                jobs = [submit(client, content + f"{workers}{number}/{index}".encode()) for index in range(videos)]
                ended = [client.wait(job_id, timeout_s=600) for job_id in jobs]
                times.append(time.monotonic() - began)
                results += [result(job.raw) for job in ended]
            # The first round is a warm-up.
            minutes[workers] = videos * 60 / median(times[1:])
    return {
        "namespaces": cluster.network.has_namespaces,
        "nodes": sorted(cluster.nodes),
        "videos_a_minute_one_worker": round(minutes["one"], 1),
        "videos_a_minute_two_workers": round(minutes["two"], 1),
        "ratio": round(minutes["two"] / minutes["one"], 2),
        "jobs": len(results),
        "same_results": len({json.dumps(found, default=str) for found in results}) == 1
        and results[0][0] == "succeeded",
    }


def submit(client: Client, content: bytes) -> str:
    """Submit a video; return the job's id."""
    return client.submit(BytesIO(content)).id


def wait_for(cluster: Cluster, name: str, timeout_s: float = 120.0) -> None:
    """Wait until a worker logs that it is ready."""
    deadline = time.monotonic() + timeout_s
    log = cluster.state / "logs" / f"{name}.log"
    while "worker ready" not in log.read_text():
        if time.monotonic() > deadline:
            raise TimeoutError(log.read_text()[-2000:])
        time.sleep(0.2)


if __name__ == "__main__":
    main()
