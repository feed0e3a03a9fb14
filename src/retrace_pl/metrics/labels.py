"""Agreement of label distributions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from retrace_pl.errors import InputError


class LabelKL(Metric):
    """Divergence KL(deleted || candidates) of the label histograms an evaluator assigns to both.

    ``sum_c p_c log(p_c / q_c)`` with p from the reference's labels and q from the candidates', each histogram smoothed
    by adding ``smoothing`` to every count. Both label sets come from the same evaluation classifier in an audit, so its
    own mistakes cancel. Range [0, inf), unit: nats, 0 for equal shares, lower is closer. Where one class was deleted
    it is about -log(sr_oracle). Smoothing biases it towards 0 for few candidates. NaN for fewer than two candidates.

    Args:
        reference_labels: Labels of the deleted (or held-out) records, int64 of shape [m].
        num_classes: Number of classes.
        smoothing: Count added to every class, above 0 (0.5: Krichevsky-Trofimov).
        kwargs: Passed on to `torchmetrics.Metric`.
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False
    counts: Tensor
    reference_counts: Tensor

    def __init__(self, reference_labels: Tensor, num_classes: int, smoothing: float = 0.5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if smoothing <= 0:
            raise InputError(f"smoothing must be above 0, got {smoothing}")
        if reference_labels.numel() == 0:
            raise InputError("LabelKL needs the label of at least one reference record")
        self.num_classes = num_classes
        self.smoothing = smoothing
        self.register_buffer("reference_counts", self._histogram(reference_labels), persistent=False)
        self.add_state("counts", torch.zeros(num_classes, dtype=torch.long), dist_reduce_fx="sum")

    def _histogram(self, labels: Tensor) -> Tensor:
        if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < self.num_classes:
            raise InputError(
                f"labels must lie in [0, {self.num_classes}), got {int(labels.min())}..{int(labels.max())}"
            )
        return torch.bincount(labels.flatten(), minlength=self.num_classes)

    def update(self, labels: Tensor) -> None:
        """Add candidates' labels, int64 of shape [n]."""
        self.counts += self._histogram(labels)

    def compute(self) -> Tensor:
        """float64 scalar."""
        if int(self.counts.sum()) < 2:
            return torch.full((), torch.nan, dtype=torch.float64, device=self.counts.device)
        p, q = (counts.double() + self.smoothing for counts in (self.reference_counts, self.counts))
        p, q = p / p.sum(), q / q.sum()
        return (p * (p / q).log()).sum()
