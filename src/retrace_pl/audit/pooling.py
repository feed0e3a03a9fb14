"""Several audits taken together: leakage over seeds and deleted classes, with an interval that covers both."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from retrace_pl.audit.bootstrap import Estimate, as_repeats, percentile_interval, resampled_means
from retrace_pl.audit.leakage import Leakage
from retrace_pl.errors import InputError

__all__ = ["Cell", "combine_leakage"]

Floats = NDArray[np.float64]

Cell = tuple[Sequence[ArrayLike], Sequence[ArrayLike]]
"""Per-candidate outcomes of one audit: (of the audited pair, of the control), one array for each repeat."""


def combine_leakage(
    cells: Mapping[tuple[Hashable, Hashable], Cell],
    *,
    metric: str = "sr_oracle",
    higher_is_leak: bool = True,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Leakage:
    """Mean leakage over audits of several seeds and deleted classes.

    Seeds and classes are crossed, not nested: a class that leaks more does so for every seed. So both are resampled,
    independently of each other, and an audit counts as often as its seed times as often as its class was drawn (the
    pigeonhole bootstrap of Owen 2007, which errs on the wide side). Within an audit repeats and then candidates are
    resampled, in pairs of repeats as in :func:`retrace_pl.audit.bootstrap_difference`.

    Args:
        cells: (seed, class) -> outcomes of that audit. Not every combination has to be there.
        metric: Name of the outcome.
        higher_is_leak: False for outcomes where less is worse (distances).
        resamples: Bootstrap replicates.
        level: Coverage of the interval.
        seed: Seed of the resampling.

    Returns:
        The leakage. A factor with a single value is not resampled, and the note says so.

    Raises:
        InputError: If there is no audit, a repeat is empty or holds a value that is not finite, or ``level`` or
            ``resamples`` is out of range.
    """
    if not cells:
        raise InputError("pooling: there is no audit to pool; give at least one")
    if resamples < 1 or not 0.0 < level < 1.0:
        raise InputError(f"pooling: resamples {resamples} must be at least 1 and level {level} between 0 and 1")
    rng = np.random.default_rng(seed)
    sign = 1.0 if higher_is_leak else -1.0
    values, replicates = [], []
    for (first, second), (audited, control) in cells.items():
        name = f"{metric} of seed {first}, class {second}"
        ours, theirs = as_repeats(audited, f"audited {name}"), as_repeats(control, f"control {name}")
        values.append(sign * (np.mean([r.mean() for r in ours]) - np.mean([r.mean() for r in theirs])))
        replicates.append(sign * _differences(ours, theirs, resamples, rng))
    seeds, classes = _codes([key[0] for key in cells]), _codes([key[1] for key in cells])
    weights = _weights(seeds, classes, resamples, rng)
    pooled = (weights * np.stack(replicates)).sum(axis=0) / weights.sum(axis=0)
    value = float(np.mean(values))
    low, high = percentile_interval(pooled, value, level)
    single = [name for name, codes in (("seed", seeds), ("class", classes)) if codes.max() == 0]
    note = f"one {' and one '.join(single)} only: the interval does not cover another" if single else ""
    return Leakage(Estimate(value, low, high, level, len(cells), note), metric)


def _differences(ours: list[Floats], theirs: list[Floats], resamples: int, rng: np.random.Generator) -> Floats:
    outer = rng.integers(len(ours), size=(resamples, len(ours)))
    other = outer if len(ours) == len(theirs) else rng.integers(len(theirs), size=(resamples, len(theirs)))
    return resampled_means(ours, outer, rng) - resampled_means(theirs, other, rng)


def _codes(names: Sequence[Hashable]) -> NDArray[np.int64]:
    known = {name: code for code, name in enumerate(dict.fromkeys(names))}
    return np.array([known[name] for name in names], dtype=np.int64)


def _weights(
    seeds: NDArray[np.int64], classes: NDArray[np.int64], resamples: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """[audits, resamples] how often each audit counts; a draw that meets no audit is drawn again."""
    weights = np.zeros((len(seeds), resamples))
    missing = np.arange(resamples)
    while missing.size:
        drawn = [
            rng.multinomial(count, np.full(count, 1.0 / count), size=missing.size).T
            for count in (int(codes.max()) + 1 for codes in (seeds, classes))
        ]
        weights[:, missing] = drawn[0][seeds] * drawn[1][classes]
        missing = np.flatnonzero(weights.sum(axis=0) == 0)
    return weights
