"""What a model returns: class scores, and what kind of scores they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from retrace_pl.errors import InputError

__all__ = ["SUM_TOLERANCE", "OutputKind", "as_logits", "check_kind", "only_tensor", "output_kind"]

OutputKind = Literal["logits", "probabilities", "log_probabilities"]

SUM_TOLERANCE = 1e-3
"""How far the sum of a row of probabilities may be from 1: half-precision models round that much."""


def check_kind(kind: str) -> None:
    """Refuse a word that names no kind of class scores.

    Raises:
        InputError: It is none.
    """
    if kind not in get_args(OutputKind):
        raise InputError(f"--outputs: {kind!r} is none of auto, {', '.join(get_args(OutputKind))}")


def as_logits(outputs: Any, kind: OutputKind) -> Tensor:
    """Class scores [n, K] whose softmax are the probabilities, out of what a model returned.

    Logits are passed on as they are; of probabilities the logarithm is taken, whose softmax gives them back.

    Raises:
        InputError: It returned no class scores.
    """
    scores = only_tensor(outputs)
    return scores.clamp_min(torch.finfo(scores.dtype).tiny).log() if kind == "probabilities" else scores


def only_tensor(outputs: Any) -> Tensor:
    """The class scores [n, K] in what a model returned: a tensor, a mapping or object with `logits`, or a 1-tuple.

    Raises:
        InputError: It returned something else.
    """
    found = outputs
    if isinstance(found, Mapping):
        found = found["logits"] if "logits" in found else next(iter(found.values())) if len(found) == 1 else found
    elif isinstance(getattr(found, "logits", None), Tensor):
        found = found.logits
    elif isinstance(found, list | tuple) and len(found) == 1:
        found = found[0]
    if not isinstance(found, Tensor) or found.ndim != 2:
        what = f"a tensor of shape {list(found.shape)}" if isinstance(found, Tensor) else type(outputs).__name__
        raise InputError(f"the model returns {what}; it must return class scores of shape [n, classes]")
    return found


def output_kind(outputs: Tensor) -> OutputKind:
    """What rows of class scores [n, K] look like: probabilities, their logarithms, or logits otherwise."""
    rows = outputs.detach().double()
    if bool((rows >= -SUM_TOLERANCE).all()) and _sum_to_one(rows):
        return "probabilities"
    if bool((rows <= SUM_TOLERANCE).all()) and _sum_to_one(rows.exp()):
        return "log_probabilities"
    return "logits"


def _sum_to_one(rows: Tensor) -> bool:
    return bool(((rows.sum(dim=1) - 1).abs() <= SUM_TOLERANCE).all())
