"""Numbers and counts in printed results."""

import io

import pytest
from deepfakestream.outcomes import ScanResult
from deepfakestream.printing import TablePrinter
from deepfakestream.results import Job
from rich.console import Console

from api.embedded.demo import print_summary
from tests.unit.client.services import job as job_document

MODEL = {
    "name": "m",
    "version": "1",
    "trained": True,
    "weights_sha256": "0" * 64,
    "threshold": 0.6,
    "uncertainty_band": [0.1, 0.6],
}


def printed(**changes):
    job = Job.from_json(job_document("succeeded", model=MODEL, **changes))
    console = Console(file=io.StringIO(), width=1000)
    TablePrinter(console).print_result(ScanResult("a", job, None))
    TablePrinter(console).print_end([ScanResult("a", job, None)], 1.0)
    print_summary(console, [ScanResult("a", job, None)])
    return console.file.getvalue()


def scored(faces, people):
    limits = {"bits_per_pixel": None, "real_below": 0.1, "fake_from": 0.6}
    return {
        "fake_score": 0.5,
        "peak_score": 0.5,
        "verdict": "inconclusive",
        "evidence": {"kind": "video", "faces": faces, "people": people, **limits},
    }


@pytest.mark.parametrize("evidence", [None, {"kind": "video", "faces": 0, "people": 0.0}], ids=["none", "no face"])
def test_limits_are_not_printed_where_nothing_was_scored(evidence):
    text = printed(verdict="not_applicable", evidence=evidence)
    assert "fake from" not in text
    assert "model   m 1, weights sha256 000000000000…; how far to trust it" in text
    assert "a: not_applicable, no score\n" in text


@pytest.mark.parametrize(
    ("faces", "people", "text"),
    [
        (1, 1.0, "(on 1 face)"),
        (2, 1.0, "(on 2 faces)"),
        (9, 2.0, "(on 9 faces, the highest of 2 people)"),
        (9, 1.3, "(on 9 faces, the highest of about 1.3 people)"),
    ],
)
def test_the_evidence_behind_the_limits_is_printed(faces, people, text):
    assert printed(**scored(faces, people)).count(f"fake from 0.6, real below 0.1 {text}") == 2


def test_reasons_are_explained_below_the_verdict_as_far_as_they_are_known():
    text = printed(**scored(2, 1.0), reasons=["little_evidence", "from_a_later_release"])
    verdict, why = text[text.index("verdict ") :].splitlines()[:2]
    assert verdict == "verdict inconclusive (little_evidence, from_a_later_release)"
    assert why == "        Only one or two small, soft or dark faces could be scored."


def test_a_terminal_breaks_reasons_below_their_first_word():
    job = Job.from_json(job_document("succeeded", model=MODEL, **scored(2, 1.0), reasons=["heavily_compressed"]))
    console = Console(file=io.StringIO(), width=60, force_terminal=True, color_system=None)
    TablePrinter(console).print_result(ScanResult("a", job, None))
    lines = console.file.getvalue().splitlines()
    place = next(number for number, line in enumerate(lines) if "so heavily that" in line)
    assert all(line.startswith("        ") and line[8] != " " for line in lines[place : place + 3]), lines
    assert all(len(line.rstrip()) <= 60 for line in lines)


def test_suspicious_stretches_and_their_faces_are_counted():
    stretch = {"start_s": 0.0, "end_s": 5.0, "person": 0, "fake_score": 0.9, "faces": 1, "verdict": "fake"}
    text = printed(**scored(9, 1.0), suspicious=[stretch] * 6)
    assert "person 0: 0.9000 on 1 face, fake" in text
    assert "and 1 more stretch of time (" in text
    assert "0.9000 on 3 faces, fake" in printed(**scored(9, 1.0), suspicious=[stretch | {"faces": 3}])


@pytest.mark.parametrize(
    ("provenance", "text"),
    [
        (None, None),
        ({"state": "none"}, None),
        ({"state": "not_checked", "reason": "format"}, None),
        ({"state": "valid", "signer": "A\x1b[2J"}, "content credentials: valid, signed by 'A"),
        (
            {"state": "untrusted", "ai_generated": True},
            "of an unknown signer; they say that a generative model made it",
        ),
        ({"state": "invalid"}, "content credentials: not valid"),
    ],
    ids=["earlier", "none", "not-checked", "valid", "untrusted-ai", "invalid"],
)
def test_content_credentials_are_one_line_if_there_are_any(provenance, text):
    found = printed(provenance=provenance)
    assert "\x1b" not in found
    if text is None:
        assert "credentials" not in found
    else:
        assert text in found
