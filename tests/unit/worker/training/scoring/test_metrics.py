import math

import numpy as np
import pytest
from sklearn import metrics

from worker.training.scoring.metrics import (
    MIN_CLIPPED_SCORE,
    best_f1,
    best_f1_threshold,
    bootstrap,
    clipped_log_loss,
    confusion,
    equal_error_rate,
    expected_calibration_error,
    f1_at,
    log_loss,
    pr_auc,
    precision_at,
    reliability,
    roc_auc,
    summary,
    upper_rate_limit,
)

LABELS = np.array([0, 0, 1, 0, 1, 1])
SCORES = np.array([0.1, 0.3, 0.35, 0.6, 0.7, 0.9])


def test_roc_auc_is_the_share_of_pairs_in_the_right_order():
    assert roc_auc(LABELS, SCORES) == pytest.approx(8 / 9)  # Only 0.35 is below 0.6.
    assert roc_auc(LABELS, np.full(6, 0.4)) == 0.5


@pytest.mark.parametrize("digits", [1, 8], ids=["many equal", "all different"])
def test_areas_and_errors_are_those_of_scikit_learn(digits):
    rng = np.random.default_rng(7)
    labels = rng.integers(0, 2, 300)
    scores = np.round(rng.normal(size=300) + 0.7 * labels, digits)
    assert roc_auc(labels, scores) == pytest.approx(metrics.roc_auc_score(labels, scores))
    assert pr_auc(labels, scores) == pytest.approx(metrics.average_precision_score(labels, scores))
    false_positives, true_positives, _ = metrics.roc_curve(labels, scores)
    rate = equal_error_rate(labels, scores)
    assert np.interp(rate, false_positives, true_positives) == pytest.approx(1 - rate)


def test_pr_auc_is_the_mean_precision_at_each_fake():
    assert pr_auc(LABELS, SCORES) == pytest.approx((1 + 1 + 3 / 4) / 3)


def test_log_loss_is_the_mean_surprise():
    assert log_loss(np.array([1, 0]), np.array([0.8, 0.4])) == pytest.approx(-(math.log(0.8) + math.log(0.6)) / 2)


def test_log_loss_of_a_confident_mistake_is_large_and_finite():
    assert log_loss(np.array([1]), np.array([0.0])) == pytest.approx(-math.log(1e-6))


def test_clipping_bounds_the_loss_of_confident_scores():
    labels = np.array([1, 0])
    assert clipped_log_loss(labels, np.array([0.0, 1.0])) == pytest.approx(-math.log(MIN_CLIPPED_SCORE))
    assert clipped_log_loss(labels, np.array([1.0, 0.0])) == pytest.approx(-math.log(1 - MIN_CLIPPED_SCORE))
    assert clipped_log_loss(labels, np.array([0.8, 0.4])) == log_loss(labels, np.array([0.8, 0.4]))


def test_no_threshold_has_a_better_f1_than_the_best():
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 2, 60)
    scores = np.round(rng.random(60) + 0.3 * labels, 1)  # With many that are equal.
    by_threshold = {float(score): confusion(labels, scores >= float(score))["f1"] for score in np.unique(scores)}
    assert best_f1(labels, scores) == pytest.approx(max(by_threshold.values()))
    assert by_threshold[best_f1_threshold(labels, scores)] == pytest.approx(max(by_threshold.values()))


def test_without_a_fake_there_is_no_best_threshold():
    assert best_f1(np.zeros(3, int), np.arange(3.0)) is None
    assert best_f1_threshold(np.zeros(3, int), np.arange(3.0)) is None


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_precision_and_f1_at_a_share_of_fakes_are_those_of_media_with_that_share(share):
    fakes, reals = round(1000 * share), round(1000 * (1 - share))
    labels = np.array([1] * fakes + [0] * reals)
    hits, alarms = round(0.8 * fakes), round(0.1 * reals)
    scores = np.array([1.0] * hits + [0.0] * (fakes - hits) + [1.0] * alarms + [0.0] * (reals - alarms))
    called = confusion(labels, scores >= 0.5)
    assert precision_at(share, 0.8, alarms / reals) == pytest.approx(called["precision"])
    assert f1_at(share, 0.8, alarms / reals) == pytest.approx(called["f1"])


def test_nothing_called_fake_has_no_precision_at_any_share():
    assert precision_at(0.1, 0.0, 0.0) is None
    assert f1_at(0.1, 0.0, 0.0) == 0.0


def test_the_upper_rate_limit_agrees_with_the_rule_of_three():
    assert upper_rate_limit(1000) == pytest.approx(3.7 / 1000, rel=0.01)
    assert 0.95 < upper_rate_limit(1) < 1.0


def test_the_equal_error_rate_is_where_both_error_rates_meet():
    # From 0.6 on both reals at the bottom are below, one real and two fakes above: a third of each is wrong.
    assert equal_error_rate(LABELS, SCORES) == pytest.approx(1 / 3)


@pytest.mark.parametrize(("scores", "rate"), [([0.1, 0.2, 0.8, 0.9], 0.0), ([0.9, 0.8, 0.2, 0.1], 1.0)])
def test_the_equal_error_rate_of_perfect_and_inverted_scorers(scores, rate):
    assert equal_error_rate(np.array([0, 0, 1, 1]), np.array(scores)) == pytest.approx(rate)


def test_confusion_counts_a_score_at_the_threshold_as_fake():
    called = confusion(LABELS, SCORES >= 0.6)
    assert called == {
        "precision": pytest.approx(2 / 3),
        "recall": pytest.approx(2 / 3),
        "f1": pytest.approx(2 / 3),
        "false_positive_rate": pytest.approx(1 / 3),
        "balanced_accuracy": pytest.approx(2 / 3),
    }


def test_nothing_called_fake_has_no_precision():
    called = confusion(LABELS, SCORES >= 0.95)
    assert called["precision"] is None
    assert (called["recall"], called["f1"], called["false_positive_rate"]) == (0.0, 0.0, 0.0)


def test_reliability_bins_are_half_open():
    curve = reliability(np.array([0, 1, 1, 1]), np.array([0.0, 0.5, 0.7, 1.0]), bins=2)
    assert [(part.low, part.high, part.count) for part in curve] == [(0.0, 0.5, 1), (0.5, 1.0, 3)]
    assert curve[1].mean_score == pytest.approx(2.2 / 3)
    assert curve[1].fake_share == 1.0


def test_calibration_error_is_the_distance_weighted_by_how_many_are_that_far_off():
    labels, scores = np.array([0, 0, 0, 1]), np.array([0.2, 0.2, 0.2, 0.9])
    assert expected_calibration_error(labels, scores) == pytest.approx(0.75 * 0.2 + 0.25 * 0.1)


def test_scores_that_are_frequencies_are_calibrated():
    rng = np.random.default_rng(0)
    scores = rng.random(20_000)
    labels = (rng.random(20_000) < scores).astype(int)
    assert expected_calibration_error(labels, scores) < 0.02


@pytest.mark.parametrize("label", [0, 1])
def test_metrics_of_both_classes_are_none_with_one(label):
    found = summary(np.full(4, label), np.array([0.1, 0.4, 0.6, 0.9]), np.array([False, False, True, True]))
    assert found["roc_auc"] is None
    assert found["equal_error_rate"] is None
    assert found["fakes"] == 4 * label
    assert found["recall" if label == 0 else "false_positive_rate"] is None


def test_no_media_give_only_a_count():
    assert summary(np.array([], int), np.array([]), np.array([], bool)) == {"count": 0}


def test_an_interval_holds_the_measure_and_narrows_with_more_groups():
    def interval(count):
        rng = np.random.default_rng(count)
        labels = np.arange(count) % 2
        scores = labels * 0.5 + rng.normal(size=count)
        low, high = bootstrap(roc_auc, labels, scores, [str(row) for row in range(count)], rounds=200)
        assert low < roc_auc(labels, scores) < high
        return high - low

    assert interval(1000) < interval(60) / 2


def test_clips_of_one_person_do_not_make_an_interval_narrower():
    rng = np.random.default_rng(5)
    labels = np.arange(40) % 2
    scores = labels * 0.5 + rng.normal(size=40)
    people = [str(row) for row in range(40)]
    once = bootstrap(roc_auc, labels, scores, people, rounds=200)
    copied = bootstrap(roc_auc, np.tile(labels, 9), np.tile(scores, 9), people * 9, rounds=200)
    assert copied == pytest.approx(once)


def test_a_metric_undefined_in_most_draws_has_no_interval():
    assert bootstrap(roc_auc, np.zeros(4, int), np.arange(4.0), list("abcd"), rounds=20) is None
