"""The accounting behind `NoisyFineTune`: how much noise hides which model a run started from."""

from __future__ import annotations

import math


def zcdp_of(epsilon: float, delta: float) -> float:
    """The largest rho for which rho-zCDP implies (epsilon, delta)-indistinguishability.

    Inverts `epsilon = rho + 2 sqrt(rho ln(1 / delta))` (Bun & Steinke, 2016, proposition 1.3).

    Args:
        epsilon: Above 0.
        delta: Strictly between 0 and 1.

    Returns:
        rho, above 0.
    """
    log = math.log(1 / delta)
    return (epsilon / (math.sqrt(log + epsilon) + math.sqrt(log))) ** 2  # the difference of the roots, without loss


def epsilon_of(rho: float, delta: float) -> float:
    """The epsilon that rho-zCDP implies at a delta (Bun & Steinke, 2016, proposition 1.3).

    Args:
        rho: 0 or more; infinite where there is no noise.
        delta: Strictly between 0 and 1.

    Returns:
        Epsilon, 0 or more.
    """
    return rho + 2 * math.sqrt(rho * math.log(1 / delta))


def worst_distance(start: float, drift: float, contraction: float, steps: int) -> float:
    """How far two noiseless runs can be apart after a number of steps, `z_t = contraction z_(t-1) + drift`.

    Args:
        start: Largest distance before the first step.
        drift: What one step can add.
        contraction: What one step multiplies the distance by, in [0, 1].
        steps: Number of steps.

    Returns:
        z_steps.
    """
    distance = start
    for _ in range(steps):
        distance = contraction * distance + drift
    return distance


def noise_energy(contraction: float, steps: int) -> float:
    """The variance that unit noise of every step adds up to at the end, `sum_(t < steps) contraction^(2 t)`.

    Args:
        contraction: What one step multiplies earlier noise by, in [0, 1].
        steps: Number of steps.

    Returns:
        Between 1 (contraction 0) and `steps` (contraction 1); 0 for no step.
    """
    return float(sum(contraction ** (2 * t) for t in range(steps)))


def noisy_steps_sigma(
    epsilon: float, delta: float, *, start: float, drift: float, contraction: float, steps: int
) -> float:
    """Standard deviation of each step's noise that makes the last iterates of two runs indistinguishable.

    The runs are `x_t = psi_t(x_(t-1)) + N(0, sigma^2 I)` with the same maps psi_t, which satisfy
    `|psi_t(x) - psi_t(y)| <= contraction |x - y| + drift`, from starting points at most `start` apart. Then the Renyi
    divergence of order a of the last iterates is at most `a Z^2 / (2 sigma^2 S)` for every a > 1, with Z the worst
    distance and S the noise energy, which is zCDP.

    Proof. Privacy amplification by iteration (Feldman et al., 2018): a divergence shifted by z becomes one shifted by
    `contraction z + drift` under psi_t, since a coupling within z is mapped to one within that; the noise of the step
    then takes a part a_t off the shift at the price `a a_t^2 / (2 sigma^2)` (their shift-reduction lemma). The shift
    must be 0 at the end, `sum_t c^(T-t) a_t = Z` with c the contraction, and negative at no step. The cheapest such
    a_t are `c^(T-t) Z / S`, with `sum a_t^2 = Z^2 / S`; the shift they leave after step t is not negative, because
    `S_t <= S_T` (the part of `start`) and `c^(T-t) (1 + c^t) <= 1 + c^T` (the part of `drift`).

    Args:
        epsilon: Above 0.
        delta: Strictly between 0 and 1.
        start: Largest distance of the starting points.
        drift: What a step can add to the distance.
        contraction: In [0, 1].
        steps: At least 1.

    Returns:
        sigma.
    """
    distance = worst_distance(start, drift, contraction, steps)
    return distance / math.sqrt(2 * zcdp_of(epsilon, delta) * noise_energy(contraction, steps))


def noisy_steps_epsilon(
    sigma: float, delta: float, *, start: float, drift: float, contraction: float, steps: int
) -> float:
    """The epsilon of a run with a given noise; arguments as `noisy_steps_sigma`, infinite without noise or steps."""
    if sigma == 0 or steps == 0:
        return math.inf
    distance = worst_distance(start, drift, contraction, steps)
    return epsilon_of(distance**2 / (2 * sigma**2 * noise_energy(contraction, steps)), delta)
