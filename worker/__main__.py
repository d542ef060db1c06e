"""
``python -m worker --role cpu|gpu|stream``, ``python -m worker beat``, ``python -m worker flower``.

Each runs until SIGTERM.
"""

import os
import tempfile
from pathlib import Path
from typing import Literal

import click

from shared.commands import SETTINGS, CommandError
from shared.config import ConfigurationError, load_settings
from shared.errors import ModelError
from shared.observability import configure_logging
from shared.queues import QUEUES, make_celery
from worker.celery import make_worker
from worker.config import Role, WorkerSettings


@click.command(context_settings=SETTINGS, help=__doc__)
@click.argument(
    "service",
    type=click.Choice(["worker", "beat", "flower"]),
    default="worker",
    help="What to run; a worker by default.",
)
@click.option("--role", type=click.Choice([*sorted(QUEUES), "stream"]), help="What a worker does.")
def main(service: Literal["worker", "beat", "flower"], role: Role | None) -> None:
    """Run the command line."""
    if service == "worker" and role is None:
        raise click.UsageError("a worker needs --role cpu, --role gpu or --role stream")
    try:
        settings = load_settings(WorkerSettings)
    except ConfigurationError as error:
        raise CommandError(str(error)) from error
    configure_logging(settings.logging)
    if service == "beat":
        _run_beat(settings)
    elif service == "flower":
        _run_flower(settings)
    elif role == "stream":
        _run_readers(settings)
    elif role is not None:
        _run_worker(settings, role)


def _run_worker(settings: WorkerSettings, role: Role) -> None:
    try:
        app = make_worker(settings, role)
    except ModelError as error:
        raise CommandError(str(error)) from error
    app.worker_main(
        [
            "worker",
            "--pool=prefork",
            f"--concurrency={settings.worker.processes(role)}",
            f"--queues={','.join(QUEUES[role])}",
            f"--hostname={role}-{os.getpid()}@%h",
            f"--loglevel={settings.logging.level}",
            # Workers do not need to know of each other.
            "--without-gossip",
            "--without-mingle",
        ]
    )


def _run_readers(settings: WorkerSettings) -> None:
    # Imported here, since the parents of other workers need none of it.
    from worker.live.process import run_readers

    run_readers(settings)


def _run_beat(settings: WorkerSettings) -> None:
    app = make_celery(settings.broker, settings.jobs)
    # Beat only sends upkeep, which would fill the list of tasks in Flower.
    app.conf.task_send_sent_event = False
    with tempfile.TemporaryDirectory(prefix="deepfakestream-beat-") as temporary:
        folder = settings.worker.beat_folder or Path(temporary)
        app.Beat(
            loglevel=settings.logging.level,
            schedule=str(folder / "schedule"),
            quiet=True,
            # configure_logging has set up the root logger already.
            redirect_stdouts=False,
        ).run()


def _run_flower(settings: WorkerSettings) -> None:
    # Imported here, since no other service needs it.
    from worker.flower import run_flower

    run_flower(settings)


if __name__ == "__main__":
    main()
