"""The OpenAPI document and the schemas against the code that they describe."""

import re
import uuid
from datetime import UTC, datetime

import pytest

import shared.errors as shared_errors
from api.app import create_app
from api.config import APISettings
from api.errors import JOB_ONLY_CODES, STATUS_OF_CODE
from api.schemas import CheckpointDocument, DeliveryDocument, JobDocument, JobSummary, SegmentDocument
from shared.documents import (
    MEDIA_FACTS,
    checkpoint_document,
    delivery_document,
    job_document,
    job_summary,
    segment_document,
)
from shared.jobs.segments import JobSegments, SegmentPage, summary_of
from shared.manifests import DEFAULT_CHECKPOINT, PACKAGED_MODELS_DIR, read_manifest
from shared.models import Delivery, Job, Media, Segment
from worker.media.probe import MediaFacts
from worker.pipeline.results import FaceResult
from worker.pipeline.scoring import score_segment


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    return create_app(
        APISettings(
            database={"url": "postgresql+psycopg://x/y"},
            broker={"url": "redis://x"},
            storage={"url": f"file://{tmp_path_factory.mktemp('storage')}"},
        )
    )


@pytest.fixture(scope="module")
def document(app):
    return app.api_doc


def test_every_route_stands_in_the_document(app, document):
    # Those that serve the document itself and its page.
    own = {"/openapi.json", "/", "/docs", "/swagger", "/oauth2-redirect.html"}
    for rule in app.url_map.iter_rules():
        if rule.rule in own or "<path:filename>" in rule.rule:
            continue
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
        for method in rule.methods - {"HEAD", "OPTIONS"}:
            assert method.lower() in document["paths"][path], f"{method} {path}"


def test_every_route_but_the_probes_needs_a_scope(app):
    for rule in app.url_map.iter_rules():
        if rule.rule.startswith("/v1/"):
            assert app.view_functions[rule.endpoint].required_scope in {"jobs:read", "jobs:write"}, rule.rule


def test_every_error_code_has_a_status_and_stands_in_the_document(document):
    kinds = [kind for kind in vars(shared_errors).values() if isinstance(kind, type)]
    codes = {kind.code for kind in kinds if issubclass(kind, shared_errors.DeepfakeStreamError)}
    assert codes <= set(STATUS_OF_CODE) | set(JOB_ONLY_CODES)
    for code in set(STATUS_OF_CODE) | set(JOB_ONLY_CODES):
        assert f"`{code}`" in document["info"]["description"]


def test_every_operation_describes_its_failures_as_problems(document):
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            for status, response in operation["responses"].items():
                if status.startswith(("4", "5")) and not (path == "/readyz" and status == "503"):
                    assert list(response["content"]) == ["application/problem+json"], f"{method} {path} {status}"


def sample():
    manifest = read_manifest(PACKAGED_MODELS_DIR / DEFAULT_CHECKPOINT)
    face = FaceResult(0.5, (1.0, 2.0, 60.0, 70.0), ((1.0, 2.0),) * 5, 0.99, 59.0, 80.0, None, 0.25)
    result = score_segment([face], [0], 1)
    facts = MediaFacts("video", "mp4", "h264", 320, 240, 0, 5.0, 0.0, 50, 10.0, False)
    job = Job(
        id=uuid.uuid4(),
        owner="o",
        status="succeeded",
        model=DEFAULT_CHECKPOINT,
        sample_fps=2.0,
        segment_seconds=5.0,
        client_metadata={"a": 1},
        reasons=["uncertain"],
        fake_score=0.25,
        peak_score=0.25,
        verdict="inconclusive",
        model_description=manifest.describe(sample_fps=2.0, segment_seconds=5.0),
        segments_total=1,
        created_at=datetime.now(UTC),
        finished_at=datetime.now(UTC),
        media=Media(sha256="0" * 64, size_bytes=1, storage_key="media/x", facts=facts.to_json()),
    )
    segment = Segment(
        job_id=job.id, index=0, start_s=0.0, end_s=5.0, status="scored", fake_score=0.25, **summary_of(result.to_json())
    )
    segment.people = result.to_json()["people"]
    return job, segment


def of(*segments):
    """What the document of a job says of its segments."""
    return JobSegments(SegmentPage(segments, None), len(segments))


def names(model, value):
    """Fields of *model*, and of the models inside, beside what *value* really has."""
    assert set(value) == set(model.model_fields), model.__name__
    model.model_validate(value)


def test_documents_have_exactly_the_fields_of_their_schemas():
    job, segment = sample()
    names(JobDocument, job_document(job, of(segment)))
    names(JobSummary, job_summary(job, 1))
    names(SegmentDocument, segment_document(segment))
    names(
        type(JobDocument.model_validate(job_document(job, of(segment))).media), job_document(job, of(segment))["media"]
    )
    delivery = Delivery(
        number=1, event_id="m", event="job.succeeded", url="u", status="pending", due_at=datetime.now(UTC)
    )
    names(DeliveryDocument, delivery_document(delivery))


def test_a_job_without_media_has_none():
    job, _ = sample()
    job.media = None
    JobDocument.model_validate(job_document(job, of()))


def test_probed_facts_that_clients_see_are_facts_of_the_probe():
    assert set(MEDIA_FACTS) <= set(MediaFacts.__dataclass_fields__)


def test_the_schema_of_checkpoints_is_that_of_the_answer():
    manifest = read_manifest(PACKAGED_MODELS_DIR / DEFAULT_CHECKPOINT)
    names(CheckpointDocument, checkpoint_document(manifest, PACKAGED_MODELS_DIR, is_default=True))
