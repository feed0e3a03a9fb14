"""Distances that every pixel metric shares: nearest records and mean pairwise distances, without a full matrix."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from retrace_pl.errors import InputError

_MATRIX_ENTRIES = 2**22
"""Most entries of one block of a distance matrix (32 MiB in float64)."""


class Nearest(NamedTuple):
    """The nearest record of every candidate.

    Attributes:
        distance: Distance to that record, float64 of shape [n].
        position: Index of that record, int64 of shape [n].
    """

    distance: Tensor
    position: Tensor

    @property
    def mse(self) -> Tensor:
        """The distance where it is a mean squared difference, as `nearest_records` finds it."""
        return self.distance


def flatten(inputs: Tensor, what: str = "inputs") -> Tensor:
    """Rows of at least one input in float64, so that sums over thousands of values keep their digits.

    Args:
        inputs: Shape [n, ...], any numeric type.
        what: Name used in the error.

    Returns:
        Shape [n, D].

    Raises:
        InputError: For a tensor without a batch dimension or without rows.
    """
    if inputs.ndim < 2 or inputs.shape[0] == 0:
        raise InputError(f"{what} must be a non-empty batch of shape [n, ...], got shape {list(inputs.shape)}")
    return inputs.detach().flatten(1).double()


def check_same_width(candidates: Tensor, records: Tensor) -> None:
    """Raise `InputError` unless both [n, D] tensors have the same D."""
    if candidates.shape[1] != records.shape[1]:
        raise InputError(
            f"candidates have {candidates.shape[1]} values each and the reference has {records.shape[1]}: "
            "give both the same shape"
        )


def nearest_records(candidates: Tensor, records: Tensor) -> Nearest:
    """Find the record with the smallest mean squared difference to each candidate.

    The search expands the square (one matrix product per block of at most 2**22 distances, in float64 on centred
    values); the distance returned is then computed from the difference itself, so that a copy is at exactly 0.

    Args:
        candidates: Shape [n, ...].
        records: Shape [m, ...] with the same number of values per row.

    Returns:
        The distances and the positions; of equal records the first.

    Raises:
        InputError: For an empty side or different shapes.
    """
    x, y = flatten(candidates, "candidates"), flatten(records, "records")
    check_same_width(x, y)
    centre = y.mean(dim=0)
    centred = y - centre
    norms = centred.square().sum(dim=1)
    position = torch.empty(len(x), dtype=torch.long, device=x.device)
    height = max(1, _MATRIX_ENTRIES // len(y))
    blocks = [slice(start, start + height) for start in range(0, len(x), height)]
    for rows in blocks:
        position[rows] = (norms - 2 * (x[rows] - centre) @ centred.T).argmin(dim=1)
    return Nearest(torch.cat([(x[rows] - y[position[rows]]).square().mean(dim=1) for rows in blocks]), position)


def distance_matrix(inputs: Tensor, records: Tensor) -> Tensor:
    """Mean squared differences between n candidates and m records.

    Args:
        inputs: Shape [n, ...].
        records: Shape [m, ...] with the same number of values per row.

    Returns:
        Shape [n, m], float64.
    """
    rows, columns = inputs.flatten(1).double(), records.flatten(1).double()
    return torch.cdist(rows, columns).square() / rows.shape[1]


def cross_pairwise_mse(first: Tensor, second: Tensor) -> Tensor:
    """Mean squared difference over all n x m pairs, from the means alone (no matrix).

    Args:
        first: Shape [n, ...].
        second: Shape [m, ...].

    Returns:
        float64 scalar, mean over pairs and over values.
    """
    x, y = flatten(first, "first set"), flatten(second, "second set")
    check_same_width(x, y)
    gap = (x.mean(dim=0) - y.mean(dim=0)).square()
    return (gap + x.var(dim=0, unbiased=False) + y.var(dim=0, unbiased=False)).mean()


def pairwise_mse(inputs: Tensor) -> Tensor:
    """Mean squared difference over the n (n - 1) / 2 pairs of one set: twice its mean unbiased variance.

    Args:
        inputs: Shape [n, ...].

    Returns:
        float64 scalar; NaN for a single row, which has no pair.
    """
    x = flatten(inputs)
    if len(x) < 2:
        return torch.full((), torch.nan, dtype=x.dtype, device=x.device)
    return 2 * x.var(dim=0, unbiased=True).mean()
