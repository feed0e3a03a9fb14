"""Comparison with control pairs that differ from each other: is the audited pair just one more of them?

Two trainings with different seeds give two models, and a search on them finds something different each time. A control
with several pairs shows how different. The audited pair stands out only where it lies beyond what *one further pair* of
the control could show, which is a prediction interval and wider than an interval for the control's mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import t as student

from retrace_pl.audit.bootstrap import Estimate, as_repeats, bootstrap_mean
from retrace_pl.audit.leakage import Leakage
from retrace_pl.errors import InputError

__all__ = ["SINGLE_PAIR", "excess_over_pairs", "over_forgetting"]

SINGLE_PAIR = "one control pair only: how much such pairs differ from one another is not covered"


def prediction_margin(means: Sequence[float], level: float) -> float:
    """Half-width of the interval for one further mean: t(r - 1) * s * sqrt(1 + 1 / r), s the standard deviation.

    Args:
        means: One mean for each of r >= 2 control pairs.
        level: Coverage of the interval.
    """
    r = len(means)
    quantile = float(student.ppf((1.0 + level) / 2.0, r - 1))
    return quantile * float(np.std(means, ddof=1)) * math.sqrt(1.0 + 1.0 / r)


def excess_over_pairs(
    audited: Sequence[ArrayLike],
    control: Sequence[ArrayLike],
    *,
    metric: str = "sr_oracle",
    higher_is_leak: bool = True,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Leakage:
    """What the attack found beyond what it finds on pairs of the control, each of which has models of its own.

    The interval joins two parts in quadrature: the audited side's hierarchical bootstrap over repeats and candidates,
    and the control's prediction margin for one further pair, or its own bootstrap interval where that is wider.

    Args:
        audited: Per-candidate outcomes of the attack, one array for each repeat.
        control: The same of the control, one array for each pair of models.
        metric: Name of the outcome.
        higher_is_leak: False for outcomes where less is worse (distances).
        resamples: Bootstrap replicates.
        level: Coverage of the interval.
        seed: Seed of the resampling.

    Returns:
        The difference, positive where the audited pair leaks more. Its ``repeats`` are the control's pairs; with one
        pair the note says what is missing.

    Raises:
        InputError: If a repeat is empty or holds a value that is not finite.
    """
    sign = 1.0 if higher_is_leak else -1.0
    ours, theirs = as_repeats(audited, f"audited {metric}"), as_repeats(control, f"control {metric}")
    mine = bootstrap_mean(ours, resamples=resamples, level=level, seed=seed)
    other = bootstrap_mean(theirs, resamples=resamples, level=level, seed=seed + 1)
    margin = prediction_margin([float(pair.mean()) for pair in theirs], level) if len(theirs) > 1 else 0.0
    down = math.hypot(mine.value - mine.low, max(margin, other.high - other.value))
    up = math.hypot(mine.high - mine.value, max(margin, other.value - other.low))
    value = sign * (mine.value - other.value)
    down, up = (down, up) if higher_is_leak else (up, down)
    note = SINGLE_PAIR if len(theirs) == 1 else ""
    return Leakage(Estimate(value, value - down, value + up, level, len(theirs), note), metric)


def over_forgetting(
    unlearned: ArrayLike,
    retrained: Sequence[ArrayLike],
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Leakage:
    """How much worse the unlearned model is on the deleted records than models that never saw them.

    A model that has merely forgotten is as good on them as one retrained without them. One that is worse still carries
    a mark: whoever tries a deleted record sees that it was treated differently.

    Args:
        unlearned: [n] loss of the unlearned model on every deleted record, in nats.
        retrained: The same [n] for each retrained model.
        level: Coverage of the interval.
        resamples: Bootstrap replicates.
        seed: Seed of the resampling.

    Returns:
        The mean difference in nats, positive for over-forgetting, with the bootstrap over records and the retrained
        models' prediction margin in quadrature. Its ``repeats`` are the retrained models.

    Raises:
        InputError: If the sides do not have the same records, or hold a value that is not finite.
    """
    [ours], theirs = as_repeats([unlearned], "over-forgetting"), as_repeats(retrained, "over-forgetting")
    if any(len(losses) != len(ours) for losses in theirs):
        raise InputError("over-forgetting: every model needs the loss of the same deleted records")
    differences = ours - np.mean(theirs, axis=0)
    estimate = bootstrap_mean([differences], resamples=resamples, level=level, seed=seed, name="over-forgetting")
    margin = prediction_margin([float(losses.mean()) for losses in theirs], level) if len(theirs) > 1 else 0.0
    low = estimate.value - math.hypot(estimate.value - estimate.low, margin)
    high = estimate.value + math.hypot(estimate.high - estimate.value, margin)
    note = SINGLE_PAIR if len(theirs) == 1 else ""
    return Leakage(Estimate(estimate.value, low, high, level, len(theirs), note), "loss_nats")
