import math

import pytest

from retrace_pl.tuning.objective import WORST, differences, distance, mean_measures, shortcomings

REFERENCE = {"retain_acc": 0.95, "forget_acc": 0.0, "test_acc": 0.85, "mia_auc": 0.5}


def test_the_distance_is_the_sum_of_the_absolute_differences():
    quality = {"retain_acc": 0.90, "forget_acc": 0.2, "test_acc": 0.83, "mia_auc": 0.4}
    gaps = differences(quality, REFERENCE)
    assert gaps == pytest.approx({"retain_acc": -0.05, "forget_acc": 0.2, "test_acc": -0.02, "mia_auc": -0.1})
    assert distance(gaps) == pytest.approx(0.05 + 0.2 + 0.02 + 0.1)


def test_the_reference_itself_has_distance_0_and_nothing_is_farther_than_the_worst():
    assert distance(differences(REFERENCE, REFERENCE)) == 0
    zeros, ones = dict.fromkeys(REFERENCE, 0.0), dict.fromkeys(REFERENCE, 1.0)
    assert distance(differences(zeros, ones)) == WORST == 4


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_measure_that_is_not_finite_counts_as_the_worst(value):
    assert distance(differences({**REFERENCE, "mia_auc": value}, REFERENCE)) == WORST


def test_means_are_taken_measure_by_measure():
    rows = [REFERENCE, {"retain_acc": 0.85, "forget_acc": 0.4, "test_acc": 0.75, "mia_auc": 0.7}]
    assert mean_measures(rows) == pytest.approx({"retain_acc": 0.9, "forget_acc": 0.2, "test_acc": 0.8, "mia_auc": 0.6})


@pytest.mark.parametrize(
    ("forget", "retain", "named"),
    [
        (0.1, 0.95, []),
        (0.11, 0.95, ["forget_acc"]),
        (0.0, 0.901, []),
        (0.0, 0.89, ["retain_acc"]),
        (0.5, 0.1, ["forget_acc", "retain_acc"]),
        (math.nan, 0.95, ["forget_acc"]),
    ],
)
def test_what_counts_as_reaching_retraining(forget, retain, named):
    found = shortcomings({**REFERENCE, "forget_acc": forget, "retain_acc": retain}, REFERENCE)
    assert [phrase.split()[0] for phrase in found] == named
