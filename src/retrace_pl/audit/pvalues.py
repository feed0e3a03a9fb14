"""How surprising a candidate's trace would be if nothing had been deleted: p-values against null pairs.

A null pair is two models trained on the same records with different seeds. The same generator, searcher, budget and
selection turn it into candidates as well, so under the hypothesis "the audited pair is one more null pair" a selected
candidate's score is a draw from what the null pairs' *selected* candidates score. Selections are compared with
selections: against all queried candidates every selected one would look exceptional, because it was selected.

The candidates of one search are not independent, and with a handful of null pairs nothing about the pair as a whole can
be more surprising than 1 / (pairs + 1): :func:`pair_p_value` says how surprising that is, and stands beside the counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import false_discovery_control

from retrace_pl.errors import InputError

__all__ = ["FDR", "Significance", "adjusted_p_values", "candidate_p_values", "pair_p_value", "significance"]

Floats = NDArray[np.float64]

FDR = 0.05
"""False discovery rate at which candidates are counted."""


@dataclass(frozen=True)
class Significance:
    """P-values of the candidates of one attack.

    Args:
        p: [k] p-values.
        q: [k] the same after Benjamini and Hochberg.
        null_candidates: Candidates of the null pairs that they were compared with.
        null_pairs: Pairs these came from.
        pair_p: p-value of the mean score against the null pairs' means; never below 1 / (null_pairs + 1).
    """

    p: Floats
    q: Floats
    null_candidates: int
    null_pairs: int
    pair_p: float

    def significant(self, level: float = FDR) -> NDArray[np.bool_]:
        """[k] which candidates have q <= ``level``."""
        found: NDArray[np.bool_] = self.q <= level
        return found

    def as_dict(self, level: float = FDR) -> dict[str, Any]:
        """Plain types for ``metrics.json``."""
        return {
            "candidates": len(self.p),
            "significant": int(self.significant(level).sum()),
            "level": level,
            "smallest_p": float(self.p.min()),
            "median_p": float(np.median(self.p)),
            "smallest_q": float(self.q.min()),
            "null_candidates": self.null_candidates,
            "null_pairs": self.null_pairs,
            "pair_p": self.pair_p,
        }


def candidate_p_values(scores: ArrayLike, null: ArrayLike) -> Floats:
    """P-values p = (1 + #{null >= score}) / (1 + n): the add-one rule, under which no p-value is 0.

    Source: North, Curtis and Sham 2002; Phipson and Smyth 2010.

    Args:
        scores: [k] scores of the candidates; higher is more surprising.
        null: [n] scores of the null pairs' candidates, on the same scale.

    Returns:
        [k] in [1 / (n + 1), 1].

    Raises:
        InputError: If either side is empty or not finite.
    """
    ours, theirs = _finite(scores, "the candidates"), np.sort(_finite(null, "the null pairs"))
    above: Floats = (len(theirs) - np.searchsorted(theirs, ours, side="left")).astype(np.float64)
    return (1.0 + above) / (1.0 + len(theirs))


def adjusted_p_values(p: ArrayLike) -> Floats:
    """Q-values of Benjamini and Hochberg 1995: the smallest false discovery rate at which each one still counts.

    Args:
        p: [k] p-values in (0, 1].

    Returns:
        [k] in (0, 1], never below ``p``.
    """
    values: Floats = np.asarray(false_discovery_control(np.asarray(p, dtype=np.float64)), dtype=np.float64)
    return values


def pair_p_value(mean: float, null_means: Sequence[float]) -> float:
    """How often a null pair's mean score reaches the audited pair's, by the add-one rule.

    Args:
        mean: Mean score of the audited pair's candidates.
        null_means: Mean score of each null pair's candidates, on the same scale.

    Returns:
        In [1 / (pairs + 1), 1]. With r null pairs no smaller value is possible, however large the gap.
    """
    return float(candidate_p_values([mean], list(null_means))[0])


def significance(scores: ArrayLike, null: Sequence[ArrayLike]) -> Significance:
    """P- and q-values of one attack's candidates against those of all null pairs.

    Args:
        scores: [k] scores of the candidates.
        null: For each null pair the scores of its candidates, normalised as ``scores`` were.

    Raises:
        InputError: If there is no null pair, or a set is empty or not finite.
    """
    if not null:
        raise InputError("p-values: there is no null pair to compare with; add `null` to audit.controls")
    ours, theirs = _finite(scores, "the candidates"), [_finite(pair, "a null pair") for pair in null]
    pooled = np.concatenate(theirs)
    p = candidate_p_values(ours, pooled)
    pair_p = pair_p_value(float(ours.mean()), [float(pair.mean()) for pair in theirs])
    return Significance(p, adjusted_p_values(p), len(pooled), len(theirs), pair_p)


def _finite(values: ArrayLike, what: str) -> Floats:
    array = np.asarray(values, dtype=np.float64).reshape(-1)
    if not array.size or not np.isfinite(array).all():
        raise InputError(f"p-values: the scores of {what} are empty or not finite; the search failed there")
    return array
