"""Scoring stored media again, comparing two results, and what people found."""

import uuid

import pytest
from click.testing import CliRunner

from api import reviews
from shared.audit import list_events
from shared.jobs.queries import get_job
from shared.manifests import Manifest
from shared.models import Job, Media
from tests.clips import noise_picture
from tests.integration.api.finished import succeed


def submit(api, headers, **options):
    answer = api.submit(headers, noise_picture(1), query_string=options)
    assert answer.status_code == 202
    return uuid.UUID(answer.json["id"])


def rescore(api, headers, job_id, body, **more):
    return api.call("POST", f"/v1/jobs/{job_id}/rescore", {**headers, **more}, json=body)


def test_a_job_is_scored_again_with_another_checkpoint_and_otherwise_as_it_was(api, headers):
    parent = submit(api, headers, sample_fps=3, segment_seconds=7, metadata='{"case": 1}', model="swap-lite0")
    answer = rescore(api, headers, parent, {"model": "swap-lite2"})
    assert answer.status_code == 202, answer.text
    assert answer.headers["Location"] == f"/v1/jobs/{answer.json['id']}"
    assert answer.json["parent_id"] == str(parent)
    assert answer.json["status"] == "queued"
    assert answer.json["metadata"] == {"case": 1}
    assert answer.json["options"] == {
        "model": "swap-lite2",
        "sample_fps": 3.0,
        "segment_seconds": 7.0,
        "webhook_url": None,
        "webhook_events": None,
    }
    assert answer.json["media"]["sha256"] == api.call("GET", f"/v1/jobs/{parent}", headers).json["media"]["sha256"]
    assert len(api.files()) == 1, "the media is stored once"


def test_the_media_outlives_its_first_job(api, headers):
    parent = submit(api, headers)
    child = rescore(api, headers, parent, {}).json["id"]
    assert api.call("DELETE", f"/v1/jobs/{parent}", headers).status_code == 204
    assert len(api.files()) == 1
    assert api.call("GET", f"/v1/jobs/{child}", headers).json["parent_id"] == str(parent)
    assert api.call("DELETE", f"/v1/jobs/{child}", headers).status_code == 204
    assert api.files() == []


def test_a_repeated_request_gets_the_same_job(api, headers):
    parent = submit(api, headers)
    key = {"Idempotency-Key": "again"}
    first = rescore(api, headers, parent, {"sample_fps": 2.0}, **key)
    again = rescore(api, headers, parent, {"sample_fps": 2.0}, **key)
    assert (first.json["id"], again.headers["Idempotent-Replayed"]) == (again.json["id"], "true")
    other = rescore(api, headers, parent, {"sample_fps": 4.0}, **key)
    assert (other.status_code, other.json["code"]) == (409, "idempotency_conflict")


def test_the_same_again_is_scored_unless_its_reuse_is_requested(api, headers):
    parent = submit(api, headers)
    with api.sessions.transaction() as session:
        pinned = session.get_one(Job, parent)
        manifest = Manifest.from_pin(pinned.manifest)
        description = manifest.describe(sample_fps=pinned.sample_fps, segment_seconds=pinned.segment_seconds)
    succeed(api, parent, [0.25])
    with api.sessions.transaction() as session:
        session.get_one(Job, parent).model_description = description
    assert rescore(api, headers, parent, {}).json["status"] == "queued"
    reused = rescore(api, headers, parent, {"reuse": True}).json
    assert (reused["status"], reused["reused_from"], reused["parent_id"]) == ("succeeded", str(parent), str(parent))


@pytest.mark.parametrize("way", ["erased with its retention", "lost by storage"])
def test_media_that_is_gone_cannot_be_scored_again(api, headers, way):
    parent = submit(api, headers)
    if way == "lost by storage":
        api.files()[0].unlink()
    else:
        with api.sessions.transaction() as session:
            get_job(session, parent).media.storage_key = None
    answer = rescore(api, headers, parent, {})
    assert (answer.status_code, answer.json["code"]) == (410, "media_missing")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"model": "no-such"}, "unknown_model"),
        ({"sample_fps": 0}, "invalid_request"),
        ({"url": "https://example.com/"}, "unknown_option"),
        ({"webhook_url": "http://127.0.0.1/"}, "forbidden_url"),
        ({"metadata": {"a": "\0"}}, "invalid_request"),
    ],
)
def test_mistakes_are_refused_and_make_no_job(api, headers, body, code):
    parent = submit(api, headers)
    answer = rescore(api, headers, parent, body)
    assert (answer.status_code, answer.json["code"]) == (422, code)
    assert len(api.call("GET", "/v1/jobs", headers).json["items"]) == 1


def test_media_is_kept_for_as_long_as_after_a_submission(api, headers):
    parent = submit(api, headers)
    with api.sessions.transaction() as session:
        media = get_job(session, parent).media
        kept, media_id = media.expires_at, media.id
        media.expires_at = media.created_at
    rescore(api, headers, parent, {})
    with api.sessions.transaction() as session:
        assert session.get_one(Media, media_id).expires_at >= kept


def test_two_results_are_compared_where_their_segments_meet(api, headers):
    parent = submit(api, headers, model="swap-lite0", segment_seconds=4)
    succeed(api, parent, [0.1, 0.2, None], fake_score=0.15, seconds=4.0)
    child = rescore(api, headers, parent, {"model": "swap-lite2", "segment_seconds": 6}).json["id"]
    succeed(api, uuid.UUID(child), [0.1, 0.9], fake_score=0.5, verdict="fake", seconds=6.0)
    found = api.call("GET", f"/v1/jobs/{parent}/diff/{child}", headers)
    assert found.status_code == 200, found.text
    assert found.json["changed_options"] == ["model", "weights", "segment_seconds"]
    assert found.json["verdict_changed"] is True
    assert found.json["score_change"] == pytest.approx(0.35)
    assert (found.json["before"]["verdict"], found.json["after"]["verdict"]) == ("real", "fake")
    assert found.json["intervals_total"] == 4
    assert [tuple(interval.values()) for interval in found.json["intervals"]] == [
        (0.0, 4.0, 0.1, 0.1),
        (4.0, 6.0, 0.2, 0.1),
        (6.0, 8.0, 0.2, 0.9),
        (8.0, 12.0, None, 0.9),
    ]


def test_jobs_of_different_media_are_not_compared(api, headers):
    first = submit(api, headers)
    other = uuid.UUID(api.submit(headers, noise_picture(2)).json["id"])
    for job_id in (first, other):
        succeed(api, job_id, [0.5])
    answer = api.call("GET", f"/v1/jobs/{first}/diff/{other}", headers)
    assert (answer.status_code, answer.json["code"]) == (422, "invalid_request")


def test_a_job_of_another_owner_is_not_compared(api, headers):
    own = submit(api, headers)
    foreign = submit(api, api.key("another")[0])
    answer = api.call("GET", f"/v1/jobs/{own}/diff/{foreign}", headers)
    assert (answer.status_code, answer.json["code"]) == (404, "not_found")


def review(api, headers, job_id, **body):
    return api.call("PUT", f"/v1/jobs/{job_id}/review", headers, json=body)


def test_a_finding_stands_beside_the_verdict_and_the_last_one_counts(api, headers):
    job_id = submit(api, headers)
    succeed(api, job_id, [0.9], verdict="fake")
    assert review(api, headers, job_id, finding="disputed").status_code == 200
    answer = review(api, headers, job_id, finding="confirmed_real", note="the original was found")
    assert answer.status_code == 200, answer.text
    document = api.call("GET", f"/v1/jobs/{job_id}", headers).json
    assert document["verdict"] == "fake"
    assert document["review"] == answer.json
    assert (answer.json["finding"], answer.json["note"], answer.json["reviewer"]) == (
        "confirmed_real",
        "the original was found",
        "test",
    )
    with api.sessions.transaction() as session:
        told = [event.detail for event in list_events(session, job_id=job_id) if event.action == "job.reviewed"]
    assert told == [{"finding": "disputed"}, {"finding": "confirmed_real"}], "and no note"
    assert api.call("DELETE", f"/v1/jobs/{job_id}/review", headers).status_code == 204
    assert api.call("GET", f"/v1/jobs/{job_id}", headers).json["review"] is None


def test_a_note_may_be_null(api, headers):
    job_id = submit(api, headers)
    succeed(api, job_id, [0.9])
    answer = review(api, headers, job_id, finding="disputed", note=None)
    assert (answer.status_code, answer.json["note"]) == (200, None), answer.text


def test_a_job_that_has_not_ended_cannot_be_reviewed(api, headers):
    answer = review(api, headers, submit(api, headers), finding="disputed")
    assert (answer.status_code, answer.json["code"]) == (409, "job_not_final")


@pytest.mark.parametrize(
    "body",
    [{}, {"finding": "fake"}, {"finding": "disputed", "note": "\0"}, {"finding": "disputed", "note": "x" * 4001}],
    ids=["nothing", "unknown finding", "NUL", "long note"],
)
def test_a_finding_that_cannot_be_kept_is_refused(api, headers, body):
    job_id = submit(api, headers)
    succeed(api, job_id, [0.5])
    assert review(api, headers, job_id, **body).status_code == 422


def test_erasing_a_job_erases_its_review(api, headers):
    job_id = submit(api, headers)
    succeed(api, job_id, [0.5])
    review(api, headers, job_id, finding="disputed", note="a secret")
    api.call("DELETE", f"/v1/jobs/{job_id}", headers)
    with api.sessions.transaction() as session:
        assert session.get_one(Job, job_id).review is None


def test_reviewed_media_is_exported_as_labels_without_notes(api, headers, monkeypatch):
    job_id = submit(api, headers)
    succeed(api, job_id, [0.9], fake_score=0.9, verdict="fake")
    review(api, headers, job_id, finding="confirmed_fake", note="a secret")
    submit(api, headers)
    monkeypatch.setenv("DEEPFAKESTREAM_DATABASE__URL", api.settings.database.url)
    monkeypatch.setenv("DEEPFAKESTREAM_BROKER__URL", api.settings.broker.url)
    monkeypatch.setenv("DEEPFAKESTREAM_STORAGE__URL", api.settings.storage.url)
    result = CliRunner().invoke(reviews.commands, ["export", "--csv"])
    assert result.exit_code == 0, result.output
    heading, line = result.output.splitlines()
    label = dict(zip(heading.split(","), line.split(","), strict=True))
    sha256 = api.call("GET", f"/v1/jobs/{job_id}", headers).json["media"]["sha256"]
    assert (label["sha256"], label["finding"], label["verdict"], label["fake_score"]) == (
        sha256,
        "confirmed_fake",
        "fake",
        "0.9",
    )
    assert "secret" not in result.output
    assert CliRunner().invoke(reviews.commands, ["export", "--owner", "nobody"]).output == ""


@pytest.mark.parametrize("gone", ["parent", "media"])
def test_a_repeated_request_gets_the_same_job_though_what_it_named_is_gone(api, headers, gone):
    parent = submit(api, headers)
    key = {"Idempotency-Key": "again"}
    first = rescore(api, headers, parent, {}, **key)
    if gone == "parent":
        assert api.call("DELETE", f"/v1/jobs/{parent}", headers).status_code == 204
    else:
        with api.sessions.transaction() as session:
            get_job(session, parent).media.storage_key = None
    again = rescore(api, headers, parent, {}, **key)
    assert (again.status_code, again.json.get("id")) == (202, first.json["id"])
    assert again.headers["Idempotent-Replayed"] == "true"
    other = rescore(api, headers, parent, {"sample_fps": 4.0}, **key)
    assert (other.status_code, other.json["code"]) == (409, "idempotency_conflict")


def test_nothing_is_copied_from_a_job_that_is_erased_meanwhile(api, headers, monkeypatch):
    """Its media stays, since another job uses it; its metadata must not."""
    parent = submit(api, headers, metadata='{"name": "of a person"}')
    submit(api, headers)
    services = api.app.extensions["deepfakestream"]
    size = services.storage.size

    def erase_and_measure(key):
        monkeypatch.undo()
        assert api.call("DELETE", f"/v1/jobs/{parent}", headers).status_code == 204
        return size(key)

    monkeypatch.setattr(services.storage, "size", erase_and_measure)
    answer = rescore(api, headers, parent, {})
    assert (answer.status_code, answer.json["code"]) == (404, "not_found")
    assert len(api.call("GET", "/v1/jobs", headers).json["items"]) == 1


def test_limits_of_submissions_apply_but_for_the_quota_of_storage(make_api):
    api = make_api(submissions_per_minute=2, max_open_jobs_per_owner=2, max_stored_bytes_per_owner=1)
    headers = api.key("owner")[0]
    parent = submit(api, headers)
    assert api.submit(headers, noise_picture(2)).json["code"] == "storage_quota_exceeded"
    assert rescore(api, headers, parent, {}).status_code == 202, "it stores nothing"
    assert rescore(api, headers, parent, {}).json["code"] == "too_many_open_jobs"
    assert rescore(api, headers, parent, {}).json["code"] == "rate_limited"
