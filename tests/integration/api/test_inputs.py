"""What is judged, beside what was validated: from the faces of the pipeline to page, gauges and digest."""

import json
import random
import re
import shutil
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from sqlalchemy import func, insert, select, text, true, update

from api.competence import MIN_JOBS, MIN_REFERENCE_MEDIA
from api.digest import commands
from api.reuse import copy_result
from shared.inputs import EDGES, Property
from shared.jobs.ending import delete_job, end_job
from shared.jobs.inputs import KEPT_DAYS, fold_inputs, last_days, read_inputs, today
from shared.jobs.queries import lock_job
from shared.jobs.segments import set_result
from shared.manifests import DEFAULT_CHECKPOINT, PACKAGED_MODELS_DIR, find_manifest
from shared.models import InputCount, Segment
from shared.references import REFERENCE_FILE, read_reference
from shared.states import JobStatus
from tests.clips import hopper, scene
from tests.integration.api.finished import FACTS
from tests.integration.api.test_state import gauges, of
from tests.integration.api.test_waiting import wait_until
from tests.integration.rows import add_job
from worker.media.decoding import Frame
from worker.pipeline.detector import Detector
from worker.pipeline.results import FaceResult
from worker.pipeline.scoring import score_segment
from worker.tasks.finish import judge

ALERTS = Path(__file__).resolve().parents[3] / "helm/deepfakestream/files/alerts.yml"
MANIFEST = find_manifest(PACKAGED_MODELS_DIR, DEFAULT_CHECKPOINT)
REFERENCE = read_reference(PACKAGED_MODELS_DIR, MANIFEST)


@pytest.fixture(scope="module")
def detector():
    return Detector.load(PACKAGED_MODELS_DIR, DEFAULT_CHECKPOINT, "cpu")


@pytest.fixture
def admin(api):
    return api.key("operators", "admin")[0]


def judge_job(api, results, *, kind="video"):
    """End a job with these results of segments as its last step does; return its id."""
    with api.sessions.transaction() as session:
        job = add_job(session)
        rows = []
        if kind == "stream":
            job.media_id = None
            session.flush()
            session.refresh(job)
        else:
            job.media.facts = replace(FACTS, kind=kind).to_json()
        for index, result in enumerate(results):
            row = Segment(job_id=job.id, index=index, start_s=5.0 * index, end_s=5.0 * (index + 1))
            row.status = set_result(row, fake_score=result.fake_score, result=result.to_json(), looks=result.looks)
            rows.append(row)
        session.add_all(rows)
        end_job(session, job, JobStatus.SUCCEEDED, outcome=judge(job, rows, MANIFEST))
        return job.id


def multiply(api, times):
    """Make as many rows of each job that was judged."""
    columns = [column for column in InputCount.__table__.columns if column.name != "id"]
    series = func.generate_series(2, times).table_valued("number")
    copies = select(func.gen_random_uuid(), *columns).join(series, true())
    with api.sessions.transaction() as session:
        session.execute(insert(InputCount).from_select(["id", *(column.name for column in columns)], copies))


def segment_of(properties):
    """The result of a segment with a face of one person for each (size, sharpness, luma)."""
    box = (10.0, 10.0, 90.0, 90.0)
    faces = [
        FaceResult(number / 2, box, ((1.0, 2.0),) * 5, 0.99, size_px, sharpness, None, 0.1, luma)
        for number, (size_px, sharpness, luma) in enumerate(properties)
    ]
    return score_segment(faces, [0] * len(faces), len(faces))


def draw(generator):
    """A face as the validation set has them: each property from its distribution there, evenly within a bin."""
    values = []
    for each in Property:
        counts, edges = REFERENCE.kinds["video"].counts(each), EDGES[each]
        [number] = generator.choices(range(len(counts)), counts)
        low, high = [40.0, *edges][number], [*edges, 1.2 * edges[-1]][number]
        values.append(generator.uniform(min(low, high - 1.0), high - 0.01))
    return tuple(values)


def page(api, headers, **query):
    answer = api.call("GET", "/v1/inputs.html", headers, query_string=query)
    assert answer.status_code == 200, answer.text
    return answer.text


def indexes(api, days=7, kind="video"):
    """The index of each property, whatever its direction."""
    wanted = {("days", str(days)), ("kind", kind), ("model", DEFAULT_CHECKPOINT)}
    found = {
        dict(labels)["property"]: value
        for (name, labels), value in gauges(api).items()
        if name == "deepfakestream_input_psi" and wanted <= set(labels)
    }
    return {each: found.get(each.value) for each in Property}


def test_faces_as_in_validation_are_said_to_be_like_it(api, admin):
    generator = random.Random(5)
    for _ in range(20):
        judge_job(api, [segment_of([draw(generator) for _ in range(20)])])
    multiply(api, MIN_JOBS // 20)
    for days in (1, 7, 30):
        assert all(0 < index < 0.1 for index in indexes(api, days).values())
    shown = page(api, admin)
    assert "The inputs are like the validation set in size, sharpness and brightness" in shown
    assert shown.count(", like the validation set.</span>") == 3
    assert "unlike the validation set" not in shown


def shrink(picture):
    return cv2.resize(picture, None, fx=0.45, fy=0.45, interpolation=cv2.INTER_AREA)


ODD = {
    "tiny": (shrink, Property.SIZE, "smaller"),
    "blurred": (lambda picture: cv2.GaussianBlur(picture, None, 2.2), Property.SHARPNESS, "more blurred"),
    "dark": (lambda picture: (picture * 0.25).astype(np.uint8), Property.LUMA, "darker"),
}


# It loads the network, which takes seconds; the others compare given faces.
@pytest.mark.merge
@pytest.mark.parametrize("name", ODD)
def test_odd_faces_from_the_pipeline_are_said_to_be_unlike_validation(api, admin, detector, name):
    change, each, direction = ODD[name]
    pictures = [scene(number, faces=(hopper(),), size=(480, 360)) for number in range(4)]
    frames = [Frame(number / 2, np.ascontiguousarray(change(picture))) for number, picture in enumerate(pictures)]
    result = detector.score_segment(frames)
    assert result.faces_scored == 4
    judge_job(api, [result])
    multiply(api, MIN_JOBS)
    labels = {"model": DEFAULT_CHECKPOINT, "kind": "video", "property": each.value, "direction": direction, "days": "7"}
    found = of(gauges(api), "input_psi", **labels)
    assert found is not None
    assert found > 0.25
    [asked] = re.findall(r'input_psi\{days="7",direction=~"(.+)"', ALERTS.read_text())
    assert direction in asked.split("|"), "the alert asks for it"
    shown = page(api, admin)
    assert f"unlike the validation set: faces are {direction}." in shown
    assert "The inputs are unlike the validation set" in shown
    assert of(gauges(api), "inputs_compared", model=DEFAULT_CHECKPOINT, kind="video", days="7") == MIN_JOBS


def test_few_jobs_show_nothing_and_kinds_are_told_apart(api, admin):
    faces = segment_of([(100.0, 100.0, 100.0)] * 5)
    judge_job(api, [faces])
    multiply(api, MIN_JOBS - 1)
    judge_job(api, [faces], kind="image")
    judge_job(api, [faces], kind="stream")
    assert set(indexes(api).values()) == {None}
    shown = page(api, admin)
    assert shown.count(f"Fewer than {MIN_JOBS} jobs with a scored face are too few; nothing is shown of them.") == 3
    assert not any(part in shown for part in ("<rect", "scored faces of", "Verdicts", "100.0 %", str(MIN_JOBS - 1)))
    rows = re.findall(r'<tr><th scope="row">(?:1 day|7 days|30 days)</th>(.+?)</tr>', shown)
    assert rows == [f"<td>below {MIN_JOBS}</td>" + "<td>–</td>" * 5] * 9
    for kind in ("videos", "images", "live streams"):
        assert f"{DEFAULT_CHECKPOINT}, {kind}</h2>" in shown
    judge_job(api, [faces])
    assert None not in indexes(api).values()
    shown = page(api, admin)
    assert f"{5 * MIN_JOBS} scored faces of {MIN_JOBS} jobs" in shown
    assert shown.count("<figure>") == 3


def test_a_kind_of_which_validation_had_few_media_is_compared_with_nothing(api, admin):
    media = REFERENCE.kinds["image"].media
    assert media < MIN_REFERENCE_MEDIA <= REFERENCE.kinds["video"].media
    judge_job(api, [segment_of([(100.0, 100.0, 100.0)])], kind="image")
    multiply(api, MIN_JOBS)
    assert set(indexes(api, kind="image").values()) == {None}
    shown = page(api, admin)
    assert f"the validation set has {media} images; {MIN_REFERENCE_MEDIA} are needed" in shown
    assert '<tr><th scope="row">100–120</th><td>100.0 %</td><td>–</td></tr>' in shown


def test_verdicts_and_the_band_are_shares_beside_those_of_validation(api, admin):
    for _ in range(3):
        judge_job(api, [segment_of([(100.0, 100.0, 100.0)] * 5)])
    judge_job(api, [score_segment([], [], 10)])
    multiply(api, MIN_JOBS)
    found = gauges(api)
    labels = {"model": DEFAULT_CHECKPOINT, "kind": "video", "days": "1"}
    assert of(found, "verdict_share", verdict="real", **labels) == 0.75
    assert of(found, "verdict_share", verdict="not_applicable", **labels) == 0.25
    assert of(found, "band_share", **labels) == 0.0
    for label, judged in REFERENCE.judged.items():
        share = of(found, "validation_band_share", model=DEFAULT_CHECKPOINT, label=label)
        assert share == pytest.approx(judged.scores_in_band / judged.media)
    shown = page(api, admin)
    real, fake = (REFERENCE.judged[label] for label in ("real", "fake"))
    shares = [f"{100 * judged.verdicts['real'] / judged.media:.1f} %" for judged in (real, fake)]
    assert f'<tr><th scope="row">real</th><td>75.0 %</td><td>{shares[0]}</td><td>{shares[1]}</td></tr>' in shown


def test_the_digest_has_the_comparison_unless_it_is_of_one_owner(api, monkeypatch):
    judge_job(api, [segment_of([(45.0, 100.0, 100.0)] * 3)])
    multiply(api, MIN_JOBS)
    given = {"DATABASE__URL": api.settings.database.url, "BROKER__URL": "redis://x", "STORAGE__URL": "file:///x"}
    for name, value in given.items():
        monkeypatch.setenv(f"DEEPFAKESTREAM_{name}", value)

    def run(*arguments):
        result = CliRunner().invoke(commands, arguments)
        assert result.exit_code == 0, result.output
        return result.output

    lines = [line.split() for line in run().splitlines()]
    assert ["swap-lite2,", "video:", "1200", "faces", "of", "400", "jobs"] in lines
    [size] = [line for line in lines if line[:1] == ["size"]]
    assert size[2:] == ["unlike,", "smaller"]
    [found] = json.loads(run("--json"))["inputs"]
    assert found["unlikeness"]["size_px"] == {
        "index": pytest.approx(indexes(api)[Property.SIZE], abs=1e-4),
        "level": "unlike",
        "direction": "smaller",
    }
    assert (found["faces"], found["jobs"], found["silence"]) == (1200, 400, None)
    yesterday = datetime.now(UTC).date().isoformat()
    assert json.loads(run("--json", "--until", yesterday))["inputs"] == []
    # No checkpoint is needed for one owner's.
    monkeypatch.delattr("api.digest.References")
    assert json.loads(run("--json", "--owner", "somebody"))["inputs"] == []


def test_without_a_reference_the_page_says_so_and_shows_the_counts(make_api, tmp_path):
    models = tmp_path / "models"
    shutil.copytree(PACKAGED_MODELS_DIR, models, ignore=shutil.ignore_patterns("weights*", REFERENCE_FILE))
    api = make_api(models={"dir": models})
    judge_job(api, [segment_of([(45.0, 100.0, 100.0)] * 3)])
    multiply(api, MIN_JOBS)
    shown = page(api, api.key("operators", "admin")[0])
    assert f"checkpoint &#39;{DEFAULT_CHECKPOINT}&#39; has no reference." in shown
    assert "1200 scored faces of 400 jobs" in shown
    assert '<tr><th scope="row">below 60</th><td>100.0 %</td><td>–</td></tr>' in shown
    assert set(indexes(api).values()) == {None}
    assert of(gauges(api), "band_share", model=DEFAULT_CHECKPOINT, kind="video", days="1") == 0.0


def waiting_sessions(api):
    """The number of sessions of the database that wait for a lock."""
    query = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
    with api.sessions.transaction() as session:
        return session.scalar(text(query))


def totals(api, days=30):
    with api.sessions.transaction() as session:
        return read_inputs(session, *last_days(today(session), days))


def test_counts_outlive_the_job_and_a_copied_result_is_not_counted_again(api):
    job_id = judge_job(api, [segment_of([(100.0, 100.0, 100.0)] * 4), segment_of([(50.0, 100.0, 100.0)])])
    [before] = totals(api)
    assert (before.jobs, before.scores, before.faces) == (1, 1, 5)
    assert before.bins[Property.SIZE] == (1, 0, 0, 4, 0, 0, 0, 0, 0, 0)
    with api.sessions.transaction() as session:
        copy_result(session, add_job(session), lock_job(session, job_id))
        delete_job(session, lock_job(session, job_id))
    assert totals(api) == [before]


def test_rows_are_folded_by_day_and_stay_the_same(api):
    for size_px in (50.0, 70.0, 500.0):
        judge_job(api, [segment_of([(size_px, 100.0, 100.0)])])
    judge_job(api, [segment_of([(50.0, 100.0, 100.0)])], kind="image")
    multiply(api, 2)
    with api.sessions.transaction() as session:
        moved = session.scalars(select(InputCount).where(InputCount.kind == "video").order_by(InputCount.id)).all()
        for row in moved[:4]:
            row.day = today(session) - timedelta(days=3)
        session.flush()
        old = {column.key: getattr(moved[0], column.key) for column in InputCount.__table__.columns}
        session.add(InputCount(**{**old, "id": None, "day": today(session) - timedelta(days=KEPT_DAYS + 1)}))
    before, week = totals(api), totals(api, 2)
    assert before != week
    with api.sessions.transaction() as session:
        fold_inputs(session)
        fold_inputs(session)
        days = session.execute(select(InputCount.day - today(session), func.count()).group_by(InputCount.day))
        assert dict(days.all()) == {-3: 1, 0: 2}
    assert (totals(api), totals(api, 2)) == (before, week)


def test_two_sessions_that_fold_at_once_lock_rows_in_order_and_fold_once(api):
    for kind in ("video", "stream", "image"):
        judge_job(api, [segment_of([(50.0, 100.0, 100.0)])], kind=kind)
    multiply(api, 3)
    with api.sessions.transaction() as session:
        session.execute(update(InputCount).values(day=today(session) - timedelta(days=1)))
    before = totals(api)
    ended = []

    def fold():
        with api.sessions.transaction() as session:
            fold_inputs(session)
        ended.append(True)

    others = [threading.Thread(target=fold) for _ in range(2)]
    with api.sessions.transaction() as session:
        of_kind = select(InputCount.id).order_by(InputCount.id)
        first = of_kind.where(InputCount.kind == "image").limit(1)
        session.execute(first.with_for_update()).one()
        for other in others:
            other.start()
        wait_until(lambda: waiting_sessions(api) == 2)
        # They wait for the first row of the first group and hold no other; this would raise otherwise.
        assert len(session.execute(of_kind.with_for_update(nowait=True)).all()) == 9
    for other in others:
        other.join(20)
    assert ended == [True, True]
    with api.sessions.transaction() as session:
        assert session.scalar(select(func.count()).select_from(InputCount)) == 3
    assert totals(api) == before


def test_rows_name_nobody(api):
    judge_job(api, [segment_of([(100.0, 100.0, 100.0)])])
    with api.sessions.transaction() as session:
        row = session.execute(select(InputCount.__table__)).mappings().one()
    assert not {"owner", "api_key_id", "job_id", "media_id"} & set(row)
    assert all(isinstance(value, int | str | list) or key in {"id", "day"} for key, value in row.items())


@pytest.mark.parametrize("days", ["0", "367", "week"])
def test_a_period_is_of_a_year_at_most(api, admin, days):
    answer = api.call("GET", "/v1/inputs.html", admin, query_string={"days": days})
    assert answer.status_code == 422


def test_the_pages_say_that_they_are_of_all_owners_and_name_the_properties(api, admin):
    judge_job(api, [segment_of([(100.0, 100.0, 100.0)])])
    multiply(api, MIN_JOBS)
    assert "sums over the jobs of all owners" in api.call("GET", "/inputs", {}).text
    content = api.call("GET", "/v1/inputs.html", admin).text
    assert "These are sums over the jobs of all owners" in content
    for name in ("Size", "Sharpness", "Brightness"):
        assert f">{name} of faces, " in content
        assert f'<th scope="col">{name}</th>' in content


def test_the_pages_run_nothing_from_elsewhere(api, admin):
    judge_job(api, [segment_of([(100.0, 100.0, 100.0)])])
    multiply(api, MIN_JOBS)
    shell, content = api.call("GET", "/inputs", {}), api.call("GET", "/v1/inputs.html", admin)
    assert "script-src 'self'" in shell.headers["Content-Security-Policy"]
    assert content.headers["Content-Security-Policy"] == "default-src 'none'; style-src 'unsafe-inline'; sandbox"
    for answer in (shell, content):
        assert "style=" not in answer.text
        assert "http" not in answer.text
    assert content.text.count('<svg class="histogram" role="img" aria-labelledby="') == 3
