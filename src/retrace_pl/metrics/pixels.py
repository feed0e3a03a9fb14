"""Metrics on the inputs themselves (pixels in [0, 1], or any rows of numbers on a common scale)."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from retrace_pl.errors import InputError
from retrace_pl.metrics.distances import check_same_width, flatten, nearest_records, pairwise_mse

_ROUNDING = (1 / 255) ** 2 / 12
"""Mean squared error of rounding to 8 bits."""


class MeanPerCandidate(Metric):
    """Mean over candidates of one number per candidate; sums are kept, so ranks and batches add up."""

    is_differentiable = False
    full_state_update = False
    total: Tensor
    count: Tensor
    records: Tensor

    def __init__(self, records: Tensor, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if records.ndim < 2 or records.shape[0] == 0:
            raise InputError(f"records must be a non-empty batch of shape [m, ...], got {list(records.shape)}")
        self.register_buffer("records", records.detach().clone(), persistent=False)
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    @abstractmethod
    def values(self, candidates: Tensor) -> Tensor:
        """The number of every candidate, shape [n]."""

    def update(self, candidates: Tensor) -> None:
        """Add candidates of shape [n, ...]."""
        self.total += self.values(candidates).double().sum()
        self.count += len(candidates)

    def compute(self) -> Tensor:
        """Mean over all candidates seen, float64 scalar."""
        return self.total / self.count


class NearestMSE(MeanPerCandidate):
    """Mean over candidates of the mean squared error to the nearest deleted record.

    ``mean_i min_j ||x_i - y_j||^2 / D`` for candidates x and records y. Range [0, 1] for pixels in [0, 1], 0 for
    copies; unit: squared pixel value; lower is closer. A blurred mean image scores well, so read it beside the floors
    and beside `SuccessRate`, never alone. Source: ReTrace reports "MSE" without a definition; this one is ours.

    Args:
        records: The deleted records (or the held-out records of a control), shape [m, ...]. Held on every rank.
        kwargs: Passed on to `torchmetrics.Metric`.

    Example:
        >>> metric = NearestMSE(torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
        >>> metric.update(torch.tensor([[0.0, 0.0], [1.0, 0.5]]))
        >>> metric.compute()
        tensor(0.0625, dtype=torch.float64)
    """

    higher_is_better = False

    def values(self, candidates: Tensor) -> Tensor:
        """Squared error of every candidate to its nearest record, shape [n]."""
        return nearest_records(candidates, self.records).mse


class NearestPSNR(MeanPerCandidate):
    """Mean over candidates of the peak signal-to-noise ratio to the nearest deleted record, in decibels.

    ``mean_i 10 log10(1 / e_i)`` for pixels in [0, 1], e_i the mean squared error of candidate i to its nearest record
    and at least that of rounding to 8 bits, ``(1 / 255)^2 / 12``. Range 0 to 58.9, which a copy has; higher is closer.
    Beside `NearestMSE` it counts the best candidates for more. Source: the measure of Hu et al. (IEEE S&P 2024); the
    floor of the error is ours.

    Args:
        records: The deleted records, shape [m, ...]. Held on every rank.
        kwargs: Passed on to `torchmetrics.Metric`.

    Example:
        >>> metric = NearestPSNR(torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
        >>> metric.update(torch.tensor([[0.1, 0.1]]))
        >>> round(float(metric.compute()), 4)
        20.0
    """

    higher_is_better = True

    def values(self, candidates: Tensor) -> Tensor:
        """Decibels of every candidate, shape [n]."""
        return -10.0 * nearest_records(candidates, self.records).mse.clamp_min(_ROUNDING).log10()


class CentredCosine(MeanPerCandidate):
    """Mean over candidates of the centred cosine similarity to the nearest deleted record.

    ``mean_i cos(x_i - c, y_j(i) - c)`` where j(i) is the record nearest in mean squared error (the pair that
    `NearestMSE` and `SSIM` describe too) and c is the mean image of a set that the caller names, the test split's in an
    audit. Without centring any two bright images are similar, whatever they show. Range [-1, 1], no unit, higher is
    closer; 0 where a candidate or record equals the centre. Source: ReTrace reports "CS" without a definition; this one
    is ours.

    Args:
        records: Shape [m, ...].
        centre: The mean input to subtract, shape [...] of one record.
        kwargs: Passed on to `torchmetrics.Metric`.

    Example:
        >>> metric = CentredCosine(torch.tensor([[1.0, 1.0]]), centre=torch.tensor([0.5, 0.5]))
        >>> metric.update(torch.tensor([[0.75, 0.75], [0.0, 0.0]]))
        >>> metric.compute().round(decimals=6)
        tensor(0., dtype=torch.float64)
    """

    higher_is_better = True
    centre: Tensor

    def __init__(self, records: Tensor, centre: Tensor, **kwargs: Any) -> None:
        super().__init__(records, **kwargs)
        if centre.shape != records.shape[1:]:
            raise InputError(f"centre has shape {list(centre.shape)}, a record has {list(records.shape[1:])}")
        self.register_buffer("centre", centre.detach().clone(), persistent=False)

    def values(self, candidates: Tensor) -> Tensor:
        """Centred cosine of every candidate and its nearest record, shape [n]."""
        nearest = self.records[nearest_records(candidates, self.records).position]
        centre = self.centre.flatten().double()
        return F.cosine_similarity(flatten(candidates) - centre, flatten(nearest) - centre, dim=1, eps=1e-12)


class PairwiseMSE(Metric):
    """Mean squared error over all pairs of a candidate and a deleted record.

    ``mean_ij ||x_i - y_j||^2 / D``. Range [0, 1] for pixels in [0, 1]; unit: squared pixel value; lower is closer. Its
    floor is the intra-class pairwise mean, not 0, and blur lowers it, so it is read beside `Diversity`. Computed from
    sums alone, in float64. Source: ours, after ReTrace's "MSE".

    Args:
        records: Shape [m, ...]. Held on every rank.
        kwargs: Passed on to `torchmetrics.Metric`.
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False
    square_sum: Tensor
    count: Tensor
    record_mean: Tensor
    record_square: Tensor

    def __init__(self, records: Tensor, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        rows = flatten(records, "records")
        mean = rows.mean(dim=0)
        # Everything is taken relative to the records' mean, so that close sets do not lose digits by cancellation.
        self.register_buffer("record_mean", mean, persistent=False)
        self.register_buffer("record_square", (rows - mean).square().sum(dim=1).mean(), persistent=False)
        self.add_state("square_sum", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, candidates: Tensor) -> None:
        """Add candidates of shape [n, ...]."""
        rows = flatten(candidates, "candidates")
        check_same_width(rows, self.record_mean[None])
        self.square_sum += (rows - self.record_mean).square().sum()
        self.count += len(rows)

    def compute(self) -> Tensor:
        """Mean over all pairs, float64 scalar."""
        return (self.square_sum / self.count + self.record_square) / len(self.record_mean)


class Diversity(Metric):
    """Mean squared difference over all pairs of candidates.

    ``2 / (n (n - 1)) sum_{i<j} ||x_i - x_j||^2 / D``, the same quantity as the intra-class pairwise mean of the deleted
    class, beside which it is read: about equal for an honest sample, near 0 for a collapsed search. Range [0, 1] for
    pixels in [0, 1]; unit: squared pixel value; higher is more diverse; NaN for fewer than two candidates. Source:
    ours.

    Args:
        kwargs: Passed on to `torchmetrics.Metric`.

    Example:
        >>> metric = Diversity()
        >>> metric.update(torch.tensor([[0.0, 0.0], [1.0, 0.0]]))
        >>> metric.compute()
        tensor(0.5000, dtype=torch.float64)
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    candidates: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("candidates", [], dist_reduce_fx="cat")

    def update(self, candidates: Tensor) -> None:
        """Add candidates of shape [n, ...]."""
        self.candidates.append(candidates.detach().flatten(1))

    def compute(self) -> Tensor:
        """Mean over pairs, float64 scalar."""
        return pairwise_mse(dim_zero_cat(self.candidates))
