import io
from types import SimpleNamespace

import pytest
from deepfakestream.outcomes import ScanResult
from deepfakestream.results import Job
from rich.console import Console

from api.embedded.demo import print_assessment, print_summary
from tests.unit.client.services import job as job_document


def job(score, *, trained=True):
    return SimpleNamespace(fake_score=score, evidence=None, model=SimpleNamespace(trained=trained, threshold=0.6))


@pytest.mark.parametrize(
    ("real", "swapped", "says"),
    [
        (job(0.1), job(0.9), "Both are on the right side of the threshold. The checkpoint is a research baseline"),
        (job(0.59), job(0.6), "Both are on the right side of the threshold."),
        (job(0.1), job(0.5), "this swap was missed. The swapped video is above the real one."),
        (job(0.5), job(0.1), "this swap was missed. The swapped video is not above the real one."),
        (job(0.7), job(0.9), "a false alarm. The swapped video is above the real one."),
        (job(0.9), job(0.1), "Both are on the wrong side of the threshold. The swapped video is not above"),
        (job(0.1, trained=False), job(0.9, trained=False), "This checkpoint is untrained"),
        (job(None), job(0.9), "nothing to compare"),
        (job(0.1), job(None), "nothing to compare"),
    ],
    ids=[
        "right side",
        "at the threshold",
        "missed, above the real one",
        "missed, below the real one",
        "false alarm",
        "both wrong",
        "untrained",
        "real one without a score",
        "swapped one without a score",
    ],
)
def test_the_demo_says_what_was_measured(real, swapped, says):
    console = Console(file=io.StringIO(), width=1000)
    print_assessment(console, [real, swapped])
    said = console.file.getvalue()
    assert says in said
    is_measured = real.model.trained and None not in (real.fake_score, swapped.fake_score)
    assert ("Measured: " in said) == ("research baseline" in said) == is_measured
    if is_measured:
        figures = (
            f"the real video {real.fake_score:.3f} with the threshold 0.600,"
            f" the swapped one {swapped.fake_score:.3f} with 0.600"
        )
        assert f"Measured: {figures}. " in said


def test_the_demo_compares_with_what_each_videos_evidence_asks_for():
    def seen(score, fake_from):
        return SimpleNamespace(
            fake_score=score,
            evidence=SimpleNamespace(fake_from=fake_from),
            model=SimpleNamespace(trained=True, threshold=0.6),
        )

    console = Console(file=io.StringIO(), width=1000)
    print_assessment(console, [seen(0.65, 0.7), seen(0.55, 0.5)])
    assert "Both are on the right side of the threshold." in console.file.getvalue()


def test_the_demo_says_nothing_of_a_job_that_is_not_there():
    console = Console(file=io.StringIO())
    print_assessment(console, [None, job(0.9)])
    assert console.file.getvalue() == ""


def test_the_demo_ends_with_the_verdict_and_score_of_each_file():
    model = {
        "name": "m",
        "version": "1",
        "trained": True,
        "weights_sha256": "0",
        "threshold": 0.6,
        "uncertainty_band": [0.1, 0.6],
    }
    scored = Job.from_json(job_document(verdict="fake", fake_score=0.93, model=model))
    console = Console(file=io.StringIO(), width=1000)
    print_summary(console, [ScanResult("a/real.mp4", None, OSError()), ScanResult("a/swapped.mp4", scored, None)])
    assert console.file.getvalue().strip().splitlines() == [
        "real.mp4: no result",
        "swapped.mp4: fake, average 0.9300; fake from 0.6, real below 0.1",
    ]
