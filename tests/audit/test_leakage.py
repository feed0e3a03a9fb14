import itertools

import numpy as np
import pytest

from retrace_pl.audit import avoidable_leakage, excess_leakage, expected_nearest, record_leakage
from retrace_pl.errors import InputError


def distances(candidates, records):
    return ((candidates[:, None] - records[None]) ** 2).mean(-1)


def test_excess_and_avoidable_are_differences_of_success():
    audited = [np.array([1, 1, 1, 0], bool), np.array([1, 1, 0, 0], bool)]
    control = [np.array([0, 0, 0, 1], bool), np.array([0, 0, 0, 0], bool)]
    for function in (excess_leakage, avoidable_leakage):
        result = function(audited, control).as_dict()
        assert result["value"] == pytest.approx(0.625 - 0.125)
        assert result["low"] <= result["value"] <= result["high"]
        assert result["metric"] == "sr_oracle"
        assert result["repeats"] == 2


def test_distances_change_sign():
    result = excess_leakage([[0.1, 0.1]], [[0.3, 0.3]], metric="mse", higher_is_leak=False)
    assert result.estimate.value == pytest.approx(0.2)


def test_identical_outcomes_are_no_excess():
    outcome = [np.ones(64, bool)]
    estimate = excess_leakage(outcome, outcome).estimate
    assert estimate.value == 0
    assert estimate.low < 0 < estimate.high


def test_expected_nearest_equals_the_mean_over_all_subsets():
    matrix = np.random.default_rng(0).random((3, 7))
    for size in range(1, 8):
        subsets = list(itertools.combinations(range(7), size))
        reference = np.mean([matrix[:, list(subset)].min(axis=1) for subset in subsets], axis=0)
        np.testing.assert_allclose(expected_nearest(matrix, size), reference)


def test_expected_nearest_refuses_impossible_sizes():
    with pytest.raises(InputError, match="subsets of 4 from 3"):
        expected_nearest(np.ones((2, 3)), 4)


def test_a_larger_deleted_set_is_not_closer_by_count_alone():
    rng = np.random.default_rng(1)
    candidates = rng.random((40, 6))
    records = rng.random((1100, 6))
    deleted, heldout = distances(candidates, records[:1000]), distances(candidates, records[1000:])
    naive = 1 - deleted.min(1).mean() / heldout.min(1).mean()
    result = record_leakage([deleted], [heldout], resamples=300).estimate
    assert naive > 0.4  # what counting alone would call a leak
    assert result.low < 0 < result.high


def test_no_false_record_leak_over_many_draws():
    rng = np.random.default_rng(2)
    leaks = 0
    for trial in range(60):
        candidates, records = rng.random((16, 4)), rng.random((150, 4))
        far = distances(candidates, records)
        result = record_leakage([far[:, :120]], [far[:, 120:]], resamples=150, seed=trial).estimate
        leaks += result.low > 0
    assert leaks <= 4


def test_copies_of_deleted_records_leak_and_the_scale_is_antisymmetric():
    rng = np.random.default_rng(3)
    records, unseen = rng.random((50, 8)), rng.random((50, 8))
    candidates = records[:20] + rng.normal(0, 0.01, (20, 8))
    deleted, heldout = distances(candidates, records), distances(candidates, unseen)
    leak, mirrored = record_leakage([deleted], [heldout]), record_leakage([heldout], [deleted])
    assert leak.estimate.value > 0.9
    assert leak.estimate.low > 0.5
    assert mirrored.estimate.value == pytest.approx(-leak.estimate.value)
    assert leak.metric == "relative_nearest_mse"


def test_several_repeats_and_notes():
    rng = np.random.default_rng(4)
    pairs = [(rng.random((5, 9)), rng.random((5, 6))) for _ in range(3)]
    first = record_leakage([a for a, _ in pairs], [b for _, b in pairs], resamples=50, seed=5)
    again = record_leakage([a for a, _ in pairs], [b for _, b in pairs], resamples=50, seed=5)
    assert first == again
    assert first.estimate.repeats == 3
    assert first.estimate.note == ""


@pytest.mark.parametrize(
    ("deleted", "heldout", "match"),
    [
        ([], [], "every repeat"),
        ([np.ones((2, 3))], [np.ones((3, 3))], "same candidates"),
        ([np.ones((2, 0))], [np.ones((2, 3))], "same candidates"),
        ([np.full((2, 3), np.nan)], [np.ones((2, 3))], "not finite"),
        ([-np.ones((2, 3))], [np.ones((2, 3))], "negative"),
    ],
)
def test_bad_distances(deleted, heldout, match):
    with pytest.raises(InputError, match=match):
        record_leakage(deleted, heldout)
