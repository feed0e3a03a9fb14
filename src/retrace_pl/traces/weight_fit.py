"""Signal weights learnt from an unlearning whose truth is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from retrace_pl.errors import InputError, RunError
from retrace_pl.traces.access import SIGNALS
from retrace_pl.traces.scorer import TraceScorer, TraceWeights

__all__ = ["FittedWeights", "fit_weights"]

_RIDGE = 1e-3
"""Weight of the squared weights in the loss. Signals that separate the two kinds without error have no finite maximum
likelihood; the ridge picks the balanced solution among the perfect ones."""


@dataclass(frozen=True)
class FittedWeights:
    """Weights of the signals and how they were found.

    Args:
        weights: The weights, scaled to sum to one over the signals that the access level allows; the others are 0.
        coefficients: Signal -> coefficient of the logistic regression, 0 or more.
        auroc: Signal -> area under the ROC curve of that signal alone on the shadow records.
        positives: Deleted shadow records.
        negatives: Others.
    """

    weights: TraceWeights
    coefficients: dict[str, float]
    auroc: dict[str, float]
    positives: int
    negatives: int

    def as_dict(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return {
            "weights": {name: getattr(self.weights, name) for name in SIGNALS},
            "coefficients": self.coefficients,
            "auroc": self.auroc,
            "positives": self.positives,
            "negatives": self.negatives,
        }


def fit_weights(scorer: TraceScorer, positives: Any, negatives: Any) -> FittedWeights:
    """Fits the weights by logistic regression of "was it deleted?" on the normalised signals, none of them negative.

    Minimises the mean logistic loss, positives and negatives counting as much as a whole, plus a small ridge on the
    weights (not on the intercept). The weights of a score only matter up to a factor, so they are scaled to sum to one.
    A weight below 0 would let a *small* gap speak for a deletion, which no reading of the trace supports.

    Args:
        scorer: Scorer of the shadow pair, fitted; its own weights play no part.
        positives: Shadow records of the deleted kind.
        negatives: Shadow records of the retained kind.

    Raises:
        InputError: A set is empty.
        RunError: The scorer was not fitted, or no signal rises on the deleted records, so there is nothing to weigh.
    """
    if scorer.sign != "positive":
        raise InputError("traces.fit_weights: weights are fitted for sign=positive; drop sign or fit_weights")
    signals = scorer.pair.access.signals
    sides = [scorer.deltas(side, signals).named() for side in (positives, negatives)]
    sizes = [len(side[signals[0]]) for side in sides]
    if not scorer.normaliser.fitted(signals):
        raise RunError("traces.fit_weights: the normaliser has no reference; call fit(public_inputs) first")
    columns = [
        scorer.normaliser(signal, torch.cat([side[signal] for side in sides])).detach().cpu().double().numpy()
        for signal in signals
    ]
    features: NDArray[np.float64] = np.stack(columns, axis=1)
    truth = np.repeat([1.0, 0.0], sizes)
    coefficients = _regress(features, truth, np.repeat([0.5 / sizes[0], 0.5 / sizes[1]], sizes))
    total = float(coefficients.sum())
    if total <= 0.0:
        raise RunError(
            "traces.fit_weights: on the shadow unlearning no signal is higher for deleted records than for others, so "
            "there is nothing to fit; set traces.weights instead"
        )
    found = dict(zip(signals, coefficients.tolist(), strict=True))
    return FittedWeights(
        TraceWeights(**{name: found.get(name, 0.0) / total for name in SIGNALS}),
        found,
        {name: _auroc(features[:, index], sizes[0]) for index, name in enumerate(signals)},
        *sizes,
    )


def _regress(
    features: NDArray[np.float64], truth: NDArray[np.float64], mass: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Coefficients [signals] >= 0 of a weighted logistic regression with an intercept."""

    def loss(values: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        logits = features @ values[:-1] + values[-1]
        value = float(mass @ (np.logaddexp(0.0, logits) - truth * logits)) + 0.5 * _RIDGE * float(
            values[:-1] @ values[:-1]
        )
        residual = mass * (expit(logits) - truth)
        gradient = np.append(features.T @ residual + _RIDGE * values[:-1], residual.sum())
        return value, gradient

    count = features.shape[1]
    bounds = [(0.0, None)] * count + [(None, None)]
    result = minimize(loss, np.zeros(count + 1), jac=True, method="L-BFGS-B", bounds=bounds)
    coefficients: NDArray[np.float64] = np.asarray(result.x[:-1], dtype=np.float64)
    return coefficients


def _auroc(values: NDArray[np.float64], positives: int) -> float:
    """Share of (positive, negative) pairs in the right order, ties counted half."""
    ours, theirs = values[:positives], np.sort(values[positives:])
    below = np.searchsorted(theirs, ours, side="left") + np.searchsorted(theirs, ours, side="right")
    return float(below.mean() / (2 * len(theirs)))
