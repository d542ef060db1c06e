"""The words and the timeline of a report."""

from types import SimpleNamespace

import pytest

from api.web.timeline import draw_timeline
from api.web.wording import FAKE_IN_PART, explain_error_rates, explain_person, explain_verdict, make_printable


@pytest.mark.parametrize("reason", ["one_person", "short_manipulation"])
def test_a_fake_part_is_not_described_as_a_high_score_of_the_whole(reason):
    assert explain_verdict("fake", [reason])[1] == FAKE_IN_PART
    assert explain_verdict("fake", ["heavily_compressed"])[1] != FAKE_IN_PART
    assert explain_verdict("inconclusive", [reason])[1] != FAKE_IN_PART


def test_a_low_score_clears_nobody_where_nothing_is_decided():
    assert explain_person("real", is_decided=True) == "no signs of a swap"
    assert explain_person("real", is_decided=False) == "low, and not decided"
    assert explain_person("fake", is_decided=False) == "signs of a swap"


def test_error_rates_are_stated_only_if_they_were_measured():
    words = explain_error_rates({"validation_recall": 0.7927, "validation_false_positive_rate": 0.0484})
    assert words is not None
    assert "of 100 fakes this detector called 79 fake" in words
    assert "Of 100 genuine files it called 5 fake" in words
    # 0.99 · 0.0484 of all files are false alarms, and 0.01 · 0.7927 are fakes that are found.
    assert "about 86 of 100 that it calls fake are genuine" in words
    assert explain_error_rates({"validation_recall": 0.8}) is None
    assert explain_error_rates({"validation_recall": 0.0, "validation_false_positive_rate": 0.0}) is None


def test_text_from_outside_is_on_one_line_and_reorders_nothing():
    assert make_printable("a\u202eb\u0000c\nd é 猫") == r"a\u202eb\u0000c d é 猫"


def test_the_timeline_is_in_percent_and_keeps_its_limits():
    rows = [
        SimpleNamespace(start_s=5.0 * at, end_s=5.0 * at + 5, fake_score=score) for at, score in enumerate((0.8, None))
    ]
    drawn = draw_timeline(rows, {"real_below": 0.1, "fake_from": 0.6}, [])
    assert [(bar.x, bar.y, bar.height, bar.level) for bar in drawn.bars] == [
        (0, 20, 80, "high"),
        (50, 97.5, 2.5, "none"),
    ]
    assert [(limit.name, limit.score, limit.y) for limit in drawn.limits] == [("real", 0.1, 90), ("fake", 0.6, 40)]
    assert max(bar.x + bar.width for bar in drawn.bars) <= 100
