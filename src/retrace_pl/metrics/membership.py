"""Membership inference as one number: how well a score tells members from non-members."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from retrace_pl.errors import InputError

Scores = Tensor | NDArray[np.floating[Any]] | Sequence[float]


def membership_auc(member_scores: Scores, nonmember_scores: Scores) -> float:
    """Area under the ROC curve of a membership score, with ties counted as one half.

    ``P(m > u) + P(m = u) / 2`` for a random member m and non-member u (the Mann-Whitney statistic). Without the tie
    term a model whose confidences are all equal would seem to have forgotten; here such scores give exactly 0.5.

    Args:
        member_scores: Higher means "more likely a member", shape [n].
        nonmember_scores: Shape [m].

    Returns:
        In [0, 1]; 0.5 is no information. NaN as soon as a score is NaN: a broken model has no membership AUC.

    Raises:
        InputError: Where either side is empty.
    """
    members = torch.as_tensor(member_scores).detach().flatten().double()
    others = torch.as_tensor(nonmember_scores).detach().flatten().double()
    if members.numel() == 0 or others.numel() == 0:
        raise InputError(
            f"a membership AUC needs members and non-members, got {members.numel()} and {others.numel()} scores"
        )
    if bool(members.isnan().any()) or bool(others.isnan().any()):
        return float("nan")
    ordered = others.sort().values
    below = torch.searchsorted(ordered, members, right=False)
    not_above = torch.searchsorted(ordered, members, right=True)
    wins_and_half_ties = (below + not_above).sum().double() / 2
    return float(wins_and_half_ties / (members.numel() * others.numel()))


def tpr_at_fpr(member_scores: Scores, nonmember_scores: Scores, max_fpr: float = 0.01) -> float:
    """Largest share of members above a threshold that at most ``max_fpr`` of the non-members exceed.

    The measure of Carlini et al., "Membership inference attacks from first principles" (S&P 2022): how many members
    an attack names while it hardly ever errs. With fewer than ``1 / max_fpr`` non-members, none may exceed it.

    Args:
        member_scores: Higher means "more likely a member", shape [n].
        nonmember_scores: Shape [m].
        max_fpr: Share of non-members, in [0, 1].

    Returns:
        In [0, 1]. NaN as soon as a score is NaN.

    Raises:
        InputError: Where either side is empty or `max_fpr` is out of range.
    """
    members = torch.as_tensor(member_scores).detach().flatten().double()
    others = torch.as_tensor(nonmember_scores).detach().flatten().double()
    if members.numel() == 0 or others.numel() == 0 or not 0 <= max_fpr <= 1:
        raise InputError(
            f"a true-positive rate needs members, non-members and max_fpr in [0, 1], got {members.numel()} and"
            f" {others.numel()} scores and max_fpr={max_fpr}"
        )
    if bool(members.isnan().any()) or bool(others.isnan().any()):
        return float("nan")
    allowed = int(max_fpr * others.numel() + 1e-9)
    if allowed >= others.numel():
        return 1.0
    threshold = others.sort(descending=True).values[allowed]  # scores above it: at most `allowed` non-members
    return float((members > threshold).double().mean())


class MembershipAUC(Metric):
    """Tie-corrected area under the ROC curve of a membership score.

    Definition, range and handling of NaN: `membership_auc`. 0.5 is no information; a value well below 0.5 is as
    informative as one above. Members of an audit are the deleted records, non-members unseen records of the same
    classes, the score is the largest softmax probability.

    Args:
        kwargs: Passed on to `torchmetrics.Metric`.
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False
    members: list[Tensor]
    nonmembers: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("members", [], dist_reduce_fx="cat")
        self.add_state("nonmembers", [], dist_reduce_fx="cat")

    def update(self, scores: Tensor, member: Tensor) -> None:
        """Add scores of shape [n] and booleans of shape [n] that say which belong to members."""
        member = member.bool()
        self.members.append(scores.detach()[member])
        self.nonmembers.append(scores.detach()[~member])

    def compute(self) -> Tensor:
        """float64 scalar.

        Raises:
            InputError: Where no member or no non-member was seen.
        """
        members, others = dim_zero_cat(self.members), dim_zero_cat(self.nonmembers)
        return torch.tensor(membership_auc(members, others), dtype=torch.float64, device=members.device)
