"""Classes of results: construction by name, changes by ``dataclasses.replace``, and the parsing of times."""

import dataclasses
from datetime import datetime

import pytest
from deepfakestream import ExplainedPerson, Explanation, Stream, StreamEvent, results
from pydantic import ValidationError

from tests.unit.client.explained import explained_person, explanation
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


def with_a_later_field(value):
    """Return a copy of a document with one more field in it and in every document within."""
    if isinstance(value, dict):
        return {name: with_a_later_field(each) for name, each in value.items()} | {"added_later": 7}
    return [with_a_later_field(each) for each in value] if isinstance(value, list) else value


def documents_in(value):
    """Yield all results in *value*, at any depth."""
    if dataclasses.is_dataclass(value):
        yield value
        for field in dataclasses.fields(value):
            yield from documents_in(getattr(value, field.name))
    elif isinstance(value, tuple):
        for each in value:
            yield from documents_in(each)


EXTENDED = FULL_JOB | {
    "review": REVIEW,
    "explanation": {"status": "pending"},
    "provenance": PROVENANCE,
    "extra": "a name that a service may use, too",
}
STREAM = {"id": "x", "status": "running", "state": "connected", "source": "rtsp://a", "last_seq": 1} | {
    "events": [{"seq": 1, "kind": "alert", "created_at": "2026-01-02T03:04:05Z", "data": {}}]
}


@pytest.mark.parametrize(
    ("kind", "document", "kinds"),
    [
        (results.Job, EXTENDED, EACH.keys() - {results.Share, results.Delivery}),
        (results.Share, SHARE, {results.Share}),
        (results.Delivery, DELIVERY, {results.Delivery}),
        (Explanation, explanation("succeeded", explained_person()), {Explanation, ExplainedPerson}),
        (Stream, STREAM, {Stream, StreamEvent}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_a_newer_service_adds_is_kept_at_every_depth(kind, document, kinds):
    found = kind.from_json(with_a_later_field(document))
    inside = list(documents_in(found))
    assert {type(each) for each in inside} >= kinds
    for each in inside:
        assert each.extra["added_later"] == 7, each
    assert found.extra.get("extra") == document.get("extra")
    # It changes neither what is equal nor what is printed.
    assert dataclasses.replace(inside[-1], extra={}) == inside[-1]
    assert "added_later" not in repr(inside[-1])


def test_what_has_a_field_of_its_own_is_no_extra():
    assert READ.extra.keys() == {"started_at", "options", "added_by_a_newer_service"}
    assert all(each.extra == {} for each in documents_in(READ) if each is not READ)
    assert {READ.segments[0].people[0].faces[0]} == {READ.segments[0].people[0].faces[0]}, "they can be hashed"


def test_content_credentials_are_typed_and_absent_from_earlier_services():
    assert READ.provenance is None
    found = results.Job.from_json(FULL_JOB | {"provenance": PROVENANCE | {"later": 1}}).provenance
    assert found is not None
    assert (found.state, found.actions[0].source_type) == ("valid", "trainedAlgorithmicMedia")
