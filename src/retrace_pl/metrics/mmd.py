"""Maximum mean discrepancy of two samples under a Gaussian kernel."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from retrace_pl.metrics.features import FeatureMetric

__all__ = ["FeatureMMD", "gaussian_mmd", "median_distance"]

_ROWS = 1024
"""Rows of a kernel matrix computed at a time."""


def median_distance(rows: Tensor) -> float:
    """Median of the distances between different rows; their mean where more than half are equal, 0 if all are.

    Args:
        rows: Shape [n, F], n >= 2.
    """
    distances = torch.pdist(rows.double())
    median = float(distances.median())
    return median if median > 0 else float(distances.mean())


def _kernel_sum(first: Tensor, second: Tensor, bandwidth: float) -> Tensor:
    parts = [
        torch.exp(-torch.cdist(part, second).square() / (2 * bandwidth**2)).sum() for part in torch.split(first, _ROWS)
    ]
    return torch.stack(parts).sum()


def gaussian_mmd(first: Tensor, second: Tensor, bandwidth: float) -> Tensor:
    """Unbiased squared maximum mean discrepancy, kernel ``exp(-|x - y|^2 / (2 b^2))`` (Gretton et al. 2012, eq. 3).

    Args:
        first: Shape [n, F], n >= 2.
        second: Shape [m, F], m >= 2.
        bandwidth: b, above 0.

    Returns:
        float64 scalar.
    """
    a, b = first.double(), second.double()
    n, m = len(a), len(b)
    # The kernel of a row with itself is 1.
    within = (_kernel_sum(a, a, bandwidth) - n) / (n * (n - 1)) + (_kernel_sum(b, b, bandwidth) - m) / (m * (m - 1))
    return within - 2 * _kernel_sum(a, b, bandwidth) / (n * m)


class FeatureMMD(FeatureMetric):
    """Squared maximum mean discrepancy between candidates and deleted records in the evaluator's feature space.

    Definition: `gaussian_mmd`. The bandwidth is the median distance between the reference's own features (the median
    heuristic of Gretton et al. 2012, section 8, without the candidates), so that all rows of a table share one kernel.
    Unbiased, hence slightly negative values occur for equal distributions. At most 2, 0 on average for equal
    distributions, no unit, lower is closer. NaN for fewer than two samples on either side, and where all reference
    features are equal.

    Args:
        reference: Shape [m, F].
        kwargs: Passed on to `torchmetrics.Metric`.
    """

    def __init__(self, reference: Tensor, **kwargs: Any) -> None:
        super().__init__(reference, **kwargs)
        self.bandwidth = median_distance(self.reference) if len(self.reference) > 1 else 0.0

    def compute(self) -> Tensor:
        """float64 scalar."""
        samples = self._samples()
        if samples is None or self.bandwidth == 0:
            return self._undefined()
        return gaussian_mmd(*samples, self.bandwidth)
