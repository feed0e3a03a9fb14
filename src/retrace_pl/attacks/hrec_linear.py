"""Deleting one record from a linear model gives it away: the closed forms behind HRec.

Source: Bertran et al., "Reconstruction Attacks on Machine Unlearning: Simple Models are Vulnerable" (NeurIPS 2024,
arXiv 2405.20272). Notation: a record x with d coordinates of which the last is the constant 1; K outputs; theta+
``[d, K]`` trained on n records, theta- ``[d, K]`` on the same records without x. Everything is computed in float64.

The functions only ever multiply by the Hessian and never solve with it, so a head of any size takes one matrix
product over the public records; the explicit Hessian is there to check that.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from retrace_pl.errors import InputError, NotApplicable, RunError

__all__ = [
    "Factors",
    "centred_cosine",
    "head_gradient",
    "kronecker_product",
    "leading_factors",
    "logit_product",
    "reconstruct_record",
    "scale_to_constant",
    "second_moment",
    "softmax_hessian",
    "softmax_hessian_product",
    "with_constant",
]


class Factors(NamedTuple):
    """The leading singular pair of a matrix that should have rank one.

    Attributes:
        left: Unit vector ``[d]``.
        right: Unit vector ``[K]``; its sign goes with that of ``left``.
        values: Singular values in falling order. Exactly one of them is not 0 where the theory holds exactly.
    """

    left: Tensor
    right: Tensor
    values: Tensor

    @property
    def ratio(self) -> float:
        """Second singular value over the first, in [0, 1]: 0 for rank one, near 1 where nothing stands out."""
        return float(self.values[1] / self.values[0]) if len(self.values) > 1 else 0.0


def with_constant(features: Tensor) -> Tensor:
    """Append the constant coordinate: ``[m, F]`` to ``[m, F + 1]``, float64."""
    features = features.double()
    return torch.cat([features, features.new_ones(len(features), 1)], dim=1)


def second_moment(records: Tensor, size: int | None = None, regularisation: float = 0.0) -> Tensor:
    """The matrix of the ridge problem, estimated from m records: ``H = (n / m) sum_i x_i x_i^T + lambda I``.

    With the remaining training records themselves it is exact.

    Args:
        records: ``[m, d]``, the constant coordinate included.
        size: n, the number of training records it stands for; m where absent.
        regularisation: lambda of the summed squared error, which here also shrinks the constant's weights.

    Returns:
        ``[d, d]``, float64.

    Raises:
        InputError: There are no records.
    """
    records = _rows(records)
    matrix = (len(records) if size is None else size) / len(records) * records.T @ records
    return matrix + regularisation * torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)


def leading_factors(matrix: Tensor, reference: Tensor) -> Factors:
    """Leading singular pair of a matrix ``[d, K]``, turned so that ``left . reference > 0``.

    A singular vector has no sign of its own. The constant coordinate of a record is 1, and features behind a
    rectifier point the way of their mean: either of them is a ``reference`` ``[d]``.

    Raises:
        NotApplicable: The matrix is zero.
        RunError: The matrix is not finite.
    """
    matrix = matrix.double()
    if not bool(matrix.isfinite().all()):
        raise RunError("hrec: the estimated gradient is not finite; look at the models' training")
    if not bool(matrix.any()):
        raise NotApplicable("hrec: the estimated gradient is zero, so it has no direction")
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    sign = -1.0 if float(left[:, 0] @ reference.to(left)) < 0 else 1.0
    return Factors(sign * left[:, 0], sign * right[0], values)


def scale_to_constant(left: Tensor) -> Tensor:
    """A direction ``[d]`` whose last coordinate belongs to the constant 1: the record ``[d - 1]`` in its own scale.

    Raises:
        RunError: The constant coordinate is 0, so the scale cannot be read off.
    """
    if float(left[-1].abs()) <= 1e-12 * float(left.norm()):
        raise RunError("hrec: the recovered direction has no constant coordinate, so its scale is unknown")
    return left[:-1] / left[-1]


def reconstruct_record(original: Tensor, unlearned: Tensor, matrix: Tensor) -> tuple[Tensor, Factors]:
    """The record whose deletion took ridge regression from theta+ to theta-.

    Both are minimisers, of which only one has seen x with targets y, hence

        ``A (theta+ - theta-) = x (y - x^T theta+)^T``,  ``A = sum over the remaining x' of x' x'^T + lambda I``:

    a matrix of rank one, whose left singular vector is x up to scale. A public estimate of A tilts it.

    Args:
        original: theta+ ``[d, K]`` (``[d]`` for one output), the constant's row last.
        unlearned: theta-, of the same shape.
        matrix: A or an estimate of it ``[d, d]``, see :func:`second_moment`.

    Returns:
        The record ``[d - 1]`` without its constant, and the factors. ``right`` is proportional to the residual
        ``y - x^T theta+``; with one-hot targets its largest coordinate is the likely label.

    Raises:
        NotApplicable: Nothing changed.
        RunError: The scale is unknown, or a weight is not finite.
    """
    change = (original - unlearned).double().reshape(len(original), -1)
    constant = torch.zeros(len(change), dtype=change.dtype, device=change.device)
    constant[-1] = 1.0
    factors = leading_factors(matrix.to(change) @ change, constant)
    return scale_to_constant(factors.left), factors


def logit_product(features: Tensor, logits: Tensor, change: Tensor, size: int | None = None) -> Tensor:
    """How a change of the logits moves the gradient of a softmax head, to first order.

        ``(n / m) sum_i phi_i [(diag(p_i) - p_i p_i^T) dl_i]^T``

    Args:
        features: phi ``[m, d]``, the constant included where the head has a bias.
        logits: ``[m, K]`` of the model at which the curvature is taken; p is their softmax.
        change: dl ``[m, K]``. Adding one number to all logits of a record changes nothing.
        size: n; m where absent.

    Returns:
        ``[d, K]``, float64.
    """
    features, change = _rows(features), change.double()
    probabilities = logits.double().softmax(dim=1)
    moved = probabilities * (change - (probabilities * change).sum(dim=1, keepdim=True))
    return (len(features) if size is None else size) / len(features) * features.T @ moved


def softmax_hessian_product(
    features: Tensor, head: Tensor, direction: Tensor, size: int | None = None, regularisation: float = 0.0
) -> Tensor:
    """Hessian of the summed cross-entropy of a softmax head, times a direction; exact, without forming the Hessian.

        ``H V = (n / m) sum_i phi_i [(diag(p_i) - p_i p_i^T) V^T phi_i]^T + lambda V``

    Args:
        features: phi ``[m, d]`` of the public records, the constant included where the head has a bias.
        head: theta ``[d, K]``.
        direction: V ``[d, K]``.
        size: n, the number of training records that the public ones stand for; m where absent.
        regularisation: lambda of ``(lambda / 2) |theta|^2``: the weight decay times n.

    Returns:
        ``[d, K]``, float64.
    """
    features, direction = _rows(features), direction.double()
    product = logit_product(features, features @ head.to(features), features @ direction.to(features), size)
    return product + regularisation * direction.to(product)


def softmax_hessian(features: Tensor, head: Tensor, size: int | None = None, regularisation: float = 0.0) -> Tensor:
    """The same Hessian written out, ``[d K, d K]`` over ``theta.flatten()``; for small heads only.

    Args:
        features: phi ``[m, d]``.
        head: theta ``[d, K]``.
        size: n; m where absent.
        regularisation: lambda.
    """
    features = _rows(features)
    probabilities = (features @ head.to(features)).softmax(dim=1)
    spread = torch.diag_embed(probabilities) - probabilities[:, :, None] * probabilities[:, None, :]
    blocks = torch.einsum("ma,mb,mkl->akbl", features, features, spread)
    matrix = (len(features) if size is None else size) / len(features) * blocks.flatten(2).flatten(0, 1)
    return matrix + regularisation * torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)


def kronecker_product(
    features: Tensor, head: Tensor, direction: Tensor, size: int | None = None, regularisation: float = 0.0
) -> Tensor:
    """The Hessian taken for ``A (x) G``, times a direction: ``H V ~ A V G + lambda V``.

    A is the second moment of the features (512 x 512 for ResNet-18) and G the mean of ``diag(p) - p p^T`` (K x K).
    That features and predictions were independent is a strong assumption: it is exact where all records have the same
    prediction, and it loses which public records the model is unsure about.

    Args:
        features: phi ``[m, d]``.
        head: theta ``[d, K]``.
        direction: V ``[d, K]``.
        size: n; m where absent.
        regularisation: lambda.

    Returns:
        ``[d, K]``, float64.
    """
    features, direction = _rows(features), direction.double()
    probabilities = (features @ head.to(features)).softmax(dim=1)
    spread = torch.diag(probabilities.mean(dim=0)) - probabilities.T @ probabilities / len(features)
    direction = direction.to(features)
    return second_moment(features, size) @ direction @ spread + regularisation * direction


def head_gradient(features: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """Gradient of the summed cross-entropy at a softmax head: ``sum_i phi_i (p_i - e_{y_i})^T``.

    For one record it has rank one: the left singular vector is phi, and the right one is negative at the label alone.
    Both heads are minimisers, so deleting records whose gradient at theta+ is g leaves, to first order,

        ``g = -H (theta+ - theta-)``:

    what an attacker computes with a public estimate of H.

    Args:
        features: phi ``[m, d]``.
        logits: ``[m, K]``.
        labels: ``[m]``, int64.

    Returns:
        ``[d, K]``, float64.
    """
    residual = logits.double().softmax(dim=1)
    residual = residual - torch.nn.functional.one_hot(labels, residual.shape[1]).to(residual)
    return _rows(features).T @ residual


def centred_cosine(first: Tensor, second: Tensor, centre: Tensor) -> Tensor:
    """Cosine of vectors ``[..., d]`` after the centre ``[d]`` was taken off both, in [-1, 1].

    Images, and features behind a rectifier, all point roughly the same way, so that their raw cosine is high whatever
    they show: centred on the public mean, an uninformed guess is at 0.
    """
    return torch.nn.functional.cosine_similarity(first - centre, second - centre, dim=-1)


def _rows(records: Tensor) -> Tensor:
    if records.ndim != 2 or len(records) == 0:
        raise InputError(f"hrec: records must be a non-empty matrix [m, d], got shape {list(records.shape)}")
    return records.double()
