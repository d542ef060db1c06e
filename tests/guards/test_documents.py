"""The OpenAPI document and the schemas against the code that they describe."""

import re
import uuid
from datetime import UTC, datetime
from pathlib import Path

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
from shared.manifests import DEFAULT_CHECKPOINT, PACKAGED_MODELS_DIR, read_manifest
from shared.models import Delivery, Job, Media, Segment
from shared.states import DeliveryStatus, JobStatus, Reason, SegmentStatus, Verdict
from worker.media.probe import MediaFacts
from worker.pipeline.results import FaceResult
from worker.pipeline.scoring import score_segment

ROOT = Path(__file__).resolve().parents[2]


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


def rows_of(heading):
    """Codes and the second column of each row below a heading of ``docs/api.md``, up to the next one."""
    text = (ROOT / "docs" / "api.md").read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| `")]
    return [(re.findall(r"`(\w+)`", row[0]), row[1].strip()) for row in rows]


def test_the_documentation_names_every_code_with_its_status():
    refusals, errors = {}, set()
    for codes, second in rows_of("Refusals"):
        if second[0].isdigit():
            statuses = [int(status) for status in second.split(", ")]
            refusals |= dict(zip(codes, statuses if len(statuses) > 1 else statuses * len(codes), strict=True))
        else:
            errors |= set(codes)
    assert refusals == STATUS_OF_CODE
    assert errors == set(JOB_ONLY_CODES)


def test_the_documentation_names_every_verdict_and_reason():
    text = (ROOT / "docs" / "api.md").read_text()
    for word in (*Verdict, *Reason, *JobStatus, *SegmentStatus):
        assert f"`{word}`" in text, word


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
        status=JobStatus.SUCCEEDED,
        model=DEFAULT_CHECKPOINT,
        sample_fps=2.0,
        segment_seconds=5.0,
        client_metadata={"a": 1},
        reasons=[Reason.UNCERTAIN],
        fake_score=0.25,
        peak_score=0.25,
        verdict=Verdict.INCONCLUSIVE,
        model_description=manifest.describe(sample_fps=2.0, segment_seconds=5.0),
        segments_total=1,
        created_at=datetime.now(UTC),
        finished_at=datetime.now(UTC),
        media=Media(sha256="0" * 64, size_bytes=1, storage_key="media/x", facts=facts.to_json()),
    )
    segment = Segment(
        job_id=job.id,
        index=0,
        start_s=0.0,
        end_s=5.0,
        status=SegmentStatus.SCORED,
        fake_score=0.25,
        result=result.to_json(),
    )
    return job, segment


def names(model, value):
    """Fields of *model*, and of the models inside, beside what *value* really has."""
    assert set(value) == set(model.model_fields), model.__name__
    model.model_validate(value)


def test_documents_have_exactly_the_fields_of_their_schemas():
    job, segment = sample()
    names(JobDocument, job_document(job, [segment]))
    names(JobSummary, job_summary(job, 1))
    names(SegmentDocument, segment_document(segment))
    names(type(JobDocument.model_validate(job_document(job, [segment])).media), job_document(job, [segment])["media"])
    delivery = Delivery(
        number=1, event_id="m", event="job.succeeded", url="u", status=DeliveryStatus.PENDING, due_at=datetime.now(UTC)
    )
    names(DeliveryDocument, delivery_document(delivery))


def test_a_job_without_media_has_none():
    job, _ = sample()
    job.media = None
    JobDocument.model_validate(job_document(job, []))


def test_probed_facts_that_clients_see_are_facts_of_the_probe():
    assert set(MEDIA_FACTS) <= set(MediaFacts.__dataclass_fields__)


def test_the_schema_of_checkpoints_is_that_of_the_answer():
    manifest = read_manifest(PACKAGED_MODELS_DIR / DEFAULT_CHECKPOINT)
    names(CheckpointDocument, checkpoint_document(manifest, PACKAGED_MODELS_DIR, is_default=True))
