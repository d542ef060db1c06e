"""Comparing scores of a bundle with those of another scan; a real scan is in tests/e2e/test_evidence.py."""

from copy import deepcopy
from pathlib import Path

import pytest
from deepfakestream.errors import BundleError, MissingPartError
from deepfakestream.verification import rescoring

MODEL = {
    "weights_sha256": "a",
    "pipeline": 4,
    "temperature": 1.0,
    "offset": 0.0,
    "preprocessing": {"crop_size_px": 224},
}
JOB = {
    "status": "succeeded",
    "options": {"model": "m", "sample_fps": 2.0, "segment_seconds": 5.0},
    "model": MODEL,
    "fake_score": 0.3,
    "verdict": "real",
    "segments": [{"fake_score": 0.2}, {"fake_score": 0.4}, {"fake_score": None}],
}
SCORES = (0.2, 0.4, None)


class ScanError(Exception):
    """As the pipeline raises errors."""

    code = "not_media"


def rescore(monkeypatch, scan, job=JOB):
    monkeypatch.setattr(rescoring, "load_local_function", lambda name: {"scan": scan}[name])
    return rescoring.rescore(job, SCORES, Path("media"))


def changed(**changes):
    return {**deepcopy(JOB), **changes}


def test_equal_scores_within_the_tolerance_are_accepted(monkeypatch):
    seen = {}

    def scan(path, **options):
        seen.update(options, path=path)
        return changed(fake_score=0.3 + rescoring.TOLERANCE / 2)

    assert "within 0.0025" in rescore(monkeypatch, scan)
    assert seen == {"path": Path("media"), **JOB["options"]}


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (changed(fake_score=0.31), "differs by 0.01"),
        (changed(segments=[{"fake_score": 0.2}, {"fake_score": 0.5}, {"fake_score": None}]), "differs by 0.1"),
        (changed(segments=[{"fake_score": 0.2}, {"fake_score": None}, {"fake_score": None}]), "none in the bundle"),
        (changed(segments=[{"fake_score": 0.2}]), "1 segments here, and 3"),
        (changed(verdict="fake"), "verdict is fake here"),
        (changed(model={**MODEL, "weights_sha256": "b"}), "another weights_sha256"),
        (changed(model={**MODEL, "pipeline": 5}), "another pipeline"),
    ],
)
def test_another_outcome_is_refused(monkeypatch, found, reason):
    with pytest.raises(BundleError, match=reason):
        rescore(monkeypatch, lambda *_, **__: found)


def test_media_that_cannot_be_scanned_and_jobs_without_scores_are_refused(monkeypatch):
    def scan(*_, **__):
        raise ScanError("no media")

    with pytest.raises(BundleError, match="could not be scanned here: no media"):
        rescore(monkeypatch, scan)
    with pytest.raises(BundleError, match="has failed"):
        rescore(monkeypatch, scan, changed(status="failed"))


@pytest.mark.parametrize("option", [{"segment_seconds": 1e-9}, {"sample_fps": 1e9}, {"sample_fps": -1}])
def test_a_scan_that_would_not_end_is_not_begun(monkeypatch, option):
    def scan(*_, **__):
        pytest.fail("it was begun")

    with pytest.raises(BundleError, match="no service accepts"):
        rescore(monkeypatch, scan, changed(options={**JOB["options"], **option}))


def test_a_missing_server_is_reported(monkeypatch):
    monkeypatch.setattr(
        rescoring, "load_local_function", lambda _: (_ for _ in ()).throw(MissingPartError("install it"))
    )
    with pytest.raises(MissingPartError):
        rescoring.rescore(JOB, SCORES, Path("media"))
