"""
``python -m tests.faults --minutes N --seed S``: test the whole service under load while its parts are killed.

A real Postgres, Redis, API with two processes, workers of all roles and beat serve a steady load of mixed jobs and
watch live streams of every protocol, while faults are injected at random times (``faults.py``), and others into the
cameras of the streams (``cameras.py``). Afterwards everything may recover, and the state is audited. Prints one JSON
line; exits with status 1 if an accepted job was lost, duplicated, stuck, or has a result that differs from that of an
undisturbed run, or if a stream did not end well.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import httpx

from api.embedded.ports import find_free_port
from api.embedded.stack import EmbeddedStack
from shared.commands import POSITIVE
from shared.commands import SETTINGS as COMMAND
from shared.config import Logging
from shared.observability import configure_logging
from tests.faults.audit import FINAL, audit, result, wait_for_quiet
from tests.faults.faults import AWAY_S, FAKETIME, TAKEOVER_S, Faults, Supervisor, mount_own_storage
from tests.faults.live import live_streams
from tests.faults.receiver import moody_receiver
from tests.faults.steady import Load, make_files
from tests.inside import start_another
from tests.nodes.cluster import Cluster
from tests.options import nodes_option, seed_option

SETTINGS = {
    "API__PROCESSES": "2",
    "WORKER__PROCESSES_PER_DEVICE": "2",
    "WORKER__THREADS_PER_PROCESS": "1",
    # Two readers, each of which can read all streams.
    "WORKER__STREAMS": "6",
    "JOBS__LEASE_S": "3",
    "JOBS__SWEEP_EVERY_S": "1",
    "JOBS__RESEND_AFTER_S": "3",
    "JOBS__RETRY_BACKOFF_S": "0.5",
    # Faults are so frequent that one segment may be hit many times; the limit of attempts is tested elsewhere.
    "JOBS__MAX_ATTEMPTS": "50",
    "WEBHOOKS__TIMEOUT_S": "2",
    "WEBHOOKS__RETRY_SCHEDULE_S": json.dumps([1.0] * 40),
}
CLIENTS = 3
PAUSE_S = 3.0
ANSWER_S = 60.0
"""Timeout for the clients' last responses, after the last fault."""
QUIET_S = 240.0


@click.command(context_settings=COMMAND, help=__doc__)
@click.option("--minutes", type=POSITIVE, default=5.0, help="Minutes in which faults are injected.")
@seed_option
@click.option("--every", "every_s", type=POSITIVE, default=6.0, help="Mean number of seconds between faults.")
@click.option("--away", "away_s", type=POSITIVE, default=AWAY_S, help="Seconds of an outage of Redis or Postgres.")
@nodes_option
@click.option("--logs", type=click.Path(path_type=Path), help="Keep the services' logs in this folder.")
def main(minutes: float, seed: int, *, every_s: float, away_s: float, nodes: bool, logs: Path | None) -> None:
    """Run the command line."""
    # The audit uses parts of the service in this process, which must not log to standard output.
    configure_logging(Logging(level="WARNING"))
    for name, value in SETTINGS.items():
        os.environ[f"DEEPFAKESTREAM_{name}"] = value
    report = run(minutes, seed, every_s=every_s, away_s=away_s, logs=logs, nodes=nodes)
    click.echo(json.dumps(report))
    sys.exit(0 if report["clean"] else 1)


def run(minutes: float, seed: int, *, every_s: float, away_s: float, logs: Path | None, nodes: bool) -> dict[str, Any]:
    """Generate load, inject faults, wait until all jobs have ended, and audit the state."""
    rng = random.Random(seed)
    with ExitStack() as running:
        state = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="dfs-faults-")))
        own_storage = not nodes and mount_own_storage(state / "storage")
        if own_storage:
            running.callback(subprocess.run, ["umount", state / "storage"], check=False)
        stack = running.enter_context(Cluster(state) if nodes else EmbeddedStack(state))
        if logs is not None:
            running.callback(_keep_logs, stack, logs)
        key, secret = (file.read_text().strip() for file in (stack.api_key_file, stack.webhook_secret_file))
        webhook_url, memory = running.enter_context(moody_receiver(secret, seed))
        if isinstance(stack, Cluster):
            webhook_url = stack.seen_by_nodes(webhook_url)
        folder = Path(running.enter_context(tempfile.TemporaryDirectory()))
        load = Load(stack.url, key, webhook_url, make_files(folder))
        http = running.enter_context(load.connect())
        expected = run_undisturbed(load, http)
        # The nodes of a cluster have no reader of streams.
        live = None
        if not nodes:
            start_another(stack, "worker-stream", find_free_port())
            live = running.enter_context(live_streams(stack, http, folder, webhook_url, seed))
        supervisor = Supervisor(stack)
        supervisor.start()
        running.callback(supervisor.stop)
        faults = Faults(stack, supervisor, own_storage=own_storage, away_s=away_s)
        if live is not None:
            live.trouble.start()
        injected = inject_faults(faults, load, rng, minutes, seed, every_s)
        unanswered = load.stop(ANSWER_S)
        if live is not None:
            live.stop(http, ANSWER_S)
        wait_for_quiet(stack, QUIET_S)
        of_streams = [] if live is None else live.audit(stack, http, memory)
        found = audit(stack, http, load.accepted, expected, memory, () if live is None else live.watched)
        found.duplicated += load.duplicated
        found.streams = len(of_streams)
        found.late_takeovers = sum(took_s > TAKEOVER_S for took_s in faults.takeovers_s)
        ended = len(load.accepted) - found.lost - found.stuck
        return {
            "minutes": minutes,
            "seed": seed,
            "accepted": len(load.accepted),
            "ended": ended,
            **asdict(found),
            "unanswered": unanswered,
            "wrong_streams": of_streams,
            "of_streams": {} if live is None else live.figures,
            "takeovers_s": faults.takeovers_s,
            "clean": found.is_clean and not unanswered and not any(what.startswith("500") for what in load.errors),
            "faults": dict(injected),
            "camera_faults": {} if live is None else dict(live.trouble.injected),
            "receiver": dict(memory.moods),
            "clients_met": load.errors,
            "nodes": sorted(stack.nodes) if isinstance(stack, Cluster) else [],
            "storage_faults": own_storage,
            "clock_faults": FAKETIME is not None,
        }


def run_undisturbed(load: Load, http: httpx.Client) -> dict[str, Any]:
    """Return the result of each kind of job without faults."""
    expected = {}
    for kind in load.files:
        job_id = load.submit(http, kind, f"undisturbed-{kind.replace(' ', '-')}")
        document: dict[str, Any] = {"status": "queued"}
        while document["status"] not in FINAL:
            document = http.get(f"/v1/jobs/{job_id}", headers={"Prefer": "wait=20"}).json()
        expected[kind] = result(document)
    return expected


def inject_faults(
    faults: Faults, load: Load, rng: random.Random, minutes: float, seed: int, every_s: float
) -> Counter[str]:
    """Inject every kind of fault once in random order, and again, while clients continue; count them by kind."""
    injected: Counter[str] = Counter()
    load.start(CLIENTS, seed, PAUSE_S)
    over = time.monotonic() + minutes * 60
    order: list[str] = []
    while time.monotonic() < over:
        time.sleep(rng.uniform(0.5, 1.5) * every_s)
        order = order or rng.sample(sorted(faults.kinds), len(faults.kinds))
        name = order.pop()
        faults.kinds[name](rng)
        injected[name] += 1
    return injected


def _keep_logs(stack: EmbeddedStack, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for log in (stack.state / "logs").glob("*.log"):
        (folder / log.name).write_bytes(log.read_bytes())


if __name__ == "__main__":
    main()
