import numpy as np
import pytest
from scipy.stats import t as student

from retrace_pl.audit import SINGLE_PAIR, excess_over_pairs, over_forgetting
from retrace_pl.errors import InputError


def test_margin_is_that_of_one_further_pair():
    rng = np.random.default_rng(0)
    null = [np.full(4000, level) + rng.normal(0, 1e-6, 4000) for level in (0.1, 0.2, 0.3)]
    audited = [np.full(4000, 0.9) + rng.normal(0, 1e-6, 4000)] * 2
    result = excess_over_pairs(audited, null, level=0.9)
    half = student.ppf(0.95, 2) * np.std([0.1, 0.2, 0.3], ddof=1) * np.sqrt(4 / 3)
    assert result.estimate.value == pytest.approx(0.7, abs=1e-5)
    assert result.estimate.value - result.estimate.low == pytest.approx(half, rel=1e-3)
    assert result.estimate.repeats == 3


def test_equal_control_pairs_still_have_the_noise_of_their_candidates():
    estimate = excess_over_pairs([np.ones(8)] * 2, [np.zeros(8)] * 2).estimate
    assert estimate.value == 1.0
    assert 0.5 < estimate.low < 0.95


def test_a_further_null_pair_is_rarely_called_different():
    # Success rates differ between pairs far more than within: an interval for the mean alone would fail here.
    rng = np.random.default_rng(2)
    wrong = naive = 0
    for trial in range(200):
        rates = np.clip(rng.normal(0.3, 0.12, size=4), 0.01, 0.99)
        audited = [rng.random(64) < rates[0] for _ in range(3)]
        null = [rng.random(64) < rate for rate in rates[1:]]
        estimate = excess_over_pairs(audited, null, resamples=300, seed=trial).estimate
        wrong += estimate.low > 0
        pooled = np.concatenate(audited).mean() - np.concatenate(null).mean()
        naive += pooled > 1.96 * np.sqrt(2 * 0.3 * 0.7 / 192)
    assert wrong / 200 <= 0.05
    assert naive / 200 > 0.15


def test_distances_change_sign_and_ends():
    estimate = excess_over_pairs([[0.1, 0.12]], [[0.3, 0.4]], metric="mse", higher_is_leak=False).estimate
    assert estimate.value == pytest.approx(0.24)
    assert estimate.low < 0.24 < estimate.high
    assert estimate.note == SINGLE_PAIR


def test_over_forgetting_is_a_loss_beyond_every_retrained_model():
    rng = np.random.default_rng(3)
    records = rng.uniform(5, 9, 80)  # how hard each record is, for every model that never saw it
    retrained = [records + rng.normal(shift, 0.3, 80) for shift in (0.0, 0.2, -0.1)]
    over = over_forgetting(records + 30, retrained).estimate
    assert over.value == pytest.approx(30, abs=0.5)
    assert over.low > 20
    assert over.repeats == 3
    same = over_forgetting(records + rng.normal(0.1, 0.3, 80), retrained).estimate
    assert same.low < 0 < same.high
    assert over_forgetting(np.zeros(80), retrained).estimate.high < 0, "a model that has not forgotten"
    assert over_forgetting(records, retrained[:1]).estimate.note == SINGLE_PAIR


def test_losses_of_other_records_are_refused():
    with pytest.raises(InputError, match="same deleted records"):
        over_forgetting([1.0, 2.0], [[1.0, 2.0, 3.0]])
