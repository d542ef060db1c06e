"""Classes of results: construction by name, changes by ``dataclasses.replace``, and the parsing of times."""

import dataclasses
from datetime import datetime

import pytest
from deepfakestream import results
from pydantic import ValidationError

from tests.unit.client.test_answers import DELIVERY, FULL_JOB


@pytest.mark.parametrize(
    "text", ["1700000000", "1712121200530", "-1", "1700000000.5", "1e9", "", "today", "9999-99-99"]
)
def test_a_text_that_is_no_date_is_not_taken_for_seconds(text):
    with pytest.raises(ValidationError, match="created_at"):
        results.Job.from_json(FULL_JOB | {"created_at": text})


@pytest.mark.parametrize(
    "text", ["20260101T000000Z", "2026-01-01", "2026-01-01 00:00:00+00:00", "2026-W01-4", "20260101"]
)
def test_every_date_that_the_standard_library_reads_is_read(text):
    assert results.Job.from_json(FULL_JOB | {"created_at": text}).created_at == datetime.fromisoformat(text)


@pytest.mark.parametrize("media", [None, [], "", {}, {"kind": "image"}], ids=str)
def test_media_without_a_duration_have_none(media):
    assert results.Job.from_json(FULL_JOB | {"media": media}).duration_s is None


READ = results.Job.from_json(FULL_JOB)
REVIEW = {"finding": "disputed", "note": None, "reviewed_at": "2026-01-02T03:04:05Z", "reviewer": "a key"}
SHARE = {"id": "1", "created_at": "2026-01-02T03:04:05Z", "expires_at": "2026-01-03T03:04:05Z", "url": "https://x/"}
ACTION = {"action": "c2pa.created", "source_type": "trainedAlgorithmicMedia", "software": None, "of_ingredient": False}
PROVENANCE = {
    "state": "valid",
    "codes": [],
    "signer": "A",
    "ai_generated": True,
    "actions": [ACTION],
    "actions_total": 1,
}
EACH = {
    results.Problem: READ.error,
    results.Face: READ.segments[0].people[0].faces[0],
    results.Person: READ.segments[0].people[0],
    results.Segment: READ.segments[0],
    results.Model: READ.model,
    results.Evidence: READ.evidence,
    results.JudgedPerson: READ.people[0],
    results.Suspicion: READ.suspicious[0],
    results.Job: READ,
    results.ExplanationState: results.ExplanationState.from_json({"status": "pending"}),
    results.Provenance: results.Provenance.from_json(PROVENANCE),
    results.ProvenanceAction: results.ProvenanceAction.from_json(ACTION),
    results.Review: results.Review.from_json(REVIEW),
    results.Share: results.Share.from_json(SHARE),
    results.Delivery: results.Delivery.from_json(DELIVERY),
}


def test_every_class_of_results_is_among_those_that_are_built():
    kinds = [kind for kind in vars(results).values() if isinstance(kind, type) and issubclass(kind, results.Document)]
    assert {*kinds} - {results.Document} == EACH.keys()


@pytest.mark.parametrize(("kind", "found"), EACH.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_results_are_built_by_name_and_changed_by_replace(kind, found):
    fields = {field.name: getattr(found, field.name) for field in dataclasses.fields(kind)}
    assert kind(**fields) == found
    for name, value in fields.items():
        assert dataclasses.replace(found, **{name: value}) == found, name
        if isinstance(value, str):
            changed = dataclasses.replace(found, **{name: "other"})
            assert fields | {name: "other"} == {each: getattr(changed, each) for each in fields}
    with pytest.raises(TypeError, match="colour"):
        kind(**fields, colour="red")
    with pytest.raises(TypeError, match="colour"):
        dataclasses.replace(found, colour="red")


def test_values_that_documents_have_elsewhere_are_fields_of_their_own():
    segment = results.Segment(index=0, start_s=0.0, end_s=5.0, status="scored", people_count=3, people=())
    assert (segment.people_count, segment.people) == (3, ())
    changed = dataclasses.replace(READ, duration_s=9.0, segments_done=4, segments=(segment,), metadata={"b": 2})
    assert (changed.duration_s, changed.segments_done, changed.segments) == (9.0, 4, (segment,))
    assert (changed.raw, changed.created_at) == (FULL_JOB, READ.created_at)
    # In a document, a field of that name has another meaning.
    read = results.Job.from_json(FULL_JOB | {"duration_s": 9.0, "fraction": "x", "raw": 7})
    assert (read.duration_s, read.fraction, read.raw["raw"]) == (5.0, 0.0, 7)


def test_content_credentials_are_typed_and_absent_from_earlier_services():
    assert READ.provenance is None
    found = results.Job.from_json(FULL_JOB | {"provenance": PROVENANCE | {"later": 1}}).provenance
    assert found is not None
    assert (found.state, found.actions[0].source_type) == ("valid", "trainedAlgorithmicMedia")
