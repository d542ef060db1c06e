"""Content Credentials from upload to document: read by ingest, sent with the job, erased with the media."""

import io
import uuid

import pytest
from PIL import Image
from sqlalchemy import func, select, update

from shared.jobs.ending import delete_job
from shared.jobs.queries import get_job, lock_job
from shared.models import Media
from shared.queues import Sender, make_celery
from tests import credentials
from tests.clips import noise_picture
from worker import local
from worker.config import WorkerSettings
from worker.media import provenance
from worker.tasks.context import Context
from worker.tasks.ingest import ingest


@pytest.fixture(scope="module")
def signer():
    return credentials.make_signer()


@pytest.fixture(scope="module")
def signed(signer):
    file = io.BytesIO()
    Image.new("RGB", (96, 96), "grey").save(file, "JPEG")
    assertion = credentials.made_by(credentials.AI_SOURCE)
    return credentials.sign(file.getvalue(), "image/jpeg", signer, manifest={"assertions": [assertion]})


@pytest.fixture
def context(api, signer, tmp_path):
    """Return the context of a cpu worker that trusts the signer's root."""
    (tmp_path / "root.pem").write_text(signer.root_pem)
    shared = {name: getattr(api.settings, name) for name in ("database", "broker", "storage")}
    settings = WorkerSettings(**shared, provenance={"trust_anchors_file": tmp_path / "root.pem"})
    context = Context.connect(settings, Sender(make_celery(settings.broker, settings.jobs)))
    yield context
    context.sessions.engine.dispose()


def test_an_uploads_credentials_are_in_the_document_until_it_is_erased(api, context, signed):
    headers = api.key()[0]
    job_id = uuid.UUID(api.submit(headers, signed).json["id"])
    assert api.call("GET", f"/v1/jobs/{job_id}", headers).json["provenance"] is None
    ingest(context, job_id)
    found = api.call("GET", f"/v1/jobs/{job_id}", headers).json["provenance"]
    assert (found["state"], found["signer"], found["ai_generated"]) == ("valid", "Example Camera", True)
    with context.sessions.transaction() as session:
        delete_job(session, lock_job(session, job_id))
    with context.sessions.transaction() as session:
        assert session.scalar(select(func.count()).where(Media.provenance.is_not(None))) == 0


@pytest.mark.parametrize("script", ["import os; os.abort()", "raise SystemExit(1)"], ids=["crash", "exit"])
def test_a_reader_that_crashes_does_not_fail_the_job(script, api, context, signed, tmp_path, monkeypatch):
    (tmp_path / "child.py").write_text(script)
    monkeypatch.setattr(provenance, "SCRIPT", tmp_path / "child.py")
    job_id = uuid.UUID(api.submit(api.key()[0], signed).json["id"])
    ingest(context, job_id)
    with context.sessions.transaction() as session:
        job = get_job(session, job_id)
        assert (job.segments_total, job.error_code) == (1, None)
        assert (job.media.provenance["state"], job.media.provenance["reason"]) == ("unreadable", "crashed")


def test_a_later_job_that_cannot_read_credentials_leaves_those_of_the_earlier_one(
    api, context, signed, tmp_path, monkeypatch
):
    headers = api.key()[0]
    first, later = (uuid.UUID(api.submit(headers, signed).json["id"]) for _ in range(2))
    ingest(context, first)
    before = api.call("GET", f"/v1/jobs/{first}", headers).json["provenance"]
    (tmp_path / "child.py").write_text("raise SystemExit(1)")
    monkeypatch.setattr(provenance, "SCRIPT", tmp_path / "child.py")
    ingest(context, later)
    assert before["state"] in ("valid", "untrusted")
    for job_id in (first, later):
        assert api.call("GET", f"/v1/jobs/{job_id}", headers).json["provenance"] == before


def test_media_of_an_earlier_release_has_no_provenance(api, context):
    headers = api.key()[0]
    job_id = uuid.UUID(api.submit(headers, noise_picture(1)).json["id"])
    ingest(context, job_id)
    assert api.call("GET", f"/v1/jobs/{job_id}", headers).json["provenance"]["state"] == "none"
    with context.sessions.transaction() as session:
        session.execute(update(Media).values(provenance=None))
    assert api.call("GET", f"/v1/jobs/{job_id}", headers).json["provenance"] is None


def test_a_local_scan_reads_credentials_and_trusts_nobody(signed, tmp_path):
    (tmp_path / "picture.jpg").write_bytes(signed)
    found = local.scan(tmp_path / "picture.jpg")["provenance"]
    assert (found["state"], found["codes"]) == ("untrusted", ["signingCredential.untrusted"])
