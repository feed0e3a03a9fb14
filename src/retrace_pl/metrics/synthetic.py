"""Inputs that are no records, to see what a score makes of them; images or any other float tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from retrace_pl.errors import InputError

__all__ = ["mixup", "uniform_noise"]


def uniform_noise(like: Tensor, size: int, seed: int) -> Tensor:
    """Inputs whose every value is drawn evenly between the smallest and the largest one of real inputs.

    Args:
        like: Real inputs ``[n, ...]``, floating point; they give shape and range.
        size: How many to draw.
        seed: Seed of the draw.

    Returns:
        Shape ``[size, ...]``, on the CPU.

    Raises:
        InputError: If the inputs are not floating point, or there are none.
    """
    _require_floats(like)
    low, high = (float(end) for end in torch.aminmax(like))
    drawn = torch.rand(size, *like.shape[1:], generator=torch.Generator().manual_seed(seed))
    return low + (high - low) * drawn


def mixup(inputs: Tensor, size: int, seed: int) -> Tensor:
    """Convex combinations of two different real inputs, ``a x + (1 - a) x'`` with a drawn evenly from [0, 1].

    Source: Zhang et al., "mixup", 2018, with Beta(1, 1) weights.

    Args:
        inputs: Real inputs ``[n, ...]``, floating point, n >= 2.
        size: How many to make.
        seed: Seed of pairs and weights.

    Returns:
        Shape ``[size, ...]``, on the CPU.

    Raises:
        InputError: If the inputs are not floating point, or there are fewer than two.
    """
    _require_floats(inputs)
    if len(inputs) < 2:
        raise InputError("mixup needs at least two inputs to mix")
    random = torch.Generator().manual_seed(seed)
    first = torch.randint(len(inputs), (size,), generator=random)
    second = (first + torch.randint(1, len(inputs), (size,), generator=random)) % len(inputs)
    weight = torch.rand(size, *[1] * (inputs.ndim - 1), generator=random)
    inputs = inputs.detach().cpu()
    return weight * inputs[first] + (1 - weight) * inputs[second]


def _require_floats(inputs: Tensor) -> None:
    if not inputs.is_floating_point() or inputs.numel() == 0:
        raise InputError(
            f"noise and mixtures need floating-point inputs, got {inputs.dtype} of shape {list(inputs.shape)}"
        )
