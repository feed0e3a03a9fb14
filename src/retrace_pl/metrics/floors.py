"""What an error means: the errors of reconstructions that need no model at all."""

from __future__ import annotations

import torch
from torch import Tensor

from retrace_pl.errors import InputError
from retrace_pl.metrics.distances import cross_pairwise_mse, flatten, nearest_records, pairwise_mse


def _by_class(inputs: Tensor, labels: Tensor) -> list[tuple[int, Tensor]]:
    if len(inputs) != len(labels):
        raise InputError(f"{len(inputs)} inputs and {len(labels)} labels do not belong together")
    rows = flatten(inputs, "deleted records")
    return [(int(label), rows[labels == label]) for label in torch.unique(labels)]


def intra_class_mse(inputs: Tensor, labels: Tensor) -> float | None:
    """Mean squared difference over all pairs of different records with the same label.

    The error of handing out a random image of the right class, and the threshold of ``sr_mse``.

    Args:
        inputs: Shape [n, ...].
        labels: int64 of shape [n].

    Returns:
        Squared pixel value; None where no class has two records.
    """
    total, pairs = 0.0, 0
    for _, rows in _by_class(inputs, labels):
        count = len(rows) * (len(rows) - 1) // 2
        if count:
            total += float(pairwise_mse(rows)) * count
            pairs += count
    return total / pairs if pairs else None


def mse_floors(
    deleted: Tensor,
    deleted_labels: Tensor,
    heldout: Tensor | None = None,
    heldout_labels: Tensor | None = None,
    other: Tensor | None = None,
) -> dict[str, float | None]:
    """Errors of trivial reconstructions of the deleted records, to print beside every MSE.

    Args:
        deleted: Deleted records, shape [n, ...].
        deleted_labels: int64 of shape [n].
        heldout: Images of the deleted classes that no model saw, shape [h, ...]; may be empty or None.
        heldout_labels: int64 of shape [h]; needed where several classes were deleted, so that classes are matched.
        other: Images of other classes, shape [o, ...]; may be empty or None.

    Returns:
        ``intra_class_mse``: a random image of the class (`intra_class_mse`); ``class_mean_mse``: the class's mean
        image; ``best_holdout_mse``: for each deleted record, the best of all held-out images of its class;
        ``other_class_mse``: a random image of another class. Each is a mean over deleted records in squared pixel
        values, and None where its images are missing.

    Raises:
        InputError: Where held-out images of several classes come without labels.
    """
    groups = _by_class(deleted, deleted_labels)
    mean_errors = torch.cat([(rows - rows.mean(dim=0)).square().mean(dim=1) for _, rows in groups])
    return {
        "intra_class_mse": intra_class_mse(deleted, deleted_labels),
        "class_mean_mse": float(mean_errors.mean()),
        "best_holdout_mse": _best_holdout(groups, heldout, heldout_labels),
        "other_class_mse": float(cross_pairwise_mse(deleted, other)) if other is not None and len(other) else None,
    }


def _best_holdout(groups: list[tuple[int, Tensor]], heldout: Tensor | None, labels: Tensor | None) -> float | None:
    if heldout is None or len(heldout) == 0:
        return None
    if labels is None and len(groups) > 1:
        raise InputError("held-out images of several deleted classes need their labels: give heldout_labels")
    errors = []
    for label, rows in groups:
        same_class = heldout if labels is None else heldout[labels == label]
        if len(same_class):
            errors.append(nearest_records(rows, same_class).mse)
    return float(torch.cat(errors).mean()) if errors else None
