"""What a score means: how it is spread over kinds of inputs, and how often inputs with that score were deleted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from retrace_pl.errors import InputError
from retrace_pl.traces.scorer import TraceDeltas, TraceScorer

__all__ = ["QUANTILES", "Reliability", "joint_scores", "reliability", "score_groups", "scores_of"]

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Quantiles of the score that are reported for every group of inputs."""

_DRAWS = 4000


@dataclass(frozen=True)
class Reliability:
    """The reliability curve of a score.

    For each bin of the score: which share of the inputs in it resembles the deleted data, if there were equally many
    that do and that do not. A useful score has a rising curve; a curve on the diagonal would make it a probability,
    which it does not claim to be.

    Args:
        edges: [b + 1] edges of the bins.
        share: [b] the share, or None for a bin without inputs.
        low: [b] lower end of its interval, or None.
        high: [b] upper end.
        positives: [b] inputs that resemble the deleted data.
        negatives: [b] other inputs.
        error: Expected calibration error: mean distance between a bin's share and its mean score, in [0, 1].
        level: Coverage of the intervals.
    """

    edges: tuple[float, ...]
    share: tuple[float | None, ...]
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]
    positives: tuple[int, ...]
    negatives: tuple[int, ...]
    error: float
    level: float

    def as_dict(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}


def joint_scores(reference: TraceScorer, parts: Sequence[tuple[TraceScorer, Any]]) -> list[Tensor]:
    """Scores of several sets of inputs, each by a pair of its own, on one scale.

    Every set's raw differences come from its own scorer's pair. All of them are then normalised and weighted together
    by ``reference``, since a score under another pair's normaliser has another meaning. With a single signal and a
    normaliser that keeps order, which reference is taken does not change how scores of two pairs compare.

    Args:
        reference: Fitted scorer that sets the scale.
        parts: (scorer, inputs) for each set; the scorers have the signals of the reference.

    Returns:
        One vector of scores [n_i] in [0, 1] for each set, on the CPU.

    Raises:
        InputError: There is no set, or a set is empty.
    """
    if not parts:
        raise InputError("scores: there is no set of inputs to score")
    return scores_of(reference, [scorer.deltas(inputs) for scorer, inputs in parts])


def scores_of(reference: TraceScorer, deltas: Sequence[TraceDeltas]) -> list[Tensor]:
    """The same from raw differences that somebody has taken already.

    Args:
        reference: Fitted scorer that sets the scale.
        deltas: Raw differences of each set, at least one; at least one input each.
    """
    sizes = [len(next(iter(part.named().values()))) for part in deltas]
    joined = TraceDeltas(*(_join(column, reference.device) for column in zip(*deltas, strict=True)))
    return list(torch.split(reference.combine(joined).detach().cpu(), sizes))


def _join(column: Sequence[Tensor | None], device: torch.device) -> Tensor | None:
    found = [part.to(device) for part in column if part is not None]
    return torch.cat(found) if len(found) == len(column) else None


def score_groups(groups: Mapping[str, ArrayLike]) -> dict[str, dict[str, Any]]:
    """Count, mean and quantiles of the score for each group of inputs, as plain types.

    Args:
        groups: Name -> scores [n] in [0, 1]; an empty group is left out.
    """
    found = {}
    for name, values in groups.items():
        scores = np.asarray(values, dtype=np.float64).reshape(-1)
        if scores.size:
            quantiles = {f"q{round(100 * q):02d}": float(v) for q, v in zip(QUANTILES, _quantiles(scores), strict=True)}
            found[name] = {"count": int(scores.size), "mean": float(scores.mean()), **quantiles}
    return found


def _quantiles(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.quantile(scores, QUANTILES)


def reliability(
    positives: ArrayLike, negatives: ArrayLike, *, bins: int = 10, level: float = 0.95, seed: int = 0
) -> Reliability:
    """The reliability curve of a score over bins of equal width.

    Both sides count as much as a whole, so the share in a bin is a / (a + b) with a and b the shares of the positives
    and of the negatives that fall into it. Its interval draws both from their Jeffreys posteriors.

    Args:
        positives: [n] scores in [0, 1] of inputs that resemble the deleted data.
        negatives: [m] scores of others.
        bins: Number of bins.
        level: Coverage of the intervals.
        seed: Seed of the draws.

    Raises:
        InputError: A side is empty, or a score is outside [0, 1].
    """
    sides = [np.asarray(side, dtype=np.float64).reshape(-1) for side in (positives, negatives)]
    if any(side.size == 0 or not ((side >= 0) & (side <= 1)).all() for side in sides):
        raise InputError("reliability: both sides need at least one score, all of them in [0, 1]")
    edges = np.linspace(0.0, 1.0, bins + 1)
    places = [np.minimum((side * bins).astype(np.int64), bins - 1) for side in sides]
    counts = [np.bincount(place, minlength=bins) for place in places]
    sums = [np.bincount(place, weights=side, minlength=bins) for place, side in zip(places, sides, strict=True)]
    rates = [count / side.size for count, side in zip(counts, sides, strict=True)]
    rng = np.random.default_rng(seed)
    drawn = [
        rng.beta(count[:, None] + 0.5, side.size - count[:, None] + 0.5, size=(bins, _DRAWS))
        for count, side in zip(counts, sides, strict=True)
    ]
    ends = np.quantile(drawn[0] / (drawn[0] + drawn[1]), [(1 - level) / 2, (1 + level) / 2], axis=1)
    mass = rates[0] + rates[1]
    held = mass > 0
    value = np.divide(rates[0], mass, out=np.zeros(bins), where=held)
    mean = sum(total / side.size for total, side in zip(sums, sides, strict=True))
    distances = np.abs(value - np.divide(mean, mass, out=np.zeros(bins), where=held))
    return Reliability(
        tuple(edges.tolist()),
        _where(held, value),
        _where(held, np.minimum(ends[0], value)),
        _where(held, np.maximum(ends[1], value)),
        tuple(counts[0].tolist()),
        tuple(counts[1].tolist()),
        float((mass / 2 * distances).sum()),
        level,
    )


def _where(held: NDArray[np.bool_], values: NDArray[np.float64]) -> tuple[float | None, ...]:
    """The values of bins that hold an input, None of the others."""
    return tuple(float(value) if inside else None for inside, value in zip(held, values, strict=True))
