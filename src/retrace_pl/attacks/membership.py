"""Unlearning leaks: was this record a member before it was unlearned?"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from retrace_pl.attacks.base import AttackContext, Finding, InferenceAttack, NotApplicable, Shadow, Truth
from retrace_pl.attacks.membership_classifier import MembershipModel, fit_membership, membership_probability
from retrace_pl.errors import InputError
from retrace_pl.metrics import membership_auc, tpr_at_fpr
from retrace_pl.traces import ModelPair, delta_prediction, pair_probabilities

__all__ = ["Features", "UnlearningLeaks", "pair_features"]

Features = Literal["concatenation", "difference", "distance"]
_FEWEST = 2


class UnlearningLeaks(InferenceAttack):
    """Membership inference from two versions of a model: deleted records against records that neither version saw.

    Source: Chen et al., "When Machine Unlearning Jeopardizes Privacy" (CCS 2021). A classifier is trained on an
    unlearning of the attacker's own (the shadow pair), where members are known, and applied to the audited pair. It
    sees p+(x) and p-(x) and nothing else: black-box. It runs on records, so it needs no generator, and it asks the
    audited pair nothing before it is judged: no query of the budget is used.

    A deletion can be invisible here and still leak its class: deleted and unseen records of one class differ only if
    f+ had memorised the deleted ones. An AUROC near 0.5 says that single records cannot be told, no more.

    Args:
        features: ``concatenation`` of p+ and p-, their ``difference``, or the L2 ``distance`` alone. The paper advises
            concatenation where f+ overfits and the difference or the distance where it generalises well.
        sort: Reorder the classes of every record by falling p+, in both vectors alike (the paper's sorted features).
            Needed where the shadow deletes another class than the audited unlearning. The distance is the same.
        classifier: ``logistic_regression`` or ``random_forest``; either is stored as tensors.
        inverse_regularisation: scikit-learn's ``C`` of the logistic regression; smaller is smoother.
        trees: Number of trees of the random forest.
        batch_size: Records per forward pass.
    """

    name: ClassVar[str] = "unlearning_leaks"
    needs_shadow: ClassVar[bool] = True

    def __init__(
        self,
        features: Features = "concatenation",
        sort: bool = True,
        classifier: MembershipModel = "logistic_regression",
        inverse_regularisation: float = 1.0,
        trees: int = 100,
        batch_size: int = 512,
    ) -> None:
        if features not in get_args(Features):
            raise InputError(f"inference.features must be one of {', '.join(get_args(Features))}, got {features!r}")
        if classifier not in get_args(MembershipModel):
            known = ", ".join(get_args(MembershipModel))
            raise InputError(f"inference.classifier must be one of {known}, got {classifier!r}")
        if inverse_regularisation <= 0 or trees < 1 or batch_size < 1:
            raise InputError(
                "inference: inverse_regularisation must be positive, trees and batch_size must be at least 1"
            )
        self.features: Features = features
        self.sort = sort
        self.classifier: MembershipModel = classifier
        self.inverse_regularisation = inverse_regularisation
        self.trees = trees
        self.batch_size = batch_size

    def infer(self, context: AttackContext) -> Finding:
        """Fit the classifier to the shadow pair's deleted and unseen records.

        Returns:
            ``answer`` describes the training: the features, the classifier, how many records of either kind, and how
            well it tells them apart (``shadow_auroc``, on the records it was trained on); ``tensors`` are its weights.

        Raises:
            NotApplicable: There is no shadow pair, it has too few records, or its models are no classifiers.
        """
        shadow = context.shadow
        if shadow is None:
            raise NotApplicable(
                "membership inference learns from a shadow unlearning, which needs public records of its own; this"
                " audit has none"
            )
        members, others = self._shadow_features(shadow)
        weights = fit_membership(
            members,
            others,
            self.classifier,
            inverse_regularisation=self.inverse_regularisation,
            trees=self.trees,
            seed=context.seed,
        )
        scores = membership_probability(weights, members), membership_probability(weights, others)
        answer = {
            "features": f"sorted {self.features}" if self.sort and self.features != "distance" else self.features,
            "classifier": self.classifier.replace("_", " "),
            "shadow_deleted": len(members),
            "shadow_unseen": len(others),
            "shadow_auroc": membership_auc(*scores),
        }
        return Finding(answer=answer, queries=0, tensors=weights)

    def _shadow_features(self, shadow: Shadow) -> tuple[Tensor, Tensor]:
        counts = len(shadow.deleted), len(shadow.unseen)
        if min(counts) < _FEWEST:
            raise NotApplicable(
                f"the shadow unlearning has {counts[0]} deleted and {counts[1]} unseen records of the deleted kind; a"
                f" classifier needs at least {_FEWEST} of either"
            )
        return self._of(shadow.pair, shadow.deleted), self._of(shadow.pair, shadow.unseen)

    def _of(self, pair: ModelPair, inputs: Tensor) -> Tensor:
        probabilities = pair_probabilities(pair, inputs, self.batch_size)
        if probabilities.original.ndim != 2:
            raise NotApplicable("membership inference needs models that return one vector of class probabilities each")
        return pair_features(*probabilities, self.features, self.sort)

    def judge(self, finding: Finding, pair: ModelPair, truth: Truth) -> dict[str, Any]:
        """Apply the stored classifier to the deleted records and to unseen ones of the same classes.

        Returns:
            ``auroc`` and ``tpr_at_1pct_fpr`` of its probability, ``balanced_accuracy`` at probability 1/2, all with
            the deleted records as positives; ``auroc_before`` is that of f+'s highest probability alone, what could be
            told without the unlearning; and the numbers of records.

        Raises:
            NotApplicable: There are no unseen records to compare with.
        """
        if len(truth.deleted) == 0 or len(truth.unseen) == 0:
            raise NotApplicable("membership cannot be judged: there are no unseen records of the deleted kind")
        deleted, unseen = (
            membership_probability(finding.tensors, self._of(pair, inputs)) for inputs in (truth.deleted, truth.unseen)
        )
        before = (
            pair_probabilities(pair, inputs, self.batch_size).original.amax(1)
            for inputs in (truth.deleted, truth.unseen)
        )
        return {
            "auroc": membership_auc(deleted, unseen),
            "auroc_before": membership_auc(*before),
            "tpr_at_1pct_fpr": tpr_at_fpr(deleted, unseen, 0.01),
            "balanced_accuracy": float((deleted > 0.5).double().mean() + (unseen <= 0.5).double().mean()) / 2,
            "deleted": len(deleted),
            "unseen": len(unseen),
        }


def pair_features(original: Tensor, unlearned: Tensor, features: Features, sort: bool = True) -> Tensor:
    """Features of Chen et al. (CCS 2021) from both models' probabilities.

    Args:
        original: p+, ``[n, K]``.
        unlearned: p-, ``[n, K]``.
        features: Kind of features.
        sort: Reorder the classes of every record by falling p+.

    Returns:
        float64, ``[n, 2K]`` for ``concatenation``, ``[n, K]`` for ``difference``, ``[n, 1]`` for ``distance``.
    """
    original, unlearned = original.double(), unlearned.double()
    if sort:
        order = original.argsort(dim=1, descending=True, stable=True)
        original, unlearned = original.gather(1, order), unlearned.gather(1, order)
    if features == "concatenation":
        return torch.cat([original, unlearned], dim=1)
    if features == "difference":
        return original - unlearned
    return delta_prediction(original, unlearned)[:, None]
