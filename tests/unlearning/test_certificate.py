"""The noise of the certificate against exact Gaussian privacy curves and simulated worst cases."""

import math

import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from retrace_pl.unlearning.certificate import (
    epsilon_of,
    noise_energy,
    noisy_steps_epsilon,
    noisy_steps_sigma,
    worst_distance,
    zcdp_of,
)

RUN = {"start": 2.0, "drift": 0.3, "contraction": 0.9, "steps": 7}


def exact_delta(epsilon, distance, deviation):
    """The delta of two Gaussians with this distance of means (Balle & Wang, 2018, theorem 8)."""
    ratio = distance / deviation
    return norm.cdf(ratio / 2 - epsilon / ratio) - math.exp(epsilon) * norm.cdf(-ratio / 2 - epsilon / ratio)


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 8.0, 50.0])
@pytest.mark.parametrize("delta", [1e-2, 1e-5, 1e-9])
def test_zcdp_and_epsilon_are_inverse(epsilon, delta):
    assert epsilon_of(zcdp_of(epsilon, delta), delta) == pytest.approx(epsilon, rel=1e-12)


def test_distance_and_energy_are_the_sums_they_stand_for():
    c, T = RUN["contraction"], RUN["steps"]
    expected = c**T * 2.0 + 0.3 * (1 - c**T) / (1 - c)
    assert worst_distance(2.0, 0.3, c, T) == pytest.approx(expected)
    assert noise_energy(c, T) == pytest.approx((1 - c ** (2 * T)) / (1 - c**2))
    assert worst_distance(2.0, 0.3, 1.0, 5) == pytest.approx(3.5)
    assert (noise_energy(1.0, 5), noise_energy(0.0, 5), noise_energy(0.5, 0)) == (5.0, 1.0, 0.0)


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 4.0, 20.0])
@pytest.mark.parametrize("delta", [1e-3, 1e-6])
@pytest.mark.parametrize(("contraction", "steps"), [(1.0, 1), (1.0, 10), (0.8, 10), (0.0, 3)])
def test_the_worst_linear_run_meets_the_guarantee(epsilon, delta, contraction, steps):
    """Two runs whose steps push apart as far as they may: at the end two Gaussians, whose curve is known exactly."""
    sigma = noisy_steps_sigma(epsilon, delta, start=2.0, drift=0.3, contraction=contraction, steps=steps)
    means, variance = [1.0, -1.0], 0.0
    for _ in range(steps):
        means = [contraction * means[0] + 0.15, contraction * means[1] - 0.15]
        variance = contraction**2 * variance + sigma**2
    distance = means[0] - means[1]
    assert exact_delta(epsilon, distance, math.sqrt(variance)) <= delta
    needed = brentq(lambda s: exact_delta(epsilon, distance, s) - delta, 1e-3, 1e4)
    assert needed < math.sqrt(variance) < 1.7 * needed, "and the noise is not far above what is necessary"


@pytest.mark.parametrize("contraction", [1.0, 0.95, 0.5])
def test_the_parts_taken_off_the_shift_are_allowed(contraction):
    """The proof's parts: the shift that is left is never negative, ends at 0, and the price is Z^2 / S."""
    for start in (0.0, 0.5, 2.0):
        for drift in (0.0, 0.01, 1.0):
            steps = 12
            total = worst_distance(start, drift, contraction, steps)
            energy = noise_energy(contraction, steps)
            shift, price = start, 0.0
            for t in range(1, steps + 1):
                part = contraction ** (steps - t) * total / energy
                shift = contraction * shift + drift - part
                price += part**2
                assert shift >= -1e-12
            assert shift == pytest.approx(0, abs=1e-9)
            assert price == pytest.approx(total**2 / energy)


def test_sigma_and_epsilon_are_inverse_and_no_noise_is_no_guarantee():
    sigma = noisy_steps_sigma(1.0, 1e-5, **RUN)
    assert noisy_steps_epsilon(sigma, 1e-5, **RUN) == pytest.approx(1.0)
    assert noisy_steps_epsilon(2 * sigma, 1e-5, **RUN) < 1 < noisy_steps_epsilon(sigma / 2, 1e-5, **RUN)
    assert noisy_steps_epsilon(0.0, 1e-5, **RUN) == math.inf
    assert noisy_steps_epsilon(sigma, 1e-5, **{**RUN, "steps": 0}) == math.inf


def test_one_step_without_drift_is_the_gaussian_mechanism():
    """rho = distance^2 / (2 sigma^2), Bun & Steinke, proposition 1.6."""
    sigma = noisy_steps_sigma(1.0, 1e-5, start=2.0, drift=0.0, contraction=1.0, steps=1)
    rho = 4 / (2 * sigma**2)
    assert rho + 2 * math.sqrt(rho * math.log(1e5)) == pytest.approx(1.0)
