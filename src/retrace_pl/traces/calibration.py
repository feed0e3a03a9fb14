"""Calibration: do the signals, on data whose answer is known, rise where they should?"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score, roc_curve

from retrace_pl.traces.access import SIGNALS
from retrace_pl.traces.scorer import TraceDeltas, TraceScorer

__all__ = ["Calibration", "calibrate"]


@dataclass(frozen=True)
class Calibration:
    """How well a scorer separates inputs that resemble the deleted data from others.

    Attributes:
        auroc: Area under the ROC curve, ties counted half, in [0, 1]: per signal that the access level allows (raw
            differences) and, as `score`, of the score with its sign. 0.5 is chance.
        tpr_at_1pct_fpr: Share of positives whose score exceeds that of all but at most 1 % of the negatives.
        tpr_by_signal: The same for each signal.
        tiny_gradient_fraction: Share of inputs for which either model's input gradient is shorter than 1e-8, where
            the gradient signal says little; None without white-box access.
        positives: Number of inputs that resemble the deleted data.
        negatives: Number of other inputs.
    """

    auroc: dict[str, float]
    tpr_at_1pct_fpr: float
    tpr_by_signal: dict[str, float]
    tiny_gradient_fraction: float | None
    positives: int
    negatives: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain types for JSON; signals above the access level are None."""
        return {
            "auroc": {name: self.auroc.get(name) for name in (*SIGNALS, "score")},
            "tpr_at_1pct_fpr": self.tpr_at_1pct_fpr,
            "tpr_by_signal": {name: self.tpr_by_signal.get(name) for name in SIGNALS},
            "tiny_gradient_fraction": self.tiny_gradient_fraction,
            "positives": self.positives,
            "negatives": self.negatives,
        }


def calibrate(scorer: TraceScorer, positives: Any, negatives: Any) -> Calibration:
    """Measure how well a fitted scorer separates two sets of inputs.

    All signals that the access level allows are measured, also those of weight zero. Both sets are normalised
    together, so that normalisers which work within the batch put them on one scale.

    Args:
        scorer: Scorer that was fitted.
        positives: Inputs that resemble the deleted data; at least one.
        negatives: Inputs that do not; at least one.

    Raises:
        InputError: A set is empty.
        RunError: The scorer was not fitted, or a model's output is not finite.

    Warns:
        UserWarning: `sign` is `paper_literal` and the score's AUROC is below 0.5: the search would be led away from
            the deleted data.
    """
    signals = scorer.pair.access.signals
    first, second = scorer.deltas(positives, signals), scorer.deltas(negatives, signals)
    both = TraceDeltas(
        *(None if a is None or b is None else torch.cat((a, b)) for a, b in zip(first, second, strict=True))
    )
    values = {**both.named(), "score": scorer.combine(both)}
    count = len(values["score"])
    n_positives = len(next(iter(first.named().values())))
    truth = np.zeros(count, dtype=np.int64)
    truth[:n_positives] = 1
    arrays = {name: value.detach().cpu().numpy() for name, value in values.items()}
    auroc = {name: float(roc_auc_score(truth, array)) for name, array in arrays.items()}
    if scorer.sign == "paper_literal" and auroc["score"] < 0.5:
        warnings.warn(
            "sign: paper_literal scores inputs like the deleted data lower than others (score AUROC"
            f" {auroc['score']:.3f}); use sign=positive",
            UserWarning,
            stacklevel=2,
        )
    tiny = both.tiny_gradient
    return Calibration(
        auroc=auroc,
        tpr_at_1pct_fpr=_tpr_at(truth, arrays["score"], 0.01),
        tpr_by_signal={name: _tpr_at(truth, array, 0.01) for name, array in arrays.items() if name != "score"},
        tiny_gradient_fraction=None if tiny is None else float(tiny.float().mean()),
        positives=n_positives,
        negatives=count - n_positives,
    )


def _tpr_at(truth: NDArray[np.int64], score: NDArray[Any], max_fpr: float) -> float:
    """Return the largest true-positive rate of a threshold whose false-positive rate is at most `max_fpr`."""
    fpr, tpr, _ = roc_curve(truth, score, drop_intermediate=False)
    return float(tpr[fpr <= max_fpr].max())
