import io
from types import SimpleNamespace

import pytest
from deepfakestream.cli import _explain
from rich.console import Console


def job(score, *, trained=True):
    return SimpleNamespace(fake_score=score, model=SimpleNamespace(trained=trained, threshold=0.6))


@pytest.mark.parametrize(
    ("real", "swapped", "says"),
    [
        (job(0.1), job(0.9), "Both are on the right side of the threshold."),
        (job(0.1), job(0.5), "this swap was missed. The swapped video is above the real one."),
        (job(0.5), job(0.1), "this swap was missed. The swapped video is not above the real one."),
        (job(0.7), job(0.9), "a false alarm. The swapped video is above the real one."),
        (job(0.9), job(0.1), "Both are on the wrong side of the threshold. The swapped video is not above"),
        (job(0.1, trained=False), job(0.9, trained=False), "This checkpoint is untrained"),
        (job(None), job(0.9), "nothing to compare"),
    ],
)
def test_the_demo_says_what_was_measured(real, swapped, says):
    console = Console(file=io.StringIO(), width=1000)
    _explain(console, [real, swapped])
    assert says in console.file.getvalue()


def test_the_demo_says_nothing_of_a_job_that_is_not_there():
    console = Console(file=io.StringIO())
    _explain(console, [None, job(0.9)])
    assert console.file.getvalue() == ""
