"""A job is judged by the checkpoint that was current at submission, even if its folder changes."""

import shutil
import uuid
from io import BytesIO

import pytest
from PIL import Image
from sqlalchemy import func, update

from shared.jobs.queries import get_job, get_segments
from shared.manifests import PACKAGED_MODELS_DIR, read_manifest
from shared.models import Job, Segment
from shared.queues import Sender, make_celery
from tests.clips import hopper
from worker.config import WorkerSettings
from worker.model.checkpoint import save_checkpoint
from worker.model.network import ForgeryNetwork
from worker.tasks.context import Context
from worker.tasks.finish import finish
from worker.tasks.ingest import ingest
from worker.tasks.score import load_detectors, score_segment

NAME = "swap-lite0"


@pytest.fixture
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    shutil.copytree(PACKAGED_MODELS_DIR / NAME, folder / NAME)
    return folder


@pytest.fixture
def api(make_api, models):
    return make_api(models={"dir": models, "default": NAME})


@pytest.fixture
def context(api):
    settings = WorkerSettings(
        database=api.settings.database,
        broker=api.settings.broker,
        storage=api.settings.storage,
        models=api.settings.models,
        jobs={"max_attempts": 2, "retry_backoff_s": 0.0},
        webhooks={},
    )
    context = Context.connect(settings, Sender(make_celery(settings.broker, settings.jobs)))
    yield context
    context.sessions.engine.dispose()


@pytest.fixture
def planned(api, context):
    """Return a submitted and planned job of a portrait."""
    body = BytesIO()
    Image.fromarray(hopper()).save(body, "JPEG", quality=95)
    headers = api.key()[0]
    job_id = uuid.UUID(api.submit(headers, body.getvalue()).json["id"])
    ingest(context, job_id)
    return job_id, headers


def replace_checkpoint(models):
    """Replace the checkpoint by one with other weights and another threshold."""
    manifest = read_manifest(models / NAME)
    calibration = manifest.calibration.model_copy(update={"threshold": 0.5, "uncertainty_band": (0.4, 0.6)})
    network = ForgeryNetwork(manifest.architecture, manifest.preprocessing.crop_size_px)
    changed = manifest.model_copy(update={"calibration": calibration, "version": "9.9.9"})
    return save_checkpoint(models / NAME, changed, network, "# other\n")


def score(context, models, job_id):
    with context.sessions.transaction() as session:
        session.execute(update(Segment).where(Segment.job_id == job_id).values(send_after=func.now()))
    score_segment(context, load_detectors(models, "cpu"), job_id, 0)
    with context.sessions.transaction() as session:
        [segment] = get_segments(session, job_id)
        return segment.status, segment.error_code


@pytest.mark.parametrize("how", ["exchanged", "removed", "unreadable"])
def test_a_job_names_its_checkpoint_even_if_the_folder_changes(api, context, models, planned, how):
    job_id, headers = planned
    first = read_manifest(models / NAME)
    assert score(context, models, job_id) == ("scored", None)
    if how == "exchanged":
        replace_checkpoint(models)
    elif how == "removed":
        shutil.rmtree(models / NAME)
    else:
        (models / NAME / "manifest.json").write_text("{")
    finish(context, job_id)
    document = api.call("GET", f"/v1/jobs/{job_id}", headers).json
    assert document["status"] == "succeeded"
    assert document["model"]["weights_sha256"] == first.weights.sha256
    assert (document["model"]["version"], document["model"]["threshold"]) == (
        first.version,
        first.calibration.threshold,
    )


def test_a_worker_with_other_weights_releases_the_segment_without_scoring(api, context, models, planned):
    job_id, headers = planned
    replace_checkpoint(models)
    assert score(context, models, job_id) == ("pending", None)
    assert score(context, models, job_id) == ("failed", "model_error")
    finish(context, job_id)
    document = api.call("GET", f"/v1/jobs/{job_id}", headers).json
    assert (document["status"], document["error"]["code"]) == ("failed", "model_error")
    assert "not installed" in document["error"]["detail"]


def test_an_old_checkpoint_serves_the_jobs_that_pinned_it(context, models, planned):
    job_id, _ = planned
    shutil.copytree(models / NAME, models / "kept")
    replace_checkpoint(models)
    assert score(context, models, job_id) == ("scored", None)


def test_a_job_of_an_older_release_pins_its_checkpoint_when_it_is_planned(api, context, models):
    headers = api.key()[0]
    job_id = uuid.UUID(api.submit(headers).json["id"])
    with context.sessions.transaction() as session:
        session.execute(update(Job).where(Job.id == job_id).values(manifest=None))
    ingest(context, job_id)
    with context.sessions.transaction() as session:
        pinned = get_job(session, job_id).manifest
    assert pinned["weights"]["sha256"] == read_manifest(models / NAME).weights.sha256
