"""Jobs that the steps of a worker have scored and explained, in this process and with the shipped checkpoint."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import func, update

from shared.jobs.queries import get_segments
from shared.manifests import PACKAGED_MODELS_DIR
from shared.models import Explanation, Segment
from shared.queues import Sender, make_celery
from tests.integration.api.conftest import OneAPI
from worker.config import WorkerSettings
from worker.tasks.context import Context
from worker.tasks.explain import explain, load_explainers
from worker.tasks.finish import finish
from worker.tasks.ingest import ingest
from worker.tasks.score import load_detectors, score_segment


@contextmanager
def worker_context(api: OneAPI) -> Iterator[Context]:
    """Give the context of a worker for the database and the storage of *api*."""
    shared = {name: getattr(api.settings, name) for name in ("database", "broker", "storage")}
    settings = WorkerSettings(**shared, webhooks={})
    context = Context.connect(settings, Sender(make_celery(settings.broker, settings.jobs)))
    try:
        yield context
    finally:
        context.sessions.engine.dispose()


def run_job(context: Context, job_id: str) -> None:
    """Run every step of a submitted job, and its explanation if one was requested."""
    job = uuid.UUID(job_id)
    ingest(context, job)
    with context.sessions.transaction() as session:
        # Their messages are sent by a worker's own process, which there is none of here.
        session.execute(update(Segment).where(Segment.job_id == job).values(send_after=func.now()))
        indices = [segment.index for segment in get_segments(session, job)]
    detectors = load_detectors(PACKAGED_MODELS_DIR, "cpu")
    for index in indices:
        score_segment(context, detectors, job, index)
    finish(context, job)
    with context.sessions.transaction() as session:
        session.execute(update(Explanation).where(Explanation.job_id == job).values(send_after=func.now()))
    explain(context, load_explainers(PACKAGED_MODELS_DIR, "cpu"), job)
