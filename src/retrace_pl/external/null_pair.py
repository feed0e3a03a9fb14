"""How surprising the candidates would be if nothing but the seed of the second model were different."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retrace_pl.audit import FDR, pair_p_value, significance
from retrace_pl.external.judging import Truth
from retrace_pl.external.run import NULL, UNLEARNED
from retrace_pl.external.searches import PairModels
from retrace_pl.traces import joint_scores

__all__ = ["against_null"]

Floats = NDArray[np.float64]


def against_null(
    models: PairModels, candidates: Mapping[str, Sequence[Tensor]], truth: Truth | None
) -> tuple[dict[str, Any] | None, dict[str, Tensor]]:
    """P-values of the selected candidates against those that the same search selected on the null pair.

    By the score: every candidate keeps the differences of the pair it was found on, and all are brought to one scale.
    By likeness to the deleted records, where those are known. There is one null pair, whose repeats differ in the
    search alone, so the pair as a whole cannot be more surprising than 1/2.

    Args:
        models: The fitted scores.
        candidates: Arm -> candidates [k, ...] of each repeat.
        truth: What was deleted, where it is known.

    Returns:
        Facts by what the p-values are taken of, None without a null model, and the first repeat's p- and q-values.
    """
    null = candidates.get("null")
    if not null:
        return None, {}
    ours = candidates["attack"]
    audited, other = models.scorer(UNLEARNED), models.scorer(NULL)
    parts = [(audited, inputs) for inputs in ours] + [(other, inputs) for inputs in null]
    statistics = {"score": [part.double().cpu().numpy() for part in joint_scores(audited, parts)]}
    if truth is not None:
        statistics["likeness"] = [truth.likeness(inputs).double().numpy() for _, inputs in parts]
    facts: dict[str, Any] = {}
    tensors: dict[str, Tensor] = {}
    for name, values in statistics.items():
        own, theirs = values[: len(ours)], np.concatenate(values[len(ours) :])
        found = [significance(one, [theirs]) for one in own]
        mean = float(np.mean([one.mean() for one in own]))
        facts[name] = {
            "level": FDR,
            "candidates": sum(len(one.p) for one in found),
            "significant": sum(int(one.significant().sum()) for one in found),
            "significant_and_recognised": _recognised(truth, ours, [one.significant() for one in found]),
            "null_candidates": len(theirs),
            "null_pairs": 1,
            "pair_p": pair_p_value(mean, [float(theirs.mean())]),
            "mean": mean,
            "null_means": [float(theirs.mean())],
            "repeats": [one.as_dict() for one in found],
        }
        tensors |= {f"attack.{name}_p": _float(found[0].p), f"attack.{name}_q": _float(found[0].q)}
    return facts, tensors


def _recognised(
    truth: Truth | None, candidates: Sequence[Tensor], significant: Sequence[NDArray[np.bool_]]
) -> int | None:
    """How many of the significant candidates are a success by the judge; None where that is not defined."""
    if truth is None or not truth.counts:
        return None
    pairs = zip(candidates, significant, strict=True)
    return sum(int((truth.outcomes(inputs).bool().numpy() & found).sum()) for inputs, found in pairs)


def _float(values: Floats) -> Tensor:
    return torch.from_numpy(values).float()
