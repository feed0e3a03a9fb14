"""What unlearning changed in the parameters: where attacks on gradients and on the last layer begin."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from retrace_pl.attacks.base import NotApplicable
from retrace_pl.errors import InputError, RunError
from retrace_pl.traces import ModelPair

__all__ = ["ParameterDifference", "exact_direction", "last_linear", "parameter_difference"]

_FEW = 20
"""Below this many changed numbers, "all of them shrank" may be chance: it happens with probability 2^-n."""


@dataclass(frozen=True)
class ParameterDifference:
    """Parameters before and after unlearning, by name, on the pair's device; buffers (batch-norm statistics) excluded.

    Args:
        original: theta+, every floating-point parameter of the original model.
        unlearned: theta-, the same names and shapes.
    """

    original: dict[str, Tensor]
    unlearned: dict[str, Tensor]

    @cached_property
    def changes(self) -> dict[str, Tensor]:
        """theta- - theta+ of the parameters that were trained: those whose difference is not zero throughout.

        A frozen pair no longer tells which parameters unlearning could change. One that is bit for bit the same in
        both models was frozen, or never received a gradient; either way it says nothing about a direction.
        """
        differences = {name: self.unlearned[name] - value for name, value in self.original.items()}
        return {name: value for name, value in differences.items() if bool(value.any())}

    @property
    def relative_norm(self) -> float:
        """``|theta- - theta+| / |theta+|`` over all parameters.

        Far below 1 for an edit of theta+; about 1.4 between unrelated models of the same size, as after retraining.
        """
        return norm(self.changes) / max(norm(self.original), 1e-30)

    @property
    def dampened(self) -> bool:
        """Whether every changed number shrank towards zero and kept its sign, as under multiplicative dampening.

        By chance this has probability ``2^-n`` for n changed numbers; fewer than 20 are not called dampened.
        """
        count, shrank = 0, True
        for name in self.changes:
            before, after = self.original[name], self.unlearned[name]
            changed = before != after
            count += int(changed.sum())
            shrank = shrank and bool(((after * before >= 0) & (after.abs() < before.abs()))[changed].all())
        return shrank and count >= _FEW


def parameter_difference(pair: ModelPair) -> ParameterDifference:
    """The parameters of both models, checked to be comparable and different.

    Raises:
        AccessError: Black- or gray-box access.
        NotApplicable: The architectures differ, there are no parameters, or none of them changed.
        RunError: A parameter is not finite.
    """
    original, unlearned = (parameters(network) for network in pair.networks())
    if not original and not unlearned:
        raise NotApplicable("the models have no parameters to compare")
    reason = mismatch(original, unlearned)
    if reason is not None:
        raise NotApplicable(f"the models differ in architecture: {reason}")
    for model, values in (("original", original), ("unlearned", unlearned)):
        for name, value in values.items():
            if not bool(value.isfinite().all()):
                raise RunError(f"models: {name} of the {model} model holds NaN or infinity; look at its training")
    difference = ParameterDifference(original, unlearned)
    if not difference.changes:
        raise NotApplicable("both models have the same parameters, so there is no direction of change")
    return difference


def exact_direction(
    difference: ParameterDifference, initial: Mapping[str, Tensor], records: int, deleted: int
) -> dict[str, Tensor]:
    """Sum of the deleted records' gradients, from both models and the weights that both were trained from.

    Source: Hu et al., "Learn What You Want to Unlearn" (IEEE S&P 2024, arXiv 2404.03233):
    ``g* = -[N (theta - theta_0) - (N - u) (theta_u - theta_0)]``. It is exact up to the learning rate where theta and
    theta_u are each one full-batch gradient step away from theta_0, on N and on N - u records; the gradients are then
    those at theta_0.

    Args:
        difference: theta = theta+ (trained on all records) and theta_u = theta- (trained without the deleted ones).
        initial: theta_0 by parameter name; other names (buffers) are ignored.
        records: N, the records that theta was trained on.
        deleted: u, how many of them were deleted, in [1, N).

    Returns:
        g* by name, without parameters for which it is zero throughout.

    Raises:
        InputError: The counts or the names and shapes of ``initial`` do not fit.
        NotApplicable: g* is zero.
    """
    if not 1 <= deleted < records:
        raise InputError(f"records and deleted_records must satisfy 1 <= deleted < records, got {deleted} of {records}")
    start = {name: initial[name] for name in difference.original if name in initial}
    reason = mismatch(difference.original, start)
    if reason is not None:
        raise InputError(f"initial_weights do not fit the models: {reason}")
    direction: dict[str, Tensor] = {}
    for name, theta in difference.original.items():
        theta_0 = start[name].to(theta)
        value = -(records * (theta - theta_0) - (records - deleted) * (difference.unlearned[name] - theta_0))
        if bool(value.any()):
            direction[name] = value
    if not direction:
        raise NotApplicable("the exact direction of the deleted records' gradient is zero")
    return direction


def last_linear(model: nn.Module) -> str:
    """Name of the last linear layer in the order of registration, "" for the model itself; its weight is ``[K, F]``.

    Raises:
        NotApplicable: The model has none.
    """
    names: list[str] = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not names:
        raise NotApplicable(f"{type(model).__name__} has no linear layer")
    return names[-1]


def parameters(model: nn.Module) -> dict[str, Tensor]:
    """Floating-point parameters by name, detached, in single precision or better; buffers are not parameters."""
    return {
        name: value.detach() if value.dtype == torch.float64 else value.detach().float()
        for name, value in model.named_parameters()
        if value.is_floating_point()
    }


def norm(values: Mapping[str, Tensor]) -> float:
    """Euclidean norm over all tensors together."""
    return math.sqrt(math.fsum(float(value.double().square().sum()) for value in values.values()))


def mismatch(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str | None:
    """The first name or shape that differs, in words; None where there is none."""
    for name in [*expected, *(name for name in found if name not in expected)]:
        if name not in expected or name not in found:
            return f"only one of them has the parameter {name}"
        if expected[name].shape != found[name].shape:
            return f"{name} has shape {list(expected[name].shape)} in one and {list(found[name].shape)} in the other"
    return None
