"""Distances between two samples in a feature space: Fréchet and kernel distance, Gaussian divergence.

The feature space is the penultimate layer of the evaluation classifier, so the numbers compare only between rows that
used the same evaluator and about the same number of candidates. All three are biased by small samples; the docstrings
say how.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from retrace_pl.errors import InputError
from retrace_pl.metrics.distances import check_same_width, flatten

_MATRIX_ENTRIES = 2**22
"""Most entries of one block of a kernel matrix (32 MiB in float64)."""


class FeatureMetric(Metric):
    """Base of the metrics that compare all candidates' features with a reference sample's.

    Candidates' features are kept (list state, concatenated over ranks); the reference is held by every rank alike.

    Args:
        reference: Features of the deleted (or held-out) records, shape [m, F].
        kwargs: Passed on to `torchmetrics.Metric`.
    """

    is_differentiable = False
    higher_is_better: bool | None = False
    full_state_update = False
    features: list[Tensor]
    reference: Tensor

    def __init__(self, reference: Tensor, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.register_buffer("reference", flatten(reference, "reference features"), persistent=False)
        self.add_state("features", [], dist_reduce_fx="cat")

    def update(self, features: Tensor) -> None:
        """Add candidates' features of shape [n, F]."""
        rows = flatten(features, "features")
        check_same_width(rows, self.reference)
        self.features.append(rows)

    def _samples(self) -> tuple[Tensor, Tensor] | None:
        """Candidates' and reference features, or None where either has fewer than two rows."""
        candidates = dim_zero_cat(self.features)
        if len(candidates) < 2 or len(self.reference) < 2:
            return None
        return candidates, self.reference

    def _undefined(self) -> Tensor:
        return torch.full((), torch.nan, dtype=torch.float64, device=self.reference.device)


def _root(features: Tensor) -> Tensor:
    """A matrix R with R^T R = the unbiased covariance, of at most F rows."""
    centred = (features - features.mean(dim=0)) / (len(features) - 1) ** 0.5
    if centred.shape[0] <= centred.shape[1]:
        return torch.as_tensor(centred)
    root: Tensor = torch.linalg.qr(centred, mode="r").R
    return root


def frechet_distance(first: Tensor, second: Tensor) -> Tensor:
    """Squared Fréchet distance of two Gaussians fitted to feature rows (Heusel et al. 2017).

    ``|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2))`` with unbiased covariances. The trace of the root is taken as the
    nuclear norm of R1 R2^T, where S = R^T R: the same number as torchmetrics' and scipy's, but exact where there are
    fewer rows than features (S is singular there) and cheap, since it decomposes a matrix of min(n, F) x min(m, F).

    Args:
        first: Shape [n, F], n >= 2.
        second: Shape [m, F], m >= 2.

    Returns:
        float64 scalar, never below 0.
    """
    a, b = first.double(), second.double()
    gap = (a.mean(dim=0) - b.mean(dim=0)).square().sum()
    root_a, root_b = _root(a), _root(b)
    trace: Tensor = torch.linalg.svdvals(root_a @ root_b.T).sum()
    return (gap + root_a.square().sum() + root_b.square().sum() - 2 * trace).clamp_min(0)


class FeatureFID(FeatureMetric):
    """Fréchet distance between candidates and deleted records in the evaluator's feature space.

    Definition: `frechet_distance`; named ``fid_oracle`` because the features are the evaluation classifier's, not
    Inception's, so its scale is not that of published FIDs. Range [0, inf), unit: squared feature value, 0 for equal
    moments, lower is closer. Biased upwards by about tr(S) (1/n + 1/m) plus a covariance term that is large while n is
    not well above F: compare rows of equal n only. NaN for fewer than two samples on either side.

    Args:
        reference: Shape [m, F].
        kwargs: Passed on to `torchmetrics.Metric`.
    """

    def compute(self) -> Tensor:
        """float64 scalar."""
        samples = self._samples()
        return self._undefined() if samples is None else frechet_distance(*samples)


def _kernel_sum(first: Tensor, second: Tensor) -> Tensor:
    """Sum of the cubic kernel ``(x.y / F + 1)^3`` over all pairs, in blocks."""
    height = max(1, _MATRIX_ENTRIES // len(second))
    total = torch.zeros((), dtype=first.dtype, device=first.device)
    for start in range(0, len(first), height):
        total += (first[start : start + height] @ second.T / first.shape[1] + 1).pow(3).sum()
    return total


def _mean_of_pairs(rows: Tensor) -> Tensor:
    """Mean of the cubic kernel over pairs of different rows."""
    own = (rows.square().sum(dim=1) / rows.shape[1] + 1).pow(3).sum()
    return (_kernel_sum(rows, rows) - own) / (len(rows) * (len(rows) - 1))


def kernel_distance(first: Tensor, second: Tensor) -> Tensor:
    """Unbiased squared maximum mean discrepancy with KID's kernel (Bińkowski et al. 2018, eq. 4).

    KID is usually averaged over random subsets of equal size; this is the value that average tends to with the number
    of subsets, whatever their size: the mean over all pairs. So it needs neither a subset size nor a seed.

    Args:
        first: Shape [n, F], n >= 2.
        second: Shape [m, F], m >= 2.

    Returns:
        float64 scalar.
    """
    a, b = first.double(), second.double()
    return _mean_of_pairs(a) + _mean_of_pairs(b) - 2 * _kernel_sum(a, b) / (len(a) * len(b))


class FeatureKID(FeatureMetric):
    """Kernel distance between candidates and deleted records in the evaluator's feature space.

    Definition: `kernel_distance`, with the kernel ``(x.y / F + 1)^3``; named ``kid_oracle`` because the features are
    the evaluation classifier's, not Inception's. Unbiased at any sample size, hence slightly negative values occur for
    equal distributions; its spread grows as samples shrink. Range (-inf, inf), 0 on average for equal distributions,
    unit: kernel value, lower is closer. NaN for fewer than two samples on either side.

    Args:
        reference: Shape [m, F].
        kwargs: Passed on to `torchmetrics.Metric`.
    """

    def compute(self) -> Tensor:
        """float64 scalar."""
        samples = self._samples()
        return self._undefined() if samples is None else kernel_distance(*samples)


def shrunk_covariance(features: Tensor, shrinkage: float | Literal["ledoit_wolf"]) -> Tensor:
    """Covariance pulled towards a multiple of the identity: ``(1 - l) S + l (tr S / F) I`` with ``S`` divided by n.

    Args:
        features: Shape [n, F], n >= 2.
        shrinkage: l in [0, 1], or ``ledoit_wolf`` for the l of least expected squared error (Ledoit and Wolf 2004).

    Returns:
        Shape [F, F], float64.
    """
    rows = features.double()
    n, width = rows.shape
    centred = rows - rows.mean(dim=0)
    covariance = centred.T @ centred / n
    scale = covariance.trace() / width
    identity = torch.eye(width, dtype=rows.dtype, device=rows.device)
    if shrinkage == "ledoit_wolf":
        squares = covariance.square().sum()
        spread = (squares - width * scale**2) / width
        noise = (centred.square().sum(dim=1).square().sum() / n - squares) / (n * width)
        weight = float((noise.clamp_min(0) / spread).clamp_max(1)) if spread > 0 else 1.0
    else:
        weight = shrinkage
    return (1 - weight) * covariance + weight * scale * identity


def gaussian_kl(mean_p: Tensor, cov_p: Tensor, mean_q: Tensor, cov_q: Tensor) -> Tensor:
    """Kullback-Leibler divergence KL(N(mean_p, cov_p) || N(mean_q, cov_q)) in nats.

    Args:
        mean_p: Shape [F].
        cov_p: Shape [F, F], positive definite.
        mean_q: Shape [F].
        cov_q: Shape [F, F], positive definite.

    Returns:
        Scalar, at least 0.
    """
    root_p, root_q = torch.linalg.cholesky(cov_p), torch.linalg.cholesky(cov_q)
    trace: Tensor = torch.linalg.solve_triangular(root_q, root_p, upper=False).square().sum()
    gap: Tensor = torch.linalg.solve_triangular(root_q, (mean_p - mean_q)[:, None], upper=False).square().sum()
    log_det: Tensor = 2 * (root_q.diagonal().log().sum() - root_p.diagonal().log().sum())
    return ((trace + gap - len(mean_p) + log_det) / 2).clamp_min(0)


class FeatureKL(FeatureMetric):
    """Divergence KL(deleted || candidates) of Gaussians fitted in the evaluator's feature space.

    Both Gaussians have shrunk covariances (`shrunk_covariance`) plus ``floor`` times the reference's mean variance on
    the diagonal, so that fewer rows than features, dead features and collapsed candidates give finite numbers. The
    direction is the cost of describing the deleted data by the candidates: it grows when the candidates miss a part of
    the deleted distribution, hugely when they collapse. Range [0, inf), unit: nats, lower is closer. With fewer rows
    than features the value depends on the shrinkage and falls as n grows: compare rows of equal n and equal evaluator
    only. NaN for fewer than two samples on either side. Source: ReTrace reports "KL" without a definition; ours.

    Args:
        reference: Shape [m, F].
        shrinkage: See `shrunk_covariance`.
        floor: Share of the reference's mean variance added to every variance, above 0.
        kwargs: Passed on to `torchmetrics.Metric`.
    """

    def __init__(
        self,
        reference: Tensor,
        shrinkage: float | Literal["ledoit_wolf"] = "ledoit_wolf",
        floor: float = 1e-3,
        **kwargs: Any,
    ) -> None:
        super().__init__(reference, **kwargs)
        if shrinkage != "ledoit_wolf" and not 0 <= float(shrinkage) <= 1:
            raise InputError(f"shrinkage must be 'ledoit_wolf' or lie in [0, 1], got {shrinkage}")
        if floor <= 0:
            raise InputError(f"floor must be above 0, got {floor}")
        self.shrinkage = shrinkage
        self.floor = floor

    def compute(self) -> Tensor:
        """float64 scalar."""
        samples = self._samples()
        if samples is None:
            return self._undefined()
        candidates, reference = samples
        variance = reference.var(dim=0, unbiased=False).mean()
        identity = torch.eye(reference.shape[1], dtype=reference.dtype, device=reference.device)
        # A reference of identical rows has no scale of its own; any positive floor keeps the matrices invertible.
        floor = self.floor * (variance if variance > 0 else torch.ones_like(variance)) * identity
        deleted, found = (shrunk_covariance(rows, self.shrinkage) + floor for rows in (reference, candidates))
        return gaussian_kl(reference.mean(dim=0), deleted, candidates.mean(dim=0), found)
