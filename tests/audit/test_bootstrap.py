import numpy as np
import pytest

from retrace_pl.audit import SINGLE_REPEAT, bootstrap_difference, bootstrap_mean
from retrace_pl.errors import InputError


def test_value_is_the_mean_of_repeat_means():
    estimate = bootstrap_mean([[0.0, 1.0, 2.0], [10.0]])
    assert estimate.value == pytest.approx((1.0 + 10.0) / 2)
    assert estimate.low <= estimate.value <= estimate.high
    assert estimate.repeats == 2
    assert estimate.note == ""


def test_same_seed_same_interval():
    repeats = [np.random.default_rng(i).normal(size=30) for i in range(3)]
    assert bootstrap_mean(repeats, seed=1) == bootstrap_mean(repeats, seed=1)
    assert bootstrap_mean(repeats, seed=1) != bootstrap_mean(repeats, seed=2)


def test_one_repeat_works_and_says_so():
    sample = np.random.default_rng(0).normal(size=400)
    estimate = bootstrap_mean([sample])
    assert estimate.note == SINGLE_REPEAT
    # The ordinary bootstrap of a mean: plus and minus 1.96 standard errors.
    half = 1.96 * sample.std() / 20
    assert (estimate.high - estimate.low) / 2 == pytest.approx(half, rel=0.1)


def test_all_successes_do_not_give_certainty():
    few, many = bootstrap_mean([[1] * 5]), bootstrap_mean([[1] * 500])
    assert few.high == many.high == 1.0
    assert few.low < 0.75  # Wilson's lower end for 5 of 5 is 0.57
    assert many.low > 0.98


def test_between_repeat_variance_dominates():
    # All candidates agree within a repeat and repeats disagree: a flat bootstrap of 400 would be far too sure.
    repeats = [np.full(100, float(i % 2)) for i in range(4)]
    estimate = bootstrap_mean(repeats)
    assert estimate.high - estimate.low > 0.7


@pytest.mark.parametrize("repeats", [1, 8])
def test_coverage_on_synthetic_outcomes(repeats):
    rng = np.random.default_rng(7)
    covered, trials = 0, 200
    for trial in range(trials):
        # True mean 0.6 with a spread over repeats; for one repeat only candidates vary, as its note says.
        rates = np.clip(rng.normal(0.6, 0.1, size=repeats), 0, 1) if repeats > 1 else [0.6]
        outcomes = [rng.random(40) < rate for rate in rates]
        estimate = bootstrap_mean(outcomes, resamples=400, seed=trial)
        covered += estimate.low <= 0.6 <= estimate.high
    assert 0.90 <= covered / trials <= 0.995


def test_difference_covers_the_true_difference_and_zero_under_the_null():
    rng = np.random.default_rng(3)
    covered = null = 0
    for trial in range(200):
        audited, control = [rng.random(64) < 0.5 for _ in range(4)], [rng.random(64) < 0.2 for _ in range(4)]
        estimate = bootstrap_difference(audited, control, resamples=400, seed=trial)
        covered += estimate.low <= 0.3 <= estimate.high
        same = bootstrap_difference(audited, [rng.random(64) < 0.5 for _ in range(4)], resamples=400, seed=trial)
        null += same.low <= 0 <= same.high
    assert covered / 200 >= 0.9
    assert null / 200 >= 0.9


def test_unequal_numbers_of_repeats():
    estimate = bootstrap_difference([[1, 1, 0], [1, 1, 1]], [[0, 0, 0]])
    assert estimate.value == pytest.approx(5 / 6)
    assert estimate.repeats == 1
    assert estimate.note == SINGLE_REPEAT


def test_pairing_cancels_what_repeats_share():
    shift = np.array([0.0, 10.0, 20.0, 30.0])
    audited, control = [s + np.array([1.0, 1.1]) for s in shift], [s + np.array([0.0, 0.1]) for s in shift]
    estimate = bootstrap_difference(audited, control)
    assert estimate.value == pytest.approx(1.0)
    assert 0.8 < estimate.low <= estimate.high < 1.2


@pytest.mark.parametrize(
    ("repeats", "match"), [([], "no repeats"), ([[]], "no candidates"), ([[1.0], [float("nan")]], "repeat 1")]
)
def test_bad_outcomes(repeats, match):
    with pytest.raises(InputError, match=match):
        bootstrap_mean(repeats)


def test_bad_settings():
    with pytest.raises(InputError, match="level"):
        bootstrap_mean([[1.0]], level=1.0)
    with pytest.raises(InputError, match="resamples"):
        bootstrap_mean([[1.0]], resamples=0)
