"""The OpenAPI document agrees with the code that it describes and with the SDK that reads its documents."""

import dataclasses
import json
import re
import uuid
from datetime import UTC, datetime
from pathlib import Path

import deepfakestream.results
import deepfakestream.streams
import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

import shared.errors as shared_errors
from api.app import create_app
from api.config import APISettings
from api.errors import JOB_ONLY_CODES, STATUS_OF_CODE
from shared.cursors import write_cursor
from shared.documents.base import DeclaredType
from shared.documents.checkpoints import CheckpointDocument
from shared.documents.findings import ModelDescription, PersonVerdictDocument, SuspicionDocument
from shared.documents.jobs import MEDIA_FACTS, PRESENTATION, JobDocument, JobList, JobSummary
from shared.documents.provenance import ActionDocument, ProvenanceDocument
from shared.documents.segments import FaceDocument, SegmentDocument, SegmentSummary
from shared.documents.streams import AlertDocument, StreamDocument, StreamEventDocument, StreamPersonDocument
from shared.documents.webhooks import PAYLOADS, DeliveryDocument, JobPayload, JobSucceededPayload, StoredPayload
from shared.errors import Code
from shared.evidence import Evidence
from shared.jobs.segments import JobSegments, SegmentPage, summarize_result
from shared.manifests import DEFAULT_CHECKPOINT, PACKAGED_MODELS_DIR, read_manifest
from shared.models import Delivery, Job, Media, Segment
from shared.states import (
    BATCH_EVENTS,
    JOB_EVENTS,
    STREAM_EVENTS,
    DeliveryStatus,
    JobStatus,
    Reason,
    SegmentStatus,
    Verdict,
    WebhookEvent,
)
from worker.detection.people import LOOK_SIZE, pack_look
from worker.media.probe import MediaFacts
from worker.pipeline.results import FaceResult, Suspicion
from worker.pipeline.rolling import RollingVerdict
from worker.pipeline.scoring import score_segment
from worker.pipeline.tracking import ScoredSegment
from worker.tasks.finish import judge

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


PROVENANCE = ProvenanceDocument(
    state="untrusted",
    codes=["signingCredential.untrusted"],
    signer="A",
    actions=[ActionDocument(action="c2pa.created")],
)


def test_every_route_is_in_the_openapi_document(app, document):
    # Those that serve the document itself, and pages for people.
    own = {"/openapi.json", "/", "/docs", "/swagger", "/oauth2-redirect.html"}
    for rule in app.url_map.iter_rules():
        if rule.rule in own or "<path:filename>" in rule.rule or rule.endpoint.startswith("web."):
            continue
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
        for method in rule.methods - {"HEAD", "OPTIONS"}:
            assert method.lower() in document["paths"][path], f"{method} {path}"


FOR_OPERATORS = {"/v1/inputs.html"}
"""Routes about all owners."""
WITH_A_TOKEN = {"/v1/uploads/<string:upload_id>/content"}
"""Routes whose address has a secret of its own, so that they take no key."""


def test_every_route_but_the_probes_needs_a_scope(app):
    for rule in app.url_map.iter_rules():
        if rule.rule.startswith("/v1/") and rule.rule not in WITH_A_TOKEN:
            known = {"admin"} if rule.rule in FOR_OPERATORS else {"jobs:read", "jobs:write"}
            assert app.view_functions[rule.endpoint].required_scope in known, rule.rule


def test_every_error_code_has_a_status_and_is_in_the_openapi_document(document):
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


CREATED = datetime(2026, 1, 2, 3, 4, 5, 678900, UTC)
FINISHED = datetime(2026, 1, 2, 3, 5, tzinfo=UTC)


def sample():
    """A job with one segment, judged by the pipeline itself."""
    manifest = read_manifest(PACKAGED_MODELS_DIR / DEFAULT_CHECKPOINT)
    face = FaceResult(0.5, (1.0, 2.0, 60.0, 70.0), ((1.0, 2.0),) * 5, 0.99, 59.0, 80.0, None, 0.25, 100.0)
    result = score_segment([face], [0], 1).to_json()
    facts = MediaFacts("video", "mp4", "h264", 320, 240, 0, 5.0, 0.0, 50, 10.0, False)
    job = Job(
        id=uuid.UUID("01a20d78-a9e9-755a-a1ee-3373ca532026"),
        owner="o",
        status=JobStatus.SUCCEEDED,
        model=DEFAULT_CHECKPOINT,
        sample_fps=2.0,
        segment_seconds=5.0,
        client_metadata={"a": 1},
        segments_total=1,
        created_at=CREATED,
        finished_at=FINISHED,
        media=Media(
            sha256="0" * 64,
            size_bytes=1,
            storage_key="media/x",
            facts=facts.to_json(),
            presentation=facts.presentation(),
            video_bytes=1000,
            provenance=PROVENANCE.to_json(),
        ),
    )
    segment = Segment(job_id=job.id, index=0, start_s=0.0, end_s=5.0, status="scored", fake_score=0.25)
    segment.result, segment.finished_at = result, FINISHED
    for column, value in summarize_result(result).items():
        setattr(segment, column, value)
    outcome = judge(job, [segment], manifest)
    for name in ("fake_score", "peak_score", "verdict", "model_description", "evidence", "findings"):
        setattr(job, name, getattr(outcome, name))
    job.reasons = list(outcome.reasons)
    segment.people = segment.result["people"]
    return job, segment


def of(*segments, last_index=None):
    """The segments of a job as ``JobDocument.from_job`` takes them."""
    return JobSegments(SegmentPage(segments, last_index), len(segments))


def check_shapes(document):
    """Assert that each field that is sent as stored has the shape of its schema, and no field besides."""
    shapes = {
        name: [note.declared for note in field.metadata if isinstance(note, DeclaredType)]
        for name, field in type(document).model_fields.items()
    }
    for name, [shape] in ((name, found) for name, found in shapes.items() if found):
        value = json.dumps(document.to_json()[name])
        TypeAdapter(shape).validate_json(value, strict=True, extra="forbid")
        with pytest.raises(ValidationError):
            TypeAdapter(shape).validate_json('[["something else"]]', strict=True)


def test_stored_json_has_the_shape_of_its_schema():
    job, segment = sample()
    document = JobDocument.from_job(job, of(segment))
    delivery = Delivery(number=1, event_id="m", event="job.succeeded", url="u", status="pending", due_at=CREATED)
    for part in (
        document,
        document.media,
        JobSummary.from_job(job, 1),
        SegmentSummary.from_row(segment),
        SegmentDocument.from_row(segment),
        DeliveryDocument.from_delivery(delivery),
    ):
        check_shapes(part)
    assert document.evidence["faces"] == len(document.people) == 1
    TypeAdapter(SuspicionDocument).validate_json(
        json.dumps(Suspicion(0.0, 1.0, 0, 0.9, 3, "fake").to_json()), strict=True, extra="forbid"
    )
    # Fields that older rows lack are in what is stored today.
    assert set(document.model) == set(ModelDescription.model_fields)
    assert set(document.people[0]) == set(PersonVerdictDocument.model_fields)
    assert set(SegmentDocument.from_row(segment).people[0]["faces"][0]) == set(FaceDocument.model_fields)


def test_documents_are_serialised_as_in_earlier_releases():
    job, segment = sample()
    common = {"index": 0, "start_s": 0.0, "end_s": 5.0, "status": "scored", "fake_score": 0.25, "reasons": []}
    common |= {"faces_found": 1, "faces_scored": 1, "frames_decoded": 1, "engine": None, "error": None}
    media = {"sha256": "0" * 64, "size_bytes": 1, "stored": True, "kind": "video", "container": "mp4", "codec": "h264"}
    media |= {"width_px": 320, "height_px": 240, "rotation_deg": 0, "duration_s": 5.0, "frame_rate": 10.0}
    media |= {"frame_count": 50, "truncated": False, **job.media.presentation}
    summary = {
        "id": "01a20d78-a9e9-755a-a1ee-3373ca532026",
        "status": "succeeded",
        "created_at": "2026-01-02T03:04:05.678900Z",
        "started_at": None,
        "finished_at": "2026-01-02T03:05:00Z",
        "progress": {"segments_total": 1, "segments_done": 1, "fraction": 1.0},
        "media": media,
        "options": {
            "model": DEFAULT_CHECKPOINT,
            "sample_fps": 2.0,
            "segment_seconds": 5.0,
            "webhook_url": None,
            "webhook_events": None,
        },
        "metadata": {"a": 1},
        "fake_score": 0.25,
        "peak_score": 0.25,
        "verdict": job.verdict,
        "reasons": job.reasons,
        "evidence": job.evidence,
        "model": job.model_description,
        "reused_from": None,
        "parent_id": None,
        "review": None,
        "explanation": None,
        "error": None,
    }
    whole = (
        summary
        | job.findings
        | {"provenance": job.media.provenance}
        | {"segments": [common | {"people": 1}], "segments_next_cursor": None}
    )
    assert json.loads(JobSummary.from_job(job, 1).model_dump_json()) == summary
    assert json.loads(JobDocument.from_job(job, of(segment)).model_dump_json()) == whole
    people = segment.result["people"]
    faces = common | {"people": people, "started_at": None, "finished_at": "2026-01-02T03:05:00Z"}
    assert json.loads(SegmentDocument.from_row(segment).model_dump_json()) == faces
    payload = {"type": "job.succeeded", "timestamp": "2026-01-02T03:05:00Z", "data": whole}
    assert JobPayload.from_job("job.succeeded", job, of(segment)).to_json() == payload


def test_rows_of_another_release_are_serialised_without_an_error():
    job, segment = sample()
    job.status = job.verdict = "of a later release"
    job.reasons, job.evidence, job.model_description = ["later"], {"new": 1}, {"name": "old"}
    job.client_metadata = {"large": 10**30, "text": "\u00e4\u2028", "nested": [None, 1.5, {}]}
    job.media.facts = {"kind": "hologram"}
    segment.status, segment.reasons = "of a later release", ["later"]
    segment.people = [{"person": 0, "faces": [], "later": True}]
    sent = json.loads(JobDocument.from_job(job, of(segment)).model_dump_json())
    assert (sent["status"], sent["verdict"], sent["reasons"]) == ("of a later release", "of a later release", ["later"])
    assert (sent["evidence"], sent["model"], sent["metadata"]) == ({"new": 1}, {"name": "old"}, job.client_metadata)
    assert sent["media"]["kind"] == "hologram"
    assert sent["segments"][0]["reasons"] == ["later"]
    assert SegmentDocument.from_row(segment).to_json()["people"] == segment.people


def nested(levels):
    """Metadata with *levels* of nesting."""
    value = {"a": 1}
    for _ in range(levels - 1):
        value = {"a": value}
    return value


@pytest.mark.parametrize("levels", [100, 256, 400, 800])
def test_accepted_metadata_is_serialised_at_any_depth(levels):
    job, segment = sample()
    shallow = {"large": 10**30, "text": "\u00e4\u2028", "fraction": 0.1}
    job.client_metadata = shallow
    whole, summary = JobDocument.from_job(job, of(segment)), JobSummary.from_job(job, 1)
    payload = JobPayload.from_job("job.succeeded", job, of(segment))
    wanted = [document.model_dump_json() for document in (whole, summary, payload)]
    job.client_metadata = shallow | {"deep": nested(levels)}
    whole, summary = JobDocument.from_job(job, of(segment)), JobSummary.from_job(job, 1)
    payload = JobPayload.from_job("job.succeeded", job, of(segment))
    deep = f',"deep":{json.dumps(nested(levels), separators=(",", ":"))}'
    # All else of it is written as pydantic writes it.
    assert [document.to_text().replace(deep, "") for document in (whole, summary, payload)] == wanted
    assert deep in JobList(items=[summary], next_cursor=None).to_text()
    # As the worker writes it.
    assert deep[1:] in json.dumps(payload.to_json(), separators=(",", ":"), sort_keys=True)


@pytest.mark.parametrize("score", [1.0000000000000002, -1e-17])
def test_a_stored_value_outside_the_schema_is_serialised_unchanged(score):
    job, segment = sample()
    job.fake_score = job.peak_score = segment.fake_score = score
    facts = dict.fromkeys(MEDIA_FACTS, 90.5)
    job.media.facts, job.media.presentation = facts, dict.fromkeys(PRESENTATION, "other")
    for document in (JobDocument.from_job(job, of(segment)), JobSummary.from_job(job, 1)):
        sent = json.loads(document.to_text())
        assert (sent["fake_score"], sent["peak_score"]) == (score, score)
        assert sent["media"] == sent["media"] | facts | job.media.presentation
    assert SegmentSummary.from_row(segment).to_json()["fake_score"] == score
    assert SegmentDocument.from_row(segment).to_json()["fake_score"] == score


def test_a_score_that_is_not_a_number_is_serialised_as_null():
    job, segment = sample()
    job.fake_score = float("nan")
    for job.client_metadata in ({}, nested(400)):
        document = JobDocument.from_job(job, of(segment))
        assert json.loads(document.to_text())["fake_score"] is document.to_json()["fake_score"] is None


def test_the_openapi_document_lists_every_value_of_an_enumeration(document):
    schemas = document["components"]["schemas"]
    for name, field, words in (
        ("JobDocument", "status", JobStatus),
        ("JobSummary", "status", JobStatus),
        ("SegmentDocument", "status", SegmentStatus),
        ("SegmentSummary", "status", SegmentStatus),
        ("DeliveryDocument", "status", DeliveryStatus),
        ("ErrorDocument", "code", Code),
    ):
        assert schemas[name]["properties"][field]["enum"] == list(words), name
    assert schemas["Verdict"]["enum"] == list(Verdict)
    assert schemas["Reason"]["enum"] == list(Reason)
    for name in ("JobDocument", "JobSummary", "SegmentDocument", "SegmentSummary"):
        assert schemas[name]["properties"]["reasons"]["items"] == {"$ref": "#/components/schemas/Reason"}
    assert {"$ref": "#/components/schemas/Verdict"} in schemas["JobDocument"]["properties"]["verdict"]["anyOf"]


def test_every_reason_and_every_error_code_of_the_openapi_document_is_one_of_the_code(document):
    schemas = document["components"]["schemas"]
    assert schemas["Code"]["enum"] == list(Code)
    reasons = {"type": "array", "items": {"$ref": "#/components/schemas/Reason"}}
    found = set()
    for kind, schema in schemas.items():
        for name, given in schema.get("properties", {}).items():
            shape = {word: value for word, value in given.items() if word not in ("title", "description", "default")}
            if name == "reasons":
                assert shape in (reasons, {"anyOf": [reasons, {"type": "null"}]}), kind
            elif name in ("code", "error_code"):
                optional = [{"$ref": "#/components/schemas/Code"}, {"type": "null"}]
                assert shape.get("enum") == list(Code) or shape["anyOf"] == optional, kind
            else:
                continue
            found.add((kind, name))
    assert {("JobDocument", "reasons"), ("Problem", "code"), ("ErrorDocument", "code")} <= found


def test_every_event_of_webhooks_is_in_the_openapi_document(document):
    assert list(document["webhooks"]) == list(PAYLOADS) == list(WebhookEvent)
    assert {*JOB_EVENTS, *STREAM_EVENTS, *BATCH_EVENTS} == set(WebhookEvent)
    schemas = document["components"]["schemas"]
    assert schemas["WebhookEvent"]["enum"] == list(WebhookEvent)
    assert schemas["DeliveryDocument"]["properties"]["event"]["enum"] == list(WebhookEvent)
    for event, described in document["webhooks"].items():
        content = described["post"]["requestBody"]["content"]["application/json"]
        name = content["schema"]["$ref"].removeprefix("#/components/schemas/")
        assert schemas[name]["properties"]["type"]["const"] == event
        assert f"`{event}`" in (ROOT / "docs" / "api.md").read_text()
    job, segment = sample()
    check_shapes(JobSucceededPayload.from_job("job.succeeded", job, of(segment)))
    data = {"ended_at": "2026-01-02T03:05:00Z", "created_at": "2026-01-02T03:04:05Z"}
    stored = StoredPayload.from_delivery(Delivery(event="batch.ended", payload=data))
    assert stored.to_json() == {"type": "batch.ended", "timestamp": data["ended_at"], "data": data}


def test_a_job_with_more_segments_has_a_cursor_to_the_next_page():
    job, segment = sample()
    assert JobDocument.from_job(job, of(segment, last_index=99)).segments_next_cursor == write_cursor(99)


def test_the_sdk_reads_the_documents():
    job, segment = sample()
    read = deepfakestream.results.Job.from_json(JobDocument.from_job(job, of(segment)).to_json())
    assert (read.id, read.verdict, read.segments_done) == (str(job.id), job.verdict, 1)
    assert read.people[0].faces == 1
    whole = deepfakestream.results.Segment.from_json(SegmentDocument.from_row(segment).to_json())
    assert whole.people[0].faces[0].box_px == (1.0, 2.0, 60.0, 70.0)
    assert whole.people_count == read.segments[0].people_count == 1


def test_the_sdk_has_every_field_of_the_documents():
    ours = {"created_at": "created_at", "people": "people_count"}
    left_out = {"frames_decoded", "engine"}
    names = {field.name for field in dataclasses.fields(deepfakestream.results.Segment)}
    assert {ours.get(name, name) for name in SegmentSummary.model_fields} - left_out <= names
    names = {field.name for field in dataclasses.fields(deepfakestream.results.Job)}
    # In ``raw``, or in fields of their own.
    left_out = {"started_at", "progress", "media", "options", "people_total", "segments_next_cursor"}
    assert set(JobDocument.model_fields) - left_out <= names


def test_the_people_and_events_of_streams_have_the_shape_of_their_schemas(document):
    manifest = read_manifest(PACKAGED_MODELS_DIR / DEFAULT_CHECKPOINT)
    verdict = RollingVerdict(manifest, window_s=30.0)
    face = FaceResult(0.5, (1.0, 2.0, 60.0, 70.0), ((1.0, 2.0),) * 5, 0.99, 59.0, 80.0, None, 0.97, 100.0)
    look = pack_look(np.ones(LOOK_SIZE, np.float32))
    result = score_segment([face], [0], 1, looks=[look])
    [alert] = verdict.add(ScoredSegment(0, result.to_json(), [look]), 0.0, 5.0)
    [person] = verdict.describe()
    TypeAdapter(StreamPersonDocument).validate_json(json.dumps(person), strict=True, extra="forbid")
    said = document["components"]["schemas"]["StreamEventDocument"]["properties"]["data"]["description"]
    fields = re.search(r"`alert`: (.*?)\. `ended`", said)[1]
    assert set(re.findall(r"`(\w+)`", fields)) - {"raised", "cleared"} == set(alert.to_json())
    of_webhook = {"stream_id": uuid.uuid4(), "seq": 1, "created_at": CREATED, "metadata": {"a": 1}}
    webhook = AlertDocument(**of_webhook, **alert.to_json())
    assert set(AlertDocument.model_fields) == {*of_webhook, *alert.to_json()}
    assert webhook.to_json() == webhook.to_json() | alert.to_json() | {"created_at": "2026-01-02T03:04:05.678900Z"}
    check_shapes(webhook)


def test_the_sdk_has_the_fields_of_streams_that_it_names():
    names = {field.name for field in dataclasses.fields(deepfakestream.streams.Stream)}
    assert names - {"raw", "extra"} <= set(StreamDocument.model_fields)
    names = {field.name for field in dataclasses.fields(deepfakestream.streams.StreamEvent)}
    assert names - {"extra"} == set(StreamEventDocument.model_fields)


@pytest.mark.parametrize(("done", "fraction"), [(0, 0.0), (1, 0.3333), (3, 1.0), (4, 1.0)])
def test_progress_is_never_more_than_1(done, fraction):
    job, _ = sample()
    job.status, job.segments_total = "running", 3
    assert JobSummary.from_job(job, done).progress.fraction == fraction


def test_a_job_without_media_is_serialised_without_media():
    job, _ = sample()
    job.media = None
    assert JobDocument.from_job(job, of()).to_json()["media"] is None


def test_every_documented_media_fact_is_one_that_the_probe_finds():
    assert set(MEDIA_FACTS) <= set(MediaFacts.__dataclass_fields__)
    job, _ = sample()
    assert set(PRESENTATION) == set(job.media.presentation)


def test_the_document_of_a_checkpoint_has_its_bounds_and_model_card():
    manifest = read_manifest(PACKAGED_MODELS_DIR / DEFAULT_CHECKPOINT)
    sent = CheckpointDocument.from_manifest(manifest, PACKAGED_MODELS_DIR, is_default=True).to_json()
    assert (sent["name"], sent["is_default"], sent["model_card"][:1]) == (DEFAULT_CHECKPOINT, True, "#")
    assert sent["bounds"] == manifest.calibration.model_dump(mode="json")["bounds"]


def test_the_answers_to_questions_give_the_figures_of_the_checkpoint():
    manifest = read_manifest(PACKAGED_MODELS_DIR / DEFAULT_CHECKPOINT)
    text = " ".join((ROOT / "docs/faq.md").read_text().split())
    many = manifest.calibration.limits(Evidence("video", 60, 1))
    one = manifest.calibration.limits(Evidence("image", 1, 1))
    assert f"says `fake` from {many.high:.2f} and `real` below {many.low:.2f}; for one picture" in text
    assert f"for one picture, from {one.high:.2f} and below {one.low:.2f}" in text
    assert round(manifest.metrics["validation_false_positive_rate"], 2) == 0.05
    assert "about five are called `fake`" in text
    rate, recall = (manifest.metrics[f"validation_{name}"] for name in ("false_positive_rate", "recall"))
    precision = 0.01 * recall / (0.01 * recall + 0.99 * rate)
    assert round(7 * (1 - precision)) == 6
    assert "six of seven alarms are false" in text
