"""Hierarchical bootstrap: repeats of an attack on the outside, candidates of one repeat on the inside.

Candidates of one search are not independent of each other (one policy made them all), so treating them as one big
sample would give intervals that are far too narrow. Whole repeats are resampled first, then the candidates within
each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from retrace_pl.errors import InputError

__all__ = [
    "SINGLE_REPEAT",
    "Estimate",
    "as_repeats",
    "bootstrap_difference",
    "bootstrap_mean",
    "percentile_interval",
    "resampled_means",
]

Floats = NDArray[np.float64]

SINGLE_REPEAT = "one repeat only: the interval covers the candidates of this attack, not another seed or class"
_CHUNK = 4_000_000


@dataclass(frozen=True)
class Estimate:
    """A value with its interval and what the interval covers.

    Args:
        value: The plain estimate (mean over repeats of the mean over candidates).
        low: Lower end of the interval.
        high: Upper end of the interval.
        level: Coverage aimed at, e.g. 0.95.
        repeats: Outer units the interval was drawn over.
        note: Empty, or a sentence on what the interval leaves out.
    """

    value: float
    low: float
    high: float
    level: float
    repeats: int
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain types for ``metrics.json``."""
        return {
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "level": self.level,
            "repeats": self.repeats,
            "note": self.note,
        }


def as_repeats(repeats: Sequence[ArrayLike], name: str) -> list[Floats]:
    """Checks per-repeat outcomes and converts them to float64 vectors.

    Args:
        repeats: One array of per-candidate outcomes for each repeat.
        name: How to call them in an error.

    Raises:
        InputError: If there is no repeat, or a repeat is empty or holds a value that is not finite.
    """
    arrays = [np.asarray(repeat, dtype=np.float64).reshape(-1) for repeat in repeats]
    if not arrays:
        raise InputError(f"{name}: no repeats to take an interval over; run the attack at least once")
    for index, array in enumerate(arrays):
        if array.size == 0:
            raise InputError(f"{name}: repeat {index} has no candidates; raise top_k")
        if not np.isfinite(array).all():
            raise InputError(f"{name}: repeat {index} holds a value that is not finite; the evaluation failed there")
    return arrays


def percentile_interval(replicates: Floats, value: float, level: float) -> tuple[float, float]:
    """Percentile interval of bootstrap replicates, widened where needed so that it contains ``value``."""
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(replicates, [tail, 1.0 - tail])
    return float(min(low, value)), float(max(high, value))


def bootstrap_mean(
    repeats: Sequence[ArrayLike], *, resamples: int = 2000, level: float = 0.95, seed: int = 0, name: str = "outcomes"
) -> Estimate:
    """Mean over repeats of the mean over candidates, with a hierarchical percentile interval.

    Outcomes that are all 0 or 1 are resampled from the Jeffreys posterior Beta(successes + 1/2, failures + 1/2)
    instead of from the sample itself: the ordinary bootstrap claims certainty (an interval of width zero) for 5
    successes in 5.

    Args:
        repeats: Per-candidate outcomes, one array for each repeat (a seed, or a seed and class); lengths may differ.
        resamples: Bootstrap replicates.
        level: Coverage of the interval, in (0, 1).
        seed: Seed of the resampling.
        name: How to call the outcomes in an error.

    Returns:
        The estimate; with a single repeat only candidates are resampled, and the note says so.

    Raises:
        InputError: If a repeat is empty or not finite, or ``level`` or ``resamples`` is out of range.
    """
    _check(resamples, level)
    arrays = as_repeats(repeats, name)
    rng = np.random.default_rng(seed)
    outer = rng.integers(len(arrays), size=(resamples, len(arrays)))
    value = float(np.mean([array.mean() for array in arrays]))
    low, high = percentile_interval(resampled_means(arrays, outer, rng), value, level)
    return Estimate(value, low, high, level, len(arrays), SINGLE_REPEAT if len(arrays) == 1 else "")


def bootstrap_difference(
    audited: Sequence[ArrayLike],
    control: Sequence[ArrayLike],
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    name: str = "outcomes",
) -> Estimate:
    """Mean outcome of the audited attack minus that of a control, with a hierarchical percentile interval.

    Repeats are resampled in pairs when both sides have equally many (repeat i of both shares its seed and class),
    else independently; candidates are always resampled independently.

    Args:
        audited: Per-candidate outcomes of the audited attack, one array for each repeat.
        control: The same of the control.
        resamples: Bootstrap replicates.
        level: Coverage of the interval, in (0, 1).
        seed: Seed of the resampling.
        name: How to call the outcomes in an error.

    Raises:
        InputError: As for :func:`bootstrap_mean`.
    """
    _check(resamples, level)
    ours, theirs = as_repeats(audited, f"audited {name}"), as_repeats(control, f"control {name}")
    rng = np.random.default_rng(seed)
    outer = rng.integers(len(ours), size=(resamples, len(ours)))
    other = outer if len(ours) == len(theirs) else rng.integers(len(theirs), size=(resamples, len(theirs)))
    replicates = resampled_means(ours, outer, rng) - resampled_means(theirs, other, rng)
    value = float(np.mean([array.mean() for array in ours]) - np.mean([array.mean() for array in theirs]))
    low, high = percentile_interval(replicates, value, level)
    repeats = min(len(ours), len(theirs))
    return Estimate(value, low, high, level, repeats, SINGLE_REPEAT if repeats == 1 else "")


def _check(resamples: int, level: float) -> None:
    if resamples < 1:
        raise InputError(f"bootstrap resamples must be at least 1, not {resamples}")
    if not 0.0 < level < 1.0:
        raise InputError(f"bootstrap level must lie between 0 and 1, not {level}")


def resampled_means(arrays: list[Floats], outer: NDArray[np.int64], rng: np.random.Generator) -> Floats:
    """For every row of ``outer`` [resamples, repeats]: mean over its repeats of freshly resampled candidate means."""
    means = np.empty(outer.shape, dtype=np.float64)
    for index, array in enumerate(arrays):
        drawn = outer == index
        means[drawn] = _inner_means(array, int(drawn.sum()), rng)
    replicates: Floats = means.mean(axis=1)
    return replicates


def _inner_means(array: Floats, count: int, rng: np.random.Generator) -> Floats:
    if bool(np.isin(array, (0.0, 1.0)).all()):
        successes = float(array.sum())
        return rng.beta(successes + 0.5, array.size - successes + 0.5, size=count)
    means = np.empty(count, dtype=np.float64)
    step = max(1, _CHUNK // array.size)
    for start in range(0, count, step):
        size = min(step, count - start)
        means[start : start + size] = array[rng.integers(array.size, size=(size, array.size))].mean(axis=1)
    return means
