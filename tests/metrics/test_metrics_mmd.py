"""The maximum mean discrepancy against its definition."""

import math

import pytest
import torch

from retrace_pl.metrics import FeatureMMD
from retrace_pl.metrics.mmd import gaussian_mmd, median_distance

RANDOM = torch.Generator().manual_seed(0)
FIRST, SECOND = torch.randn(9, 4, generator=RANDOM), torch.randn(7, 4, generator=RANDOM) + 0.5


def plain(first, second, bandwidth):
    kernel = lambda x, y: math.exp(-float((x - y).double().square().sum()) / (2 * bandwidth**2))  # noqa: E731
    n, m = len(first), len(second)
    one = sum(kernel(first[i], first[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    two = sum(kernel(second[i], second[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    both = sum(kernel(x, y) for x in first for y in second) / (n * m)
    return one + two - 2 * both


def test_equals_the_definition():
    assert float(gaussian_mmd(FIRST, SECOND, 1.7)) == pytest.approx(plain(FIRST, SECOND, 1.7))


def test_bandwidth_is_the_references_median_whatever_the_candidates():
    metric = FeatureMMD(SECOND)
    distances = sorted(float((a - b).double().norm()) for i, a in enumerate(SECOND) for b in SECOND[:i])
    assert metric.bandwidth == pytest.approx(distances[len(distances) // 2])
    for part in (FIRST[:4], FIRST[4:]):
        metric.update(part)
    assert float(metric.compute()) == pytest.approx(plain(FIRST, SECOND, metric.bandwidth))


def test_unbiased_for_equal_distributions_and_large_for_others():
    values = []
    for _ in range(60):
        one, two = (torch.randn(20, 3, generator=RANDOM) for _ in range(2))
        values.append(float(gaussian_mmd(one, two, 1.5)))
    spread = torch.tensor(values)
    assert abs(float(spread.mean())) < 3 * float(spread.std()) / 60**0.5
    assert float(gaussian_mmd(FIRST, SECOND + 100, 1.5)) > 0.5


def test_undefined_for_too_few_or_equal_records():
    for reference, candidates in ((SECOND[:1], FIRST), (SECOND, FIRST[:1]), (torch.ones(5, 4), FIRST)):
        metric = FeatureMMD(reference)
        metric.update(candidates)
        assert math.isnan(float(metric.compute()))


def test_many_equal_records_take_the_mean_distance():
    rows = torch.zeros(10, 2)
    rows[0] = 3.0
    assert median_distance(rows) == pytest.approx(float(rows[0].norm()) * 9 / 45)
