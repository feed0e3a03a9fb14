import numpy as np
import pytest

from retrace_pl.audit import bootstrap_difference, combine_leakage
from retrace_pl.errors import InputError


def audits(effect, seeds=3, classes=4, size=64, rng=None):
    rng = np.random.default_rng(0) if rng is None else rng
    return {
        (seed, name): (
            [rng.random(size) < 0.2 + effect(seed, name) for _ in range(2)],
            [rng.random(size) < 0.2 for _ in range(2)],
        )
        for seed in range(seeds)
        for name in range(classes)
    }


def test_value_is_the_mean_over_audits():
    cells = {("a", 1): ([[1, 1]], [[0, 0]]), ("b", 1): ([[1, 0]], [[0, 0]]), ("b", 2): ([[0, 0]], [[1, 0]])}
    result = combine_leakage(cells)
    assert result.estimate.value == pytest.approx((1 + 0.5 - 0.5) / 3)
    assert result.estimate.repeats == 3
    assert result.estimate.low <= result.estimate.value <= result.estimate.high
    assert combine_leakage(cells) == result


def test_one_audit_gives_the_interval_of_its_own_bootstrap():
    rng = np.random.default_rng(1)
    audited, control = [rng.random(80) for _ in range(4)], [rng.random(80) for _ in range(4)]
    pooled = combine_leakage({(0, 3): (audited, control)}, metric="score").estimate
    single = bootstrap_difference(audited, control)
    assert pooled.value == pytest.approx(single.value)
    assert pooled.high - pooled.low == pytest.approx(single.high - single.low, rel=0.1)
    assert "one seed and one class only" in pooled.note


def test_an_effect_of_few_classes_is_not_taken_for_one_of_all():
    everywhere = combine_leakage(audits(lambda seed, name: 0.4)).estimate
    one_class = combine_leakage(audits(lambda seed, name: 0.6 * (name == 0))).estimate
    assert everywhere.low > 0.25
    assert everywhere.note == ""
    assert one_class.value > 0.1
    assert one_class.low <= 0.0, "three of four classes show nothing"


def test_an_effect_of_one_seed_widens_the_interval_as_well():
    assert combine_leakage(audits(lambda seed, name: 0.7 * (seed == 0))).estimate.low <= 0.0


def test_coverage_when_classes_and_seeds_vary():
    rng = np.random.default_rng(5)
    covered = 0
    for trial in range(120):
        by_seed, by_class = rng.normal(0, 0.05, 3), rng.normal(0, 0.05, 4)

        def effect(seed, name, a=by_seed, b=by_class):
            return 0.3 + a[seed] + b[name]

        estimate = combine_leakage(audits(effect, rng=rng), resamples=300, seed=trial).estimate
        covered += estimate.low <= 0.3 <= estimate.high
    assert covered / 120 >= 0.88


def test_missing_combinations_and_distances():
    cells = {(0, 0): ([[0.1]], [[0.3]]), (1, 1): ([[0.1]], [[0.5]])}
    result = combine_leakage(cells, metric="mse", higher_is_leak=False, resamples=200)
    assert result.estimate.value == pytest.approx(0.3)
    assert (result.estimate.low, result.estimate.high) == pytest.approx((0.2, 0.4))


@pytest.mark.parametrize(
    ("cells", "options", "said"),
    [
        ({}, {}, "no audit"),
        ({(0, 0): ([], [[1.0]])}, {}, "seed 0, class 0"),
        ({(0, 0): ([[1.0]], [[1.0]])}, {"level": 1.0}, "level"),
        ({(0, 0): ([[1.0]], [[1.0]])}, {"resamples": 0}, "resamples"),
    ],
)
def test_bad_input(cells, options, said):
    with pytest.raises(InputError, match=said):
        combine_leakage(cells, **options)
