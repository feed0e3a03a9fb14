"""Excess, avoidable and record leakage: the attack's success with what explains it away subtracted.

* excess = audited - prior: what asking the two models added to what the generator produces by itself.
* avoidable = audited - matched retrain: what better unlearning would have prevented.
* record = closeness to the deleted records beyond closeness to unseen records of the same class: memory rather than
  class knowledge.

In all three a positive value is leakage. Nothing here knows about pixels or classes: outcomes and distances come in
as arrays.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from retrace_pl.audit.bootstrap import SINGLE_REPEAT, Estimate, bootstrap_difference, percentile_interval
from retrace_pl.errors import InputError

__all__ = ["Leakage", "avoidable_leakage", "excess_leakage", "expected_nearest", "record_leakage"]

Floats = NDArray[np.float64]
_TINY = 1e-12
_NEAREST_KEPT = 48


@dataclass(frozen=True)
class Leakage:
    """A leakage figure with its interval.

    Args:
        estimate: Value, interval and what the interval covers.
        metric: What was compared, e.g. ``"sr_oracle"``; with ``record`` for images ``"relative_nearest_mse"``.
    """

    estimate: Estimate
    metric: str

    def as_dict(self) -> dict[str, Any]:
        """Plain types for ``metrics.json``: value, low, high, metric, level, repeats and note."""
        return {**self.estimate.as_dict(), "metric": self.metric}


def excess_leakage(
    audited: Sequence[ArrayLike],
    prior: Sequence[ArrayLike],
    *,
    metric: str = "sr_oracle",
    higher_is_leak: bool = True,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Leakage:
    """What the attack found beyond the generator's own samples at the same budget.

    Args:
        audited: Per-candidate outcomes of the attack, one array for each repeat (e.g. success under the evaluator as
            booleans).
        prior: The same for the prior-only control.
        metric: Name of the outcome.
        higher_is_leak: False for outcomes where less is worse (distances): the difference is then taken the other way
            round.
        resamples: Bootstrap replicates.
        level: Coverage of the interval.
        seed: Seed of the resampling.

    Raises:
        InputError: If a repeat is empty or holds a value that is not finite.
    """
    first, second = (audited, prior) if higher_is_leak else (prior, audited)
    estimate = bootstrap_difference(first, second, resamples=resamples, level=level, seed=seed, name=metric)
    return Leakage(estimate, metric)


def avoidable_leakage(
    audited: Sequence[ArrayLike],
    retrain: Sequence[ArrayLike],
    *,
    metric: str = "sr_oracle",
    higher_is_leak: bool = True,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Leakage:
    """What the attack found beyond what it finds when the model was retrained without the deleted data.

    Arguments and errors are those of :func:`excess_leakage`, with the matched retrain in the place of the prior.
    """
    return excess_leakage(
        audited, retrain, metric=metric, higher_is_leak=higher_is_leak, resamples=resamples, level=level, seed=seed
    )


def expected_nearest(distances: ArrayLike, size: int) -> Floats:
    """Mean distance to the nearest reference over all subsets of ``size`` references.

    A larger reference set is nearer by count alone, so two sets are compared at the size of the smaller one.
    Averaging over every subset has a closed form: with distances sorted upwards, reference i (from 0) is the nearest
    of a subset with probability C(n-1-i, size-1) / C(n, size). This is the limit of averaging over ever more random
    subsamples, without their noise.

    Args:
        distances: [k, n] distances of k candidates to n references.
        size: Subset size, 1 <= size <= n.

    Returns:
        [k] expected nearest distances.

    Raises:
        InputError: If ``size`` is out of range.
    """
    matrix = np.sort(np.asarray(distances, dtype=np.float64), axis=1)
    n = matrix.shape[1]
    if not 1 <= size <= n:
        raise InputError(f"record leakage: cannot take subsets of {size} from {n} references")
    weights = np.zeros(n, dtype=np.float64)
    weights[0] = size / n
    for i in range(n - size):
        weights[i + 1] = weights[i] * (n - size - i) / (n - 1 - i)
    nearest: Floats = matrix @ weights
    return nearest


def record_leakage(
    to_deleted: Sequence[ArrayLike],
    to_heldout: Sequence[ArrayLike],
    *,
    metric: str = "relative_nearest_mse",
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Leakage:
    """How much closer the candidates are to the deleted records than to equally many unseen records of the same class.

    Scale: (h - d) / (h + d), with d and h the mean nearest distance to the deleted and to the held-out records, both
    at the size of the smaller set. 0: deleted and unseen records are equally near, so the candidates show the class
    and no record of it. 1: the candidates are copies of deleted records. -1: copies of unseen ones. The two sets
    change sign when swapped, so the value has no drift of its own.

    The interval has two parts, added in quadrature: repeats and candidates are resampled; and the records of both
    sets change places at random (a permutation null), because which records happened to be deleted is chance as well,
    and with few of them the larger part of it. Repeats on the same records share the permutations.

    Args:
        to_deleted: [k, n_deleted] distances (e.g. MSE) for each repeat.
        to_heldout: [k, n_heldout] distances of the same candidates for each repeat.
        metric: Name of what is compared.
        resamples: Bootstrap replicates, and permutations.
        level: Coverage of the interval.
        seed: Seed of the resampling.

    Raises:
        InputError: If the two sides do not match, are empty or hold a value that is not a finite distance.
    """
    pairs = _distance_pairs(to_deleted, to_heldout)
    rng = np.random.default_rng(seed)
    outer = rng.integers(len(pairs), size=(resamples, len(pairs)))
    values, replicates, null = [], np.zeros(outer.shape), np.zeros(outer.shape)
    for index, (deleted, heldout) in enumerate(pairs):
        size = min(deleted.shape[1], heldout.shape[1])
        near, far = expected_nearest(deleted, size), expected_nearest(heldout, size)
        values.append(_relative(near.mean(), far.mean()))
        drawn = outer == index
        rows = rng.integers(len(near), size=(int(drawn.sum()), len(near)))
        replicates[drawn] = _relative(near[rows].mean(axis=1), far[rows].mean(axis=1))
        null[:, index] = _permuted(np.concatenate([deleted, heldout], axis=1), size, resamples, seed)
    value = float(np.mean(values))
    low, high = percentile_interval(replicates.mean(axis=1), value, level)
    chance = float(np.quantile(np.abs(null.mean(axis=1)), level))
    low, high = max(-1.0, value - math.hypot(value - low, chance)), min(1.0, value + math.hypot(high - value, chance))
    note = SINGLE_REPEAT if len(pairs) == 1 else ""
    return Leakage(Estimate(value, low, high, level, len(pairs), note), metric)


def _relative(deleted: Any, heldout: Any) -> Any:
    return (heldout - deleted) / np.maximum(heldout + deleted, _TINY)


def _distance_pairs(to_deleted: Sequence[ArrayLike], to_heldout: Sequence[ArrayLike]) -> list[tuple[Floats, Floats]]:
    if not to_deleted or len(to_deleted) != len(to_heldout):
        raise InputError(
            f"record leakage: needs distances to both sets for every repeat, "
            f"got {len(to_deleted)} and {len(to_heldout)}"
        )
    pairs = []
    for index, (first, second) in enumerate(zip(to_deleted, to_heldout, strict=True)):
        deleted, heldout = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
        if (
            deleted.ndim != 2
            or heldout.ndim != 2
            or len(deleted) != len(heldout)
            or not deleted.size
            or not heldout.size
        ):
            raise InputError(
                f"record leakage: repeat {index} needs two matrices [candidates, records] of the same candidates, "
                f"got shapes {deleted.shape} and {heldout.shape}"
            )
        for matrix in (deleted, heldout):
            if not np.isfinite(matrix).all() or (matrix < 0).any():
                raise InputError(f"record leakage: repeat {index} holds a distance that is negative or not finite")
        pairs.append((deleted, heldout))
    return pairs


def _permuted(distances: Floats, size: int, count: int, seed: int) -> Floats:
    """The statistic for ``count`` random splits of all records into two sets of ``size``: its spread without a leak.

    Only each candidate's nearest few records are looked at; that none of them is drawn is practically impossible.
    """
    rng = np.random.default_rng(seed)
    records = distances.shape[1]
    kept = min(records, _NEAREST_KEPT * -(-records // size))
    order = np.argsort(distances, axis=1)[:, :kept]
    near = np.take_along_axis(distances, order, axis=1)
    result = np.empty(count, dtype=np.float64)
    for i in range(count):
        drawn = rng.permutation(records)[: 2 * size]
        means = []
        for subset in (drawn[:size], drawn[size:]):
            present = np.zeros(records, dtype=bool)
            present[subset] = True
            hit = present[order]
            first = np.where(hit.any(axis=1), hit.argmax(axis=1), kept - 1)
            means.append(near[np.arange(len(near)), first].mean())
        result[i] = _relative(means[0], means[1])
    return result
