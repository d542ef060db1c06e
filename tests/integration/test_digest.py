"""The digest for operators, from rows of a real database."""

import json
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner
from sqlalchemy import func, select

from api.digest import MAX_LISTED, Figures, Period, commands, describe, measure
from shared.models import Stream
from shared.states import JobStatus
from tests.integration.rows import add_job

END = datetime(2026, 3, 8, tzinfo=UTC)
WEEK = Period(END - timedelta(days=7), END)


@pytest.fixture
def owner():
    return f"owner-{uuid.uuid4().hex}"


@pytest.fixture
def add(sessions, owner):
    """Return a function that adds a job that ended some days before the end of the period."""

    def make(days, *, seconds=10.0, limits=(0.2, 0.6), review=None, reviewed_days=None, **values):
        with sessions.transaction() as session:
            job = add_job(session, owner=owner)
            job.finished_at = END - timedelta(days=days)
            job.created_at = job.finished_at - timedelta(seconds=seconds)
            job.status = JobStatus.SUCCEEDED
            if "fake_score" in values:
                job.evidence = {"kind": "video", "real_below": limits[0], "fake_from": limits[1]}
            if review is not None:
                reviewed_at = END - timedelta(days=days if reviewed_days is None else reviewed_days)
                job.review = {"finding": review, "note": None, "reviewed_at": reviewed_at.isoformat(), "reviewer": "x"}
            for name, value in values.items():
                setattr(job, name, value)
            return job.id, job.media_id

    return make


@pytest.fixture
def measured(sessions, owner):
    def run(period=WEEK, whose=owner):
        with sessions.transaction() as session:
            return measure(session, period, whose)

    return run


def test_verdicts_failures_and_seconds_of_both_weeks_are_counted(add, measured):
    add(1, verdict="fake", fake_score=0.9, seconds=10)
    add(2, verdict="real", fake_score=0.1, seconds=20)
    add(3, verdict="inconclusive", fake_score=0.4, seconds=90)
    add(4, status=JobStatus.FAILED, error_code="decode_failed", seconds=1000)
    add(5, status=JobStatus.FAILED, error_code="decode_failed")
    add(6, status=JobStatus.FAILED, error_code="internal")
    add(6, status=JobStatus.CANCELLED)
    add(8, verdict="not_applicable", seconds=3)
    add(15, verdict="fake")
    now, before = measured(), measured(WEEK.before())
    assert (now.jobs, now.media, now.failed, now.cancelled) == (7, 7, 3, 1)
    assert now.verdicts == {"fake": 1, "real": 1, "inconclusive": 1, "not_applicable": 0}
    assert list(now.failures.items()) == [("decode_failed", 2), ("internal", 1)]
    assert now.median_s == 20.0
    assert (before.jobs, before.verdicts["not_applicable"], before.median_s) == (1, 1, 3.0)


def test_the_edges_of_a_week_belong_to_one_week(add, measured):
    add(7, verdict="real")
    add(0, verdict="fake")
    assert measured().verdicts["real"] == 1
    assert measured().verdicts["fake"] == 0
    assert measured(WEEK.before()).jobs == 0


def test_the_share_of_scores_between_their_own_limits_is_measured(add, measured):
    add(1, fake_score=0.2, verdict="inconclusive")
    add(1, fake_score=0.6, verdict="fake")
    add(1, fake_score=0.3, limits=(0.4, 0.8), verdict="real")
    # Inconclusive for another reason than its score.
    add(1, fake_score=0.1, verdict="inconclusive")
    add(1, fake_score=0.5, limits=(None, None), verdict="inconclusive")
    found = measured()
    assert (found.scores, found.scores_in_band, found.band_share) == (4, 1, 0.25)
    assert measured(WEEK.before()).band_share is None


def test_reviews_count_in_the_week_in_which_they_were_made(add, measured):
    disputed, _ = add(20, verdict="fake", review="disputed", reviewed_days=2)
    add(1, verdict="real", review="confirmed_fake")
    add(1, verdict="fake", review="confirmed_fake")
    add(1, verdict="fake", review="disputed", reviewed_days=9)
    found = measured()
    assert found.reviews == {"confirmed_fake": 2, "confirmed_real": 0, "disputed": 1}
    assert found.contradicted == 1
    assert found.disputed == [str(disputed)]
    assert measured(WEEK.before()).reviews["disputed"] == 1


def test_only_the_last_disputed_jobs_are_listed(add, measured):
    for _ in range(MAX_LISTED + 1):
        add(1, verdict="fake", review="disputed")
    found = measured()
    assert (found.reviews["disputed"], len(found.disputed)) == (MAX_LISTED + 1, MAX_LISTED)


def test_live_streams_have_no_media_and_no_part_in_the_seconds(add, measured, sessions):
    add(1, verdict="real", seconds=10)
    stream, _ = add(1, verdict="fake", seconds=7200, media_id=None)
    with sessions.transaction() as session:
        session.add(Stream(job_id=stream, source="rtsp://x/y", duration_limit_s=60.0, state="ended", ended_at=END))
    found = measured()
    assert (found.jobs, found.streams, found.media, found.median_s) == (2, 1, 1, 10.0)


def test_media_that_is_scored_again_counts_once_and_erased_jobs_not_at_all(add, measured):
    _, media_id = add(1, verdict="real")
    add(1, verdict="fake", media_id=media_id)
    add(1, verdict="fake", deleted_at=END)
    found = measured()
    assert (found.jobs, found.media) == (2, 1)


@pytest.fixture
def run(migrated_url, monkeypatch, tmp_path):
    given = {"DATABASE__URL": migrated_url, "BROKER__URL": "redis://x", "STORAGE__URL": f"file://{tmp_path}"}
    for name, value in given.items():
        monkeypatch.setenv(f"DEEPFAKESTREAM_{name}", value)
    return lambda *arguments: CliRunner().invoke(commands, arguments)


def test_the_command_prints_text_and_json(run, add, owner):
    job_id, _ = add(1, verdict="fake", fake_score=0.9, review="disputed")
    add(9, status=JobStatus.FAILED, error_code="internal")
    given = ["--owner", owner, "--until", "2026-03-08"]
    text = run(*given)
    assert text.exit_code == 0, text.output
    assert "2026-03-01 00:00 to 2026-03-08 00:00 UTC, beside the 7 days before" in text.output
    assert ["failed", "0", "1"] in [line.split() for line in text.output.splitlines()]
    assert f"disputed:\n  {job_id}\n" in text.output
    document = json.loads(run(*given, "--json").output)
    assert (document["now"]["verdicts"]["fake"], document["before"]["failures"]) == (1, {"internal": 1})
    assert (document["from"], document["until"]) == ("2026-03-01T00:00:00+00:00", "2026-03-08T00:00:00+00:00")
    day = json.loads(run(*given, "--json", "--days", "1").output)
    assert (day["now"]["jobs"], day["before"]["jobs"]) == (1, 0)


def test_by_default_a_digest_ends_now(run, owner, sessions):
    document = json.loads(run("--owner", owner, "--json").output)
    with sessions.transaction() as session:
        now = session.execute(select(func.now())).scalar_one()
    assert timedelta(0) <= now - datetime.fromisoformat(document["until"]) < timedelta(minutes=5)


def test_a_period_without_jobs_has_dashes():
    nothing = Figures(0, 0, 0, {}, 0, 0, {}, None, 0, 0, None, {"disputed": 0}, 0, [])
    text = describe(WEEK, nothing, nothing)
    assert ["median", "seconds", "-", "-"] in [line.split() for line in text.splitlines()]
