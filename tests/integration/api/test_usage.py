"""Usage by day and key, which outlives the jobs."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from shared.documents.usage import UsageTotals
from shared.jobs.usage import fold_usage
from shared.models import Usage
from tests.clips import noise_picture
from tests.integration.api.finished import finish_job


def usage(api, auth, **query):
    answer = api.call("GET", "/v1/usage", auth, query_string=query)
    assert answer.status_code == 200, answer.text
    return answer.json


def totals(api, auth, **query):
    return usage(api, auth, **query)["total"]


def test_the_usage_of_jobs_is_counted_and_outlives_them(api):
    auth, key = api.key("owner")
    nothing = {"jobs": 0, "media": 0, "seconds": 0, "faces": 0, "bytes": 0}
    assert totals(api, auth) == nothing
    picture = noise_picture(1)
    first = api.submit(auth, picture).json["id"]
    finish_job(api, first, segments=3)
    # Two segments with five faces each, of which one is too small.
    wanted = {"jobs": 1, "media": 1, "seconds": 15.0, "faces": 8, "bytes": len(picture)}
    assert totals(api, auth) == wanted
    # One that is cancelled before anything was analysed, and one that is erased while it is open.
    cancelled, erased = (api.submit(auth, noise_picture(number)).json["id"] for number in (2, 3))
    api.call("POST", f"/v1/jobs/{cancelled}/cancel", auth)
    for job_id in (first, cancelled, erased):
        assert api.call("DELETE", f"/v1/jobs/{job_id}", auth).status_code == 204
    found = usage(api, auth)
    assert found["total"] == {**wanted, "jobs": 3}
    today = datetime.now(UTC).date().isoformat()
    assert found["items"] == [{**found["total"], "day": today, "api_key_id": str(key.id), "key_name": "test"}]
    assert totals(api, api.key("another")[0]) == nothing


def test_seconds_have_no_digits_beyond_milliseconds():
    assert UsageTotals(jobs=1, media=1, seconds=283.79449800000003, faces=0, bytes=0).seconds == 283.794


def test_usage_is_folded_by_day_and_key_and_stays_the_same(api):
    auth, key = api.key("owner")
    today = datetime.now(UTC).date()
    with api.sessions.transaction() as session:
        for days, number in ((2, 3), (1, 2), (0, 2), (1, 1)):
            other = {"owner": "owner", "api_key_id": key.id if number > 1 else api.key("owner")[1].id}
            for _ in range(number):
                day = today - timedelta(days=days)
                session.add(Usage(day=day, jobs=1, media=1, seconds=1.5, faces=2, bytes=3, **other))
    before = usage(api, auth)
    with api.sessions.transaction() as session:
        fold_usage(session)
        fold_usage(session)
        assert len(session.scalars(select(Usage)).all()) == 1 + 1 + 1 + 1
    assert usage(api, auth) == before
    assert before["total"] == {"jobs": 8, "media": 8, "seconds": 12.0, "faces": 16, "bytes": 24}
    assert [item["jobs"] for item in before["items"] if item["api_key_id"] == str(key.id)] == [3, 2, 2]
    yesterday = str(today - timedelta(days=1))
    assert totals(api, auth, **{"from": yesterday, "to": yesterday})["jobs"] == 3
    assert totals(api, auth, to=str(today - timedelta(days=2)))["jobs"] == 3


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"from": "yesterday"}, "from: Value error, not a day, such as 2026-01-31"),
        ({"from": "1764201600"}, "not a day"),
        ({"from": "2026-02-30"}, "from: "),
        ({"from": "2026-02-02", "to": "2026-02-01"}, "not between 1 and 366 days"),
        ({"from": "2024-01-01", "to": "2026-01-01"}, "not between 1 and 366 days"),
        ({"first": "2026-01-01"}, "the query of this request takes from, to"),
    ],
)
def test_bad_days_are_refused(api, headers, query, said):
    answer = api.call("GET", "/v1/usage", headers, query_string=query)
    assert answer.status_code == 422
    assert said in answer.json["detail"]


def test_a_batch_counts_as_its_jobs(api, headers):
    items = [{"url": f"https://a.example/{number}"} for number in range(2)]
    batch = api.call("POST", "/v1/batches", headers, json={"items": items}).json
    api.call("POST", f"/v1/batches/{batch['id']}/cancel", headers)
    assert totals(api, headers)["jobs"] == 2
