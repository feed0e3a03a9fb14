"""Which classes were deleted? The traces of the public inputs, class by class, often answer without any search."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from retrace_pl.errors import InputError
from retrace_pl.traces.pair import ModelPair, PairValues
from retrace_pl.traces.signals import RESOLUTION, delta_prediction

__all__ = ["CLEAR_GAP", "GAP_OFFSET", "ClassEvidence", "class_evidence", "infer_classes", "pair_probabilities"]

GAP_OFFSET = 0.05
"""Added to both mean traces before their ratio is taken: below it, one class is as quiet as another."""

CLEAR_GAP = 2.0
"""From this ratio on, a gap between two neighbours in the ranking separates deleted from retained classes."""


@dataclass(frozen=True)
class ClassEvidence:
    """What the public inputs say about every class.

    Attributes:
        mean_trace: Mean of ||p+(x) - p-(x)||_2 over the public inputs that f+ assigns to the class, float64 ``[K]`` in
            [0, sqrt(2)], on the CPU; NaN for a class that f+ never predicts there.
        counts: How many public inputs f+ assigns to each class, int64 ``[K]``.
        ranking: The classes that f+ does predict, highest mean trace first.
        deleted: The classes taken for deleted, most likely first; empty only where the two models agree everywhere.
        clear: Whether a gap in the ranking separates ``deleted`` from the rest; otherwise it holds the first of the
            ranking alone, the best guess where nothing stands out.
        gap: The ratio across that gap, see :func:`class_evidence`; NaN where fewer than two classes are predicted.
        margin: Lowest mean trace of the deleted classes minus the highest of the others, in [-sqrt(2), sqrt(2)]; NaN
            where there is nothing to compare.
    """

    mean_trace: Tensor
    counts: Tensor
    ranking: tuple[int, ...]
    deleted: tuple[int, ...]
    clear: bool
    gap: float
    margin: float

    @property
    def unknown(self) -> tuple[int, ...]:
        """Classes that f+ predicts for no public input: nothing can be said about them."""
        return tuple(self.counts.eq(0).nonzero().flatten().tolist())


def infer_classes(pair: ModelPair, public: Any, batch_size: int = 512) -> ClassEvidence:
    """Infer which classes were deleted from public inputs alone; black-box, one query per input.

    The class that f+ sees in an input need not be in it: where the public set lacks the deleted class, f+ still takes
    a few similar inputs for it, f- no longer does, and their traces tower over those of every other class.

    Args:
        pair: The two models.
        public: At least one public input, of the kind the pair's behaviour understands; no labels are needed.
        batch_size: Inputs per forward pass.

    Raises:
        InputError: No inputs, or models whose outputs are not one vector of class probabilities per input.
        RunError: A model's output is not finite.
    """
    return class_evidence(*pair_probabilities(pair, public, batch_size))


def pair_probabilities(pair: ModelPair, inputs: Any, batch_size: int = 512) -> PairValues:
    """Output probabilities of both models, each of shape ``[n, ...]``, on the CPU, computed ``batch_size`` at a time.

    Raises:
        InputError: No inputs.
        RunError: A model's output is not finite.
    """
    if batch_size < 1:
        raise InputError(f"batch_size: {batch_size} must be at least 1")
    behaviour = pair.behaviour
    parts = [
        pair.outputs(behaviour.select(inputs, start, start + batch_size))
        for start in range(0, max(1, behaviour.size(inputs)), batch_size)
    ]
    original, unlearned = (torch.cat(column).cpu() for column in zip(*parts, strict=True))
    return PairValues(original, unlearned)


def class_evidence(original: Tensor, unlearned: Tensor) -> ClassEvidence:
    """Rank the classes by the mean trace of the inputs that f+ assigns to them, and look for a gap.

    Rule: with the mean traces in falling order t_1 >= t_2 >= ... and c = ``GAP_OFFSET``, the gap after place i has the
    ratio (t_i + c) / (t_{i+1} + c). The classes before the largest ratio are the deleted ones if it is at least
    ``CLEAR_GAP``, otherwise the first class alone is named and ``clear`` is false. Only gaps that leave at least half
    of the ranked classes behind count: an unlearning that changes the majority of the classes shows no gap to trust.

    Args:
        original: Probabilities of f+, ``[n, K]`` with n >= 1 and K >= 2.
        unlearned: Probabilities of f- on the same inputs, ``[n, K]``.

    Raises:
        InputError: Other shapes: these are not classifiers.
    """
    if original.ndim != 2 or original.shape != unlearned.shape or len(original) == 0 or original.shape[1] < 2:
        raise InputError(
            f"models: class inference needs class probabilities of shape [n, classes] from both, got"
            f" {list(original.shape)} and {list(unlearned.shape)}"
        )
    traces = delta_prediction(original, unlearned).detach().double().cpu()
    assigned = original.argmax(dim=1).cpu()
    counts = torch.bincount(assigned, minlength=original.shape[1])
    sums = torch.zeros(original.shape[1], dtype=torch.float64).index_add_(0, assigned, traces)
    means = torch.where(counts > 0, sums / counts, math.nan)
    predicted = counts.nonzero().flatten()
    ranking = tuple(predicted[means[predicted].argsort(descending=True, stable=True)].tolist())
    deleted, clear, gap = _deleted(ranking, means)
    rest = [float(means[label]) for label in ranking if label not in deleted]
    margin = min(float(means[label]) for label in deleted) - max(rest) if deleted and rest else math.nan
    return ClassEvidence(means, counts, ranking, deleted, clear, gap, margin)


def _deleted(ranking: tuple[int, ...], means: Tensor) -> tuple[tuple[int, ...], bool, float]:
    ordered = [float(means[label]) for label in ranking]
    gaps = [(high + GAP_OFFSET) / (low + GAP_OFFSET) for high, low in pairwise(ordered)]
    allowed = gaps[: max(1, len(ranking) // 2)]
    gap = max(allowed, default=math.nan)
    if ordered[0] <= RESOLUTION:
        return (), False, gap
    if gap >= CLEAR_GAP:
        return ranking[: allowed.index(gap) + 1], True, gap
    return ranking[:1], False, gap
