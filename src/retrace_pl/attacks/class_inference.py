"""Class inference: which class was deleted?"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch

from retrace_pl.attacks.base import AttackContext, Finding, InferenceAttack, NotApplicable, Truth
from retrace_pl.envs import random_stream
from retrace_pl.errors import InputError
from retrace_pl.traces import ClassEvidence, ModelPair, class_evidence, pair_probabilities

__all__ = ["ClassInference", "infer_classes"]


class ClassInference(InferenceAttack):
    """The deleted class is the one that f- no longer sees where f+ did, in public inputs. Black-box, no generator.

    Often the first thing that leaks. For every class the share of its probability that was lost between f+ and f-,
    weighted by how much f+ saw of it (``class_evidence``); the highest is the answer, and several classes where a
    clear margin separates them from the others. Works where the public set lacks the deleted class: f+ sees a little
    of it in similar inputs, and exactly that is gone. A class that f+ recognises in no public input is reported as
    unknown. Classifiers only.

    One query per public input; where the budget is smaller than the public set, a random subset is asked.

    Args:
        batch_size: Inputs per forward pass.
    """

    name: ClassVar[str] = "class_inference"

    def __init__(self, batch_size: int = 512) -> None:
        if batch_size < 1:
            raise InputError(f"inference.batch_size must be at least 1, got {batch_size}")
        self.batch_size = batch_size

    def infer(self, context: AttackContext) -> Finding:
        """Name the deleted classes, with the evidence for every class.

        Returns:
            ``answer``: ``deleted_classes``, ``clear`` (a margin sets them apart; otherwise one class is named as the
            best guess), ``lost`` (least share that one of them lost), ``margin`` (see ``ClassEvidence``), and
            ``per_class``, lists with one entry per class: ``lost``, ``mean_trace`` (None where there is no input),
            ``counts`` and ``peak``, besides the ``ranking`` and the ``unknown`` classes.

        Raises:
            NotApplicable: There are no public inputs, or the models are no classifiers.
        """
        if context.pair is None:
            raise InputError("inference: ClassInference needs a model pair; the context has none")
        if context.public is None or len(context.public) == 0:
            raise NotApplicable("class inference looks at public inputs, and there are none")
        order = torch.randperm(len(context.public), generator=random_stream(context.seed, "class_inference"))
        asked = order[: context.budget].sort().values
        public = context.public[asked.to(context.public.device)]
        probabilities = pair_probabilities(context.pair, public, self.batch_size)
        if probabilities.original.ndim != 2:
            raise NotApplicable("class inference needs models that return one vector of class probabilities per input")
        evidence = class_evidence(*probabilities)
        return Finding(answer=_answer(evidence), queries=len(asked))

    def judge(self, finding: Finding, pair: ModelPair, truth: Truth) -> dict[str, Any]:
        """Compare the named classes with the deleted ones, as sets.

        Returns:
            ``correct``; where single records were deleted, the right answer is that no class stands out. ``true_rank``:
            worst place of a deleted class in the ranking, 1 the first, so k is the best possible for k classes; None
            where one of them is unknown or no class was deleted as a whole.
        """
        named = set(finding.answer["deleted_classes"])
        if not truth.deleted_classes:
            return {"correct": not finding.answer["clear"], "true_rank": None}
        ranking = finding.answer["per_class"]["ranking"]
        known = all(label in ranking for label in truth.deleted_classes)
        return {
            "correct": named == set(truth.deleted_classes),
            "true_rank": max(ranking.index(label) + 1 for label in truth.deleted_classes) if known else None,
        }


def infer_classes(context: AttackContext, attack: str) -> tuple[list[int], dict[str, Any], int]:
    """The classes that an attack should aim at, as `ClassInference` names them.

    Args:
        context: Its budget is what the inference may use.
        attack: Name of the attack, for the message.

    Returns:
        At least one class, facts about the inference, and the queries it used.

    Raises:
        NotApplicable: The inference does not apply, or f+ sees no class in any public input.
    """
    finding = ClassInference().infer(context)
    classes = [int(label) for label in finding.answer["deleted_classes"]]
    if not classes:
        raise NotApplicable(f"no class can be inferred from the public inputs; name it in {attack}.label")
    return classes, {name: finding.answer[name] for name in ("clear", "lost", "margin")}, finding.queries


def _answer(evidence: ClassEvidence) -> dict[str, Any]:
    return {
        "deleted_classes": list(evidence.deleted),
        "clear": evidence.clear,
        "lost": min((float(evidence.lost[label]) for label in evidence.deleted), default=0.0),
        "margin": _finite(evidence.margin),
        "per_class": {
            "lost": [_finite(value) for value in evidence.lost.tolist()],
            "mean_trace": [_finite(value) for value in evidence.mean_trace.tolist()],
            "counts": evidence.counts.tolist(),
            "peak": evidence.peak.tolist(),
            "ranking": list(evidence.ranking),
            "unknown": list(evidence.unknown),
        },
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
