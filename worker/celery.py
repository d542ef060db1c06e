"""
The worker's composition root: a Celery application for one role, with its tasks.

A worker of the cpu role consumes the cpu queue and never loads torch. A worker of the gpu role consumes the gpu queue
with one process for each device. The parent uses neither CUDA nor the network; each process loads its own after the
fork.
"""

import os
import signal
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any

from billiard import current_process
from celery import Celery
from celery.signals import setup_logging, worker_process_init, worker_ready, worker_shutting_down

from shared.errors import Code
from shared.manifests import check_manifests, read_manifest
from shared.observability import (
    FAILURES,
    TASK_SECONDS,
    bind,
    get_logger,
)
from shared.queues import (
    DELIVER_WEBHOOK,
    EXPLAIN,
    FINISH,
    INGEST,
    SCORE_LIVE,
    SCORE_SEGMENT,
    TIDY,
    UPKEEP,
    Sender,
    make_celery,
)
from shared.tracing import annotate, start_tracing
from worker.config import Role, WorkerSettings
from worker.media.sandbox import sandbox
from worker.metrics import serve_metrics
from worker.tasks.context import Context

log = get_logger(__name__)


def make_worker(settings: WorkerSettings, role: Role) -> Celery:
    """
    Make the Celery application of *role* with its tasks, without connecting anything.

    Returns:
        An application for ``worker_main``. Each of its processes connects after the fork.

    Raises:
        ModelError: The default checkpoint's manifest exists but cannot be read. Such manifests of other checkpoints are
            only logged.
    """
    for reason in check_manifests(settings.models.dir, settings.models.default):
        log.error("checkpoint refused", reason=reason)
    app = make_celery(settings.broker, settings.jobs)
    app.conf.update(
        # A process may load a network of hundreds of megabytes before it reports for work.
        worker_proc_alive_timeout=300.0,
        worker_soft_shutdown_timeout=settings.worker.shutdown_grace_s,
        worker_enable_soft_shutdown_on_idle=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        # The project configures logging (see setup_logging below); redirected streams would lose log lines.
        worker_redirect_stdouts=False,
    )
    process, parent = _WorkerProcess(settings, app), os.getpid()
    if role == "cpu":
        _add_cpu_tasks(app, settings, process)
    else:
        _add_gpu_tasks(app, settings, process)

    # By default Celery keeps only weak references to receivers.
    @setup_logging.connect(weak=False)
    def _keep_logging(**_: Any) -> None:
        """Do nothing: with a receiver connected, Celery leaves logging as it is."""

    @worker_process_init.connect(weak=False)
    def _connect(**_: Any) -> None:
        try:
            process.connect(role)
        except Exception:
            # Celery would ignore the error and hand out steps, which would all fail. If the worker stops instead, its
            # supervisor restarts it and other workers take its steps.
            log.critical("worker process cannot start; the worker stops", exc_info=True)
            if os.getppid() == parent:
                # Otherwise it was killed meanwhile, and this process belongs to one that is no worker.
                os.kill(parent, signal.SIGTERM)
            os._exit(1)

    @worker_ready.connect(weak=False)
    def _serve_metrics(**_: Any) -> None:
        serve_metrics(settings.worker)
        log.info("worker ready", role=role, processes=settings.worker.processes(role), decoders=sandbox().describe())

    @worker_shutting_down.connect(weak=False)
    def _log_shutdown(**_: Any) -> None:
        log.info("worker stops", role=role)

    return app


class _WorkerProcess:
    """State of one worker process: its connections and loaded checkpoints."""

    def __init__(self, settings: WorkerSettings, app: Celery) -> None:
        self._settings = settings
        self._app = app
        self._context: Context | None = None
        self._detectors: Any = None
        self._explainers: Any = None

    @property
    def context(self) -> Context:
        """Settings and connections; made on demand where Celery sends no signal of a fork."""
        if self._context is None:
            self._context = Context.connect(self._settings, Sender(self._app))
        return self._context

    @property
    def detectors(self) -> Any:
        """Detectors of the loaded checkpoints, on this process's device."""
        if self._detectors is None:
            from worker.tasks.score import load_detectors

            device = self._prepare_device()
            self._detectors = load_detectors(Path(self._settings.models.dir), device)
            log.info("scoring process ready", device=device)
        return self._detectors

    @property
    def explainers(self) -> Any:
        """Explainers of the loaded checkpoints, on this process's device; none is loaded before it is needed."""
        if self._explainers is None:
            from worker.tasks.explain import load_explainers

            self._explainers = load_explainers(Path(self._settings.models.dir), self._prepare_device())
        return self._explainers

    def _prepare_device(self) -> str:
        """Return this process's device, once its libraries use the configured number of threads."""
        index = getattr(current_process(), "index", 0) or 0
        device = self._settings.worker.device_of(index)
        _limit_threads(device, self._settings.worker.threads())
        return device

    def connect(self, role: Role) -> None:
        """Prepare a forked process with its own connections."""
        start_tracing(self._settings.tracing, f"worker-{role}")
        self._context = Context.connect(self._settings, Sender(self._app))
        if role == "gpu":
            # Loaded now, so that the first job does not wait for it.
            models = self._settings.models
            self.detectors(read_manifest(Path(models.dir) / models.default))


def _add_cpu_tasks(app: Celery, settings: WorkerSettings, process: _WorkerProcess) -> None:
    from worker.tasks.finish import finish
    from worker.tasks.ingest import ingest
    from worker.tasks.upkeep import tidy, upkeep
    from worker.tasks.webhooks import deliver_webhook

    # shared=False, here and below: otherwise Celery adds the tasks to every application of the process.
    limit_s = settings.worker.ingest_time_limit_s
    short_s = 60.0

    @app.task(name=INGEST, shared=False, time_limit=limit_s)
    def run_ingest(job_id: str) -> None:
        with _TaskBoundary("ingest", job_id=job_id):
            ingest(process.context, uuid.UUID(job_id))

    @app.task(name=FINISH, shared=False, time_limit=short_s)
    def run_finish(job_id: str) -> None:
        with _TaskBoundary("finish", job_id=job_id):
            finish(process.context, uuid.UUID(job_id))

    @app.task(name=DELIVER_WEBHOOK, shared=False, time_limit=max(short_s, 3 * settings.webhooks.timeout_s))
    def run_deliver_webhook(delivery_id: str) -> None:
        with _TaskBoundary("deliver_webhook", delivery_id=delivery_id):
            deliver_webhook(process.context, uuid.UUID(delivery_id))

    # Without events: a run every few seconds would push the jobs out of Flower's list.
    @app.task(name=UPKEEP, shared=False, send_events=False, time_limit=short_s)
    def run_upkeep() -> None:
        with _TaskBoundary("upkeep"):
            upkeep(process.context)

    @app.task(name=TIDY, shared=False, send_events=False, time_limit=limit_s)
    def run_tidy() -> None:
        with _TaskBoundary("tidy"):
            tidy(process.context)


def _add_gpu_tasks(app: Celery, settings: WorkerSettings, process: _WorkerProcess) -> None:
    # The parent registers the tasks but must not load torch, so the imports happen in the tasks.
    @app.task(name=SCORE_SEGMENT, shared=False, time_limit=settings.worker.score_time_limit_s)
    def run_score_segment(job_id: str, index: int) -> None:
        from worker.tasks.score import score_segment

        with _TaskBoundary("score_segment", job_id=job_id, segment=index):
            score_segment(process.context, process.detectors, uuid.UUID(job_id), index)

    @app.task(name=SCORE_LIVE, shared=False, time_limit=settings.worker.score_time_limit_s)
    def run_score_live(job_id: str, index: int) -> None:
        from worker.tasks.score import score_segment

        with _TaskBoundary("score_live", job_id=job_id, segment=index):
            score_segment(process.context, process.detectors, uuid.UUID(job_id), index)

    @app.task(name=EXPLAIN, shared=False, time_limit=settings.worker.score_time_limit_s)
    def run_explain(job_id: str) -> None:
        from worker.tasks.explain import explain

        with _TaskBoundary("explain", job_id=job_id):
            explain(process.context, process.explainers, uuid.UUID(job_id))


class _TaskBoundary:
    """Context manager around every task: it binds log keys, measures the task, and catches and logs every error."""

    def __init__(self, name: str, **keys: Any) -> None:
        self._name, self._keys = name, keys
        self._bound = bind(task=name, **keys)
        self._began = 0.0

    def __enter__(self) -> None:
        self._bound.__enter__()
        annotate(**self._keys)
        self._began = time.monotonic()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        outcome = "done" if error is None else "failed"
        TASK_SECONDS.labels(task=self._name, outcome=outcome).observe(time.monotonic() - self._began)
        handled = isinstance(error, Exception)
        if handled:
            # The rows still say what is pending; the sweep sends the message again.
            FAILURES.labels(task=self._name, code=Code.INTERNAL_ERROR).inc()
            log.error("task failed", exc_info=error)
        self._bound.__exit__(None, None, None)
        return handled


def _limit_threads(device: str, threads: int) -> None:
    if device == "cpu":
        import cv2
        import torch

        torch.set_num_threads(threads)
        # The detector distributes frames over its own threads.
        cv2.setNumThreads(1)
