"""
``python -m tests.load.rows``: measure how many segments per second Postgres and Redis can handle, without scoring.

For each segment, processes do what a gpu worker does with Postgres and Redis: take a message, lease, read, record.
Prints one JSON line, from which docs/operations.md derives the size of a cluster.
"""

import json
import multiprocessing
import time
import uuid
from typing import Any

import click
import redis as redis_client
from sqlalchemy import text

from migrations.schema import migrate
from shared.commands import SETTINGS
from shared.config import Database
from shared.db import SessionFactory, make_engine
from shared.jobs.leases import Step, acquire
from shared.jobs.queries import get_job
from shared.jobs.results import record_plan, record_segment
from tests.integration.rows import add_job
from tests.servers import new_database, running_postgres, running_redis

SEGMENTS_OF_A_JOB = 12
FACE = {
    "time_s": 1.0,
    "box_px": [100.0, 100.0, 300.0, 340.0],
    "landmarks_px": [[150.0, 180.0], [250.0, 180.0], [200.0, 230.0], [160.0, 290.0], [240.0, 290.0]],
    "confidence": 0.999,
    "size_px": 200.0,
    "sharpness": 120.5,
    "problem": None,
    "fake_score": 0.1234,
}
RESULT = {"reasons": [], "faces_found": 10, "faces_scored": 10, "frames_decoded": 10, "engine": "torch-float16"} | {
    "people": [{"person": 0, "fake_score": 0.1234, "faces": [FACE] * 10}]
}


@click.command(context_settings=SETTINGS, help=__doc__)
@click.option("--jobs", type=int, default=400, help=f"Number of jobs, each with {SEGMENTS_OF_A_JOB} segments.")
@click.option("--workers", type=int, default=4, help="Processes that empty the queue.")
def main(jobs: int, workers: int) -> None:
    """Run the command line."""
    with running_redis() as redis, running_postgres() as server, new_database(server) as url:
        click.echo(json.dumps(run(url, redis.port, jobs, workers)))


def run(url: str, redis_port: int, jobs: int, workers: int) -> dict[str, Any]:
    """Fill the tables and the queue, then let *workers* processes empty it."""
    engine = make_engine(Database(url=url))
    migrate(engine)
    sessions = SessionFactory(engine)
    queue = redis_client.Redis(port=redis_port)
    began = time.monotonic()
    for _ in range(jobs):
        with sessions.transaction() as session:
            job_id = add_job(session).id
        with sessions.transaction() as session:
            held = acquire(session, Step.INGEST, (job_id,), 3600, max_attempts=9)
            if held is None:
                raise RuntimeError("a fresh job cannot be leased")
            plan = [(index, index * 5.0, index * 5.0 + 5.0) for index in range(SEGMENTS_OF_A_JOB)]
            record_plan(session, held, {}, plan)
        queue.rpush("q", *(f"{job_id} {index}" for index in range(SEGMENTS_OF_A_JOB)))
    planned_s = time.monotonic() - began
    processes = [multiprocessing.Process(target=work, args=(url, redis_port)) for _ in range(workers)]
    began = time.monotonic()
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    seconds = time.monotonic() - began
    with sessions.transaction() as session:
        session.execute(text("analyze"))
        done = session.scalar(text("select count(*) from segments where status = 'scored'"))
        size = session.scalar(text("select pg_total_relation_size('segments')"))
    engine.dispose()
    count = jobs * SEGMENTS_OF_A_JOB
    if done != count:
        raise RuntimeError(f"{done} of {count} segments were recorded")
    return {
        "workers": workers,
        "segments": count,
        "segments_per_s": round(count / seconds),
        "jobs_planned_per_s": round(jobs / planned_s),
        "bytes_a_segment": round((size or 0) / count),
    }


def work(url: str, redis_port: int) -> None:
    """Process segments until the queue is empty."""
    engine = make_engine(Database(url=url))
    sessions, queue = SessionFactory(engine), redis_client.Redis(port=redis_port)
    while message := queue.lpop("q"):
        job_text, index_text = message.decode().split()  # type: ignore[union-attr]
        job_id, index = uuid.UUID(job_text), int(index_text)
        with sessions.transaction() as session:
            held = acquire(session, Step.SCORE, (job_id, index), 30, max_attempts=9)
        with sessions.transaction() as session:
            get_job(session, job_id)
        if held is not None:
            with sessions.transaction() as session:
                record_segment(session, held, fake_score=0.1234, result=RESULT)
    engine.dispose()


if __name__ == "__main__":
    main()
