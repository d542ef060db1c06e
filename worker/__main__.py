"""
``python -m worker --role cpu|gpu``, ``python -m worker beat``, ``python -m worker flower``.

Each runs until it is told to stop by SIGTERM.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from shared.config import ConfigurationError, load_settings
from shared.errors import ModelError
from shared.observability import configure_logging
from shared.queues import QUEUES, make_celery
from worker.celery import make_worker
from worker.config import Role, WorkerSettings


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m worker", description=__doc__)
    parser.add_argument("service", nargs="?", choices=["worker", "beat", "flower"], default="worker")
    parser.add_argument("--role", choices=sorted(QUEUES), help="which queue a worker consumes")
    arguments = parser.parse_args()
    if arguments.service == "worker" and arguments.role is None:
        parser.error("a worker needs --role cpu or --role gpu")
    try:
        settings = load_settings(WorkerSettings)
    except ConfigurationError as error:
        parser.exit(2, f"{error}\n")
    configure_logging(settings.logging)
    if arguments.service == "beat":
        return _run_beat(settings)
    if arguments.service == "flower":
        return _run_flower(settings, parser)
    return _run_worker(settings, arguments.role, parser)


def _run_worker(settings: WorkerSettings, role: Role, parser: argparse.ArgumentParser) -> int:
    try:
        app = make_worker(settings, role)
    except ModelError as error:
        parser.exit(2, f"{error}\n")
    app.worker_main(
        [
            "worker",
            "--pool=prefork",
            f"--concurrency={settings.worker.processes(role)}",
            f"--queues={QUEUES[role]}",
            f"--hostname={role}-{os.getpid()}@%h",
            f"--loglevel={settings.logging.level}",
            # Nobody here needs to know the other workers.
            "--without-gossip",
            "--without-mingle",
        ]
    )
    return 0


def _run_beat(settings: WorkerSettings) -> int:
    app = make_celery(settings.broker, settings.jobs)
    with tempfile.TemporaryDirectory(prefix="deepfakestream-beat-") as temporary:
        folder = settings.worker.beat_folder or Path(temporary)
        app.Beat(
            loglevel=settings.logging.level,
            schedule=str(folder / "schedule"),
            quiet=True,
            # The root logger is ours already.
            redirect_stdouts=False,
        ).run()
    return 0


def _run_flower(settings: WorkerSettings, parser: argparse.ArgumentParser) -> int:
    flower = settings.worker.flower
    if flower.password is None or not flower.password.get_secret_value():
        parser.exit(2, "worker.flower.password: Flower does not start without a password\n")
    # By way of the environment, since every user of a machine can read command lines.
    os.environ["FLOWER_BASIC_AUTH"] = f"{flower.user}:{flower.password.get_secret_value()}"
    app = make_celery(settings.broker, settings.jobs)
    app.start(["flower", f"--address={flower.address}", f"--port={flower.port}"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
