"""Precision and recall of one sample against another's manifold."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from retrace_pl.errors import InputError
from retrace_pl.metrics.features import FeatureMetric

_MATRIX_ENTRIES = 2**22


def _blocks(rows: Tensor, columns: int) -> list[Tensor]:
    height = max(1, _MATRIX_ENTRIES // columns)
    return [rows[start : start + height] for start in range(0, len(rows), height)]


def _distances(rows: Tensor, others: Tensor) -> Tensor:
    # From differences: the expanded square is off by 1e-8 near 0, which decides whether a copy lies inside a ball.
    return torch.cdist(rows, others, compute_mode="donot_use_mm_for_euclid_dist")


def neighbour_radii(samples: Tensor, neighbours: int) -> Tensor:
    """Distance of every sample to its k-th nearest other sample, shape [n].

    Args:
        samples: Shape [n, F], n > neighbours.
        neighbours: k.
    """
    # The nearest one, at distance 0, is the sample itself. (kthvalue has no deterministic form on GPUs; topk has.)
    nearest = neighbours + 1
    parts = [
        _distances(block, samples).topk(nearest, dim=1, largest=False).values[:, -1]
        for block in _blocks(samples, len(samples))
    ]
    return torch.cat(parts)


def covered_share(samples: Tensor, centres: Tensor, radii: Tensor) -> Tensor:
    """Share of samples that lie within the radius of at least one centre, float64 scalar.

    Args:
        samples: Shape [n, F].
        centres: Shape [m, F].
        radii: Shape [m].
    """
    inside = [(_distances(block, centres) <= radii).any(dim=1) for block in _blocks(samples, len(centres))]
    return torch.cat(inside).double().mean()


class PrecisionRecall(FeatureMetric):
    """Improved precision and recall of the candidates against the deleted records' feature manifold.

    Kynkäänniemi et al. 2019: a manifold is the union of balls around every sample that reach its k-th nearest
    neighbour. ``precision`` is the share of candidates inside the deleted records' manifold (are they plausible?),
    ``recall`` the share of deleted records inside the candidates' (is the class covered?). Range [0, 1], no unit,
    higher is closer. k is lowered to n - 1 on a side with too few samples; recall grows with the number of candidates,
    so compare rows of equal n. NaN for fewer than two samples on either side.

    Args:
        reference: Shape [m, F].
        neighbours: k; the paper's 3.
        kwargs: Passed on to `torchmetrics.Metric`.
    """

    higher_is_better = True

    def __init__(self, reference: Tensor, neighbours: int = 3, **kwargs: Any) -> None:
        super().__init__(reference, **kwargs)
        if neighbours < 1:
            raise InputError(f"neighbours must be at least 1, got {neighbours}")
        self.neighbours = neighbours

    def compute(self) -> dict[str, Tensor]:
        """``precision`` and ``recall``, float64 scalars."""
        samples = self._samples()
        if samples is None:
            return {"precision": self._undefined(), "recall": self._undefined()}
        candidates, reference = samples
        reach, spread = (neighbour_radii(x, min(self.neighbours, len(x) - 1)) for x in (reference, candidates))
        return {
            "precision": covered_share(candidates, reference, reach),
            "recall": covered_share(reference, candidates, spread),
        }
