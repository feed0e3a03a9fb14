"""The three differences between two models on the same inputs; pure functions of tensors."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["GRADIENT_EPS", "RESOLUTION", "delta_gradient", "delta_loss", "delta_prediction"]

RESOLUTION = 1e-6
"""Differences below this are rounding in float32; no signal or spread smaller than it is taken for information."""

GRADIENT_EPS = 1e-8
"""Gradient norms below this carry no direction (the model saturates)."""


def delta_prediction(original: Tensor, unlearned: Tensor) -> Tensor:
    """Distance of the outputs, ||p+(x) - p-(x)||_2 (ReTrace, prediction trace).

    Args:
        original: Probabilities of the original model, shape [n, ...].
        unlearned: Probabilities of the unlearned model, same shape.

    Returns:
        Shape [n], in [0, sqrt(2)] for one probability vector per sample.
    """
    return _norms(_rows(original) - _rows(unlearned))


def delta_loss(original: Tensor, unlearned: Tensor) -> Tensor:
    """Absolute difference of the losses under the original model's label (ReTrace, loss trace).

    Args:
        original: Loss of every sample under the original model, shape [n], in nats.
        unlearned: Loss of every sample under the unlearned model and the same labels, shape [n].

    Returns:
        Shape [n], in nats, unbounded above.
    """
    return (original - unlearned).abs()


def delta_gradient(original: Tensor, unlearned: Tensor, eps: float = GRADIENT_EPS) -> tuple[Tensor, Tensor]:
    """One minus the cosine of the input gradients (ReTrace, gradient trace), with a floor on the norms.

    Each gradient is extended by one coordinate of value `eps` before the cosine is taken. That leaves gradients much
    longer than `eps` as they are, lets the direction of shorter ones fade instead of turning rounding noise into a
    direction, and needs no special case: two vanishing gradients agree (0), a vanishing and a large one are
    orthogonal (1). The difference is computed as half the squared distance of the unit vectors, which is exact for
    equal gradients where 1 - cos would cancel; results below `RESOLUTION` are set to 0.

    Args:
        original: Gradient of the original model's loss, shape [n, ...].
        unlearned: Gradient of the unlearned model's loss, same shape.
        eps: Floor on the norms.

    Returns:
        The differences, shape [n], in [0, 2], and a boolean mask, shape [n], true where either gradient's norm is
        below `eps`.
    """
    first, second = _rows(original), _rows(unlearned)
    norm_first = _norms(first)
    norm_second = _norms(second)
    tiny = torch.minimum(norm_first, norm_second) < eps
    floor = torch.full_like(norm_first, eps)
    length_first, length_second = torch.hypot(norm_first, floor), torch.hypot(norm_second, floor)
    squares = (first / length_first[:, None] - second / length_second[:, None]).square().sum(dim=1)
    delta = 0.5 * (squares + (eps / length_first - eps / length_second).square())
    return torch.where(delta < RESOLUTION, 0.0, delta.clamp_max(2.0)), tiny


def _norms(rows: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(rows, dim=1)
    return norms


def _rows(values: Tensor) -> Tensor:
    """Flatten all but the first dimension, in float32 or better."""
    return (values if values.dtype == torch.float64 else values.float()).flatten(start_dim=1)
