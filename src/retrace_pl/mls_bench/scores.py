"""The benchmark's numbers: as published, tie-corrected, two-sided, and whether a run may be ranked at all."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from retrace_pl.data import LabelledTensors
from retrace_pl.metrics import membership_auc

NOT_FINITE = "not finite"
COLLAPSED = "retain accuracy collapsed"
NOT_FORGOTTEN = "nothing forgotten"
UNKNOWN_CLASS = "nothing to forget"
UNTRAINED = "original at chance"


def positional_auc(order: NDArray[np.integer[Any]], members: int) -> float:
    """The rank-sum AUC as the benchmark computes it: the rank of a score is its position in the sorted list.

    `(R - n (n + 1) / 2) / (n m)` with R the sum of the members' positions, counted from 1. Equal scores get different
    ranks, in whatever order the sort happened to leave them; a correct rank sum gives them the mean of their ranks.

    Args:
        order: What argsort returned for `[members, non-members]`, `[n + m]`.
        members: Number n of members, at least 1 and fewer than all.

    Returns:
        In [0, 1].
    """
    others = len(order) - members
    ranks = np.empty(len(order), dtype=np.float64)
    ranks[order] = np.arange(1, len(order) + 1)
    return float((ranks[:members].sum() - members * (members + 1) / 2) / (members * others))


def mls_bench_auc(member_scores: NDArray[Any], nonmember_scores: NDArray[Any]) -> float:
    """The published membership AUC, defect included; use it for nothing but comparison with published numbers.

    Equal scores are ranked by position (see `positional_auc`). With every confidence equal the published value is
    decided by numpy's default argsort alone: 0.3635 for 500 members and 100 non-members, 0.0382 for 6000 and 1000,
    which are the published negative_gradient rows. numpy 1.26, 2.0 and 2.2 give that order on processors with AVX-512;
    numpy 2.4 leaves equal scores in place (0.0), and without vector instructions they end up in yet another order. NaN
    scores give 0.6974 for 6000 and 1000 in all of these. Where no two scores are equal, the value is the ordinary AUC
    everywhere.

    Args:
        member_scores: `[n]`.
        nonmember_scores: `[m]`.

    Returns:
        In [0, 1], also for NaN scores.
    """
    scores = np.concatenate([np.asarray(member_scores), np.asarray(nonmember_scores)])
    return positional_auc(np.argsort(scores), len(member_scores))


def unlearn_score(retain_acc: float, forget_acc: float, auc: float) -> float:
    """The published score: mean of retained accuracy, forgotten accuracy and 1 - AUC. It rewards an AUC below 0.5."""
    return (retain_acc + (1 - forget_acc) + (1 - auc)) / 3


def mia_leakage(auc: float) -> float:
    """`2 |AUC - 0.5|`: how far from guessing an attacker gets who may also bet on the lower confidence, in [0, 1]."""
    return 2 * abs(auc - 0.5)


def two_sided_score(retain_acc: float, forget_acc: float, auc: float) -> float:
    """The published score with `1 - mia_leakage` in the place of 1 - AUC, so that 0.5 is the best AUC."""
    return (retain_acc + (1 - forget_acc) + (1 - mia_leakage(auc))) / 3


@dataclass(frozen=True)
class Measured:
    """What the benchmark measures of one model; NaN where the model's outputs are not finite.

    Args:
        retain_acc: Accuracy on the test images of the other classes, in [0, 1].
        forget_acc: Accuracy on the test images of the class to forget, in [0, 1].
        forget_mia_auc: Tie-corrected AUC of the largest softmax probability; members are the class's training images,
            non-members its test images.
        mls_bench_auc: The same as the benchmark computes it, from single precision and without tie correction.
        finite: Whether all outputs are finite.
    """

    retain_acc: float
    forget_acc: float
    forget_mia_auc: float
    mls_bench_auc: float
    finite: bool

    def as_dict(self) -> dict[str, float]:
        """The three published metrics, tie-corrected."""
        return {name: asdict(self)[name] for name in ("retain_acc", "forget_acc", "forget_mia_auc")}


@torch.no_grad()
def measure(
    model: nn.Module,
    test: LabelledTensors,
    members: LabelledTensors,
    forget_class: int,
    *,
    device: torch.device | str = "cpu",
    batch_size: int = 512,
) -> Measured:
    """Measures a model in eval mode; it is moved to the device and stays there, on a CPU in channels-last layout.

    Args:
        model: Returns logits `[n, K]`.
        test: The test images.
        members: The training images of the class to forget.
        forget_class: Its index.
        device: Where to compute.
        batch_size: Images per forward pass.

    Returns:
        The metrics.
    """
    model.to(device).eval()
    if torch.device(device).type == "cpu":
        model.to(memory_format=torch.channels_last)  # faster depthwise convolutions
    logits = _logits(model, test, device, batch_size)
    member_logits = _logits(model, members, device, batch_size)
    of_class = test.labels == forget_class
    right = (logits.argmax(1) == test.labels).double()
    others = logits[of_class]
    finite = bool(logits.isfinite().all()) and bool(member_logits.isfinite().all())
    nan = float("nan")
    return Measured(
        retain_acc=float(right[~of_class].mean()) if finite else nan,
        forget_acc=float(right[of_class].mean()) if finite else nan,
        forget_mia_auc=membership_auc(_confidence(member_logits.double()), _confidence(others.double())),
        mls_bench_auc=mls_bench_auc(_confidence(member_logits).numpy(), _confidence(others).numpy()),
        finite=finite,
    )


def _logits(model: nn.Module, records: LabelledTensors, device: torch.device | str, batch_size: int) -> Tensor:
    parts = [
        model(records.subset(positions).inputs.to(device)).float().cpu()
        for positions in torch.split(torch.arange(len(records)), batch_size)
    ]
    return torch.cat(parts)


def _confidence(logits: Tensor) -> Tensor:
    return logits.softmax(1).amax(1)


@dataclass(frozen=True)
class Validity:
    """When a run is shown but not ranked.

    Args:
        min_retain: Smallest retained accuracy as a share of the original model's, in [0, 1].
        max_forget: Accuracy on the forgotten class, as a share of the original model's, from which on nothing counts
            as forgotten, in [0, 1].
    """

    min_retain: float = 0.5
    max_forget: float = 0.5

    def problems(self, model: Measured | None, original: Measured, num_classes: int) -> list[str]:
        """What is wrong with a run.

        Args:
            model: The model that has unlearnt; None if the run diverged.
            original: f+.
            num_classes: Number of classes; an f+ that knows the class no better than chance has nothing to forget, and
                one that knows the others less than twice as well as chance nothing to retain. A model that tells the
                retained classes apart no better than chance has collapsed, whatever the original could.

        Returns:
            Names of the problems; none for a valid run.
        """
        if model is None or not model.finite:
            return [NOT_FINITE]
        found = []
        if original.retain_acc < 2 / num_classes:
            found.append(UNTRAINED)
        always_one_class = 1 / (num_classes - 1)
        if model.retain_acc < self.min_retain * original.retain_acc or model.retain_acc <= always_one_class:
            found.append(COLLAPSED)
        if not original.forget_acc > 1 / num_classes:
            found.append(UNKNOWN_CLASS)
        elif model.forget_acc >= self.max_forget * original.forget_acc:
            found.append(NOT_FORGOTTEN)
        return found


def score_fields(model: Measured | None) -> dict[str, Any]:
    """The metrics and scores of a result; NaN throughout where there is no model to measure."""
    nan = math.nan
    shown = model or Measured(nan, nan, nan, nan, finite=False)
    accuracies = (shown.retain_acc, shown.forget_acc)
    compatible = {
        "forget_mia_auc": shown.mls_bench_auc,
        "unlearn_score": unlearn_score(*accuracies, shown.mls_bench_auc),
    }
    return {
        **shown.as_dict(),
        "unlearn_score": unlearn_score(*accuracies, shown.forget_mia_auc),
        "mls_bench_compatible": compatible,
        "two_sided_score": two_sided_score(*accuracies, shown.forget_mia_auc),
        "mia_leakage": mia_leakage(shown.forget_mia_auc),
    }
