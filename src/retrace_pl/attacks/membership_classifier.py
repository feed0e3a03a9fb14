"""Classifiers that tell members from non-members, fitted by scikit-learn and kept as plain tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from retrace_pl.errors import InputError

__all__ = ["MembershipModel", "fit_membership", "membership_probability"]

MembershipModel = Literal["logistic_regression", "random_forest"]


def fit_membership(
    members: Tensor, others: Tensor, model: MembershipModel, *, inverse_regularisation: float, trees: int, seed: int
) -> dict[str, Tensor]:
    """Fit a classifier to two sets of features; both weigh the same, whatever their sizes.

    Args:
        members: Features ``[n, f]``.
        others: Features ``[m, f]``.
        model: ``logistic_regression`` on standardised features, or ``random_forest``.
        inverse_regularisation: scikit-learn's ``C`` of the logistic regression.
        trees: Number of trees of the random forest.
        seed: Seed of the forest.

    Returns:
        Plain tensors for :func:`membership_probability`; no estimator is kept, so nothing is ever unpickled.
    """
    if model not in get_args(MembershipModel):
        raise InputError(f"inference.classifier must be one of {', '.join(get_args(MembershipModel))}, got {model!r}")
    features = torch.cat([members, others]).double().numpy()
    labels = np.repeat([1, 0], [len(members), len(others)])
    if model == "random_forest":
        return _forest(features, labels, trees, seed)
    mean, scale = features.mean(0), features.std(0)
    scale[scale < 1e-12] = 1.0  # a feature that never varies says nothing and must not divide by zero
    fitted = LogisticRegression(C=inverse_regularisation, class_weight="balanced", max_iter=5000)
    fitted.fit((features - mean) / scale, labels)
    weights = {"mean": mean, "scale": scale, "weight": fitted.coef_[0], "bias": fitted.intercept_}
    return {name: torch.as_tensor(value, dtype=torch.float64).clone() for name, value in weights.items()}


def membership_probability(weights: Mapping[str, Tensor], features: Tensor) -> Tensor:
    """Probability of membership, ``[n]`` float64 on the CPU, for features ``[n, f]``.

    Args:
        weights: What :func:`fit_membership` returned, or a stored copy.
        features: Features of the kind that it was fitted to.

    Raises:
        InputError: The number of features is another one.
    """
    features = features.double().cpu()
    forest = "threshold" in weights
    expected = int(weights["features"]) if forest else len(weights["weight"])
    if features.ndim != 2 or features.shape[1] != expected:
        raise InputError(f"the membership classifier takes {expected} features, got shape {list(features.shape)}")
    if forest:
        return _forest_probability(weights, features)
    standardised = (features - weights["mean"]) / weights["scale"]
    return torch.sigmoid(standardised @ weights["weight"] + weights["bias"])


def _forest(features: NDArray[np.float64], labels: NDArray[np.int64], trees: int, seed: int) -> dict[str, Tensor]:
    fitted = RandomForestClassifier(trees, class_weight="balanced", random_state=seed % 2**32)
    fitted.fit(features, labels)
    parts = [estimator.tree_ for estimator in fitted.estimators_]
    starts = np.cumsum([0, *(part.node_count for part in parts[:-1])])
    # Nodes of all trees in one row; a leaf is its own child, so that walking on from it changes nothing.
    children: dict[str, list[NDArray[np.int64]]] = {"left": [], "right": []}
    for start, part in zip(starts, parts, strict=True):
        own = np.arange(part.node_count)
        for side, column in (("left", part.children_left), ("right", part.children_right)):
            children[side].append(start + np.where(column < 0, own, column))
    members = np.concatenate([part.value[:, 0, 1] / part.value[:, 0].sum(1) for part in parts])
    return {
        "roots": torch.as_tensor(starts, dtype=torch.int64),
        "left": torch.as_tensor(np.concatenate(children["left"]), dtype=torch.int64),
        "right": torch.as_tensor(np.concatenate(children["right"]), dtype=torch.int64),
        "feature": torch.as_tensor(np.concatenate([part.feature.clip(0) for part in parts]), dtype=torch.int64),
        "threshold": torch.as_tensor(np.concatenate([part.threshold for part in parts]), dtype=torch.float64),
        "member": torch.as_tensor(members, dtype=torch.float64),
        "depth": torch.tensor(max(part.max_depth for part in parts)),
        "features": torch.tensor(features.shape[1]),
    }


def _forest_probability(weights: Mapping[str, Tensor], features: Tensor) -> Tensor:
    features = features.float().double()  # scikit-learn compares features in single precision
    nodes = weights["roots"].expand(len(features), -1)
    for _ in range(int(weights["depth"])):
        goes_left = features.gather(1, weights["feature"][nodes]) <= weights["threshold"][nodes]
        nodes = torch.where(goes_left, weights["left"][nodes], weights["right"][nodes])
    return weights["member"][nodes].mean(1)
