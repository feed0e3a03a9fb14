"""Which classes were deleted? What both models say about the public inputs often answers without any search."""

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

__all__ = [
    "CLEAR_LOSS",
    "CLEAR_MARGIN",
    "KNOWN",
    "ClassEvidence",
    "class_evidence",
    "infer_classes",
    "pair_probabilities",
]

KNOWN = 0.1
"""A class that f+ gives at least this probability for some public input is known; of others nothing can be said."""

CLEAR_LOSS = 0.5
"""Share of its probability that a class must have lost to be taken for deleted beyond a mere guess."""

CLEAR_MARGIN = 0.3
"""How much more a deleted class must have lost than every retained one to be taken for deleted beyond a guess."""


@dataclass(frozen=True)
class ClassEvidence:
    """What the public inputs say about every class; tensors are float64 ``[K]`` on the CPU unless said otherwise.

    Attributes:
        lost: Share of a class's probability that unlearning took away, see :func:`class_evidence`: about 0 for a
            retained class, 1 for one that f- no longer knows; at most 1, negative where it gained.
        mean_trace: Mean of ||p+(x) - p-(x)||_2 over the public inputs that f+ assigns to the class, in [0, sqrt(2)];
            NaN for a class that f+ assigns none to.
        counts: How many public inputs f+ assigns to each class, int64.
        peak: Highest probability that f+ gives the class for any public input.
        ranking: The known classes (``peak >= KNOWN``), highest loss first.
        deleted: The classes taken for deleted, most likely first; empty only where the two models agree everywhere.
        clear: Whether a margin in the ranking separates ``deleted`` from the rest; otherwise it holds the first of the
            ranking alone, the best guess where nothing stands out.
        margin: Lowest loss of the deleted classes minus the highest of the others; NaN with nothing to compare.
    """

    lost: Tensor
    mean_trace: Tensor
    counts: Tensor
    peak: Tensor
    ranking: tuple[int, ...]
    deleted: tuple[int, ...]
    clear: bool
    margin: float

    @property
    def unknown(self) -> tuple[int, ...]:
        """Classes that f+ recognises in no public input: nothing can be said about them."""
        return tuple(self.peak.lt(KNOWN).nonzero().flatten().tolist())


def infer_classes(pair: ModelPair, public: Any, batch_size: int = 512) -> ClassEvidence:
    """Infer which classes were deleted from public inputs alone; black-box, one query per input.

    A deleted class need not be in the public set: f+ still sees a little of it in similar inputs, and f- no longer
    does.

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
    """Measure how much of every class was lost, rank the classes by it, and look for a margin.

    The loss of class c is one minus the least-squares slope, through the origin, of p-_c on p+_c over the inputs::

        lost_c = 1 - sum_x p+_c(x) p-_c(x) / sum_x p+_c(x)^2

    It looks at a class's own probability alone, so that a class is not blamed for changes among others, and inputs
    count by how much f+ sees the class in them, so that a class which f+ never ranks first can be found as well. (The
    obvious alternative, the mean trace of the inputs that f+ assigns to the class, is reported beside it; it can do
    neither.)

    Rule: among the first half of the ranked classes, the one with the largest margin over its successor is the last
    of the deleted ones, if it has lost at least ``CLEAR_LOSS`` and the margin is at least ``CLEAR_MARGIN``. Otherwise
    the first class alone is named and ``clear`` is false. A model that lost most of its classes names none clearly.

    A clear answer is no proof: another training run also differs on inputs that are rare in the public set, most of
    all for a class that is missing there. A pair of models with nothing deleted (the null control) says how much.

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
    before, after = original.detach().double().cpu(), unlearned.detach().double().cpu()
    squares = before.square().sum(0)
    lost = torch.where(squares > 0, 1 - (before * after).sum(0) / squares, math.nan)
    traces, assigned = delta_prediction(before, after), before.argmax(dim=1)
    counts = torch.bincount(assigned, minlength=before.shape[1])
    sums = torch.zeros_like(squares).index_add_(0, assigned, traces)
    peak = before.amax(0)
    known = peak.ge(KNOWN).nonzero().flatten()
    ranking = tuple(known[lost[known].argsort(descending=True, stable=True)].tolist())
    changed = float(traces.max()) > RESOLUTION
    deleted, clear, margin = _deleted(ranking, lost) if ranking and changed else ((), False, math.nan)
    means = torch.where(counts > 0, sums / counts, math.nan)
    return ClassEvidence(lost, means, counts, peak, ranking, deleted, clear, margin)


def _deleted(ranking: tuple[int, ...], lost: Tensor) -> tuple[tuple[int, ...], bool, float]:
    ordered = [float(lost[label]) for label in ranking]
    margins = [high - low for high, low in pairwise(ordered)]
    candidates = range(min(len(margins), max(1, len(ranking) // 2)))
    last = max(candidates, key=margins.__getitem__, default=None)
    if last is not None and margins[last] >= CLEAR_MARGIN and ordered[last] >= CLEAR_LOSS:
        return ranking[: last + 1], True, margins[last]
    return ranking[:1], False, margins[0] if margins else math.nan
