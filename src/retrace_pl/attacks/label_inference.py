"""Label inference: the class that a model has unlearned, from inputs it used to be certain about."""

from __future__ import annotations

from typing import Any, ClassVar, get_args

import torch
from torch import Tensor

from retrace_pl.attacks.base import AttackContext, Finding, InferenceAttack, NotApplicable, Truth
from retrace_pl.attacks.inputs import Box, check_box, classifier_pair
from retrace_pl.attacks.probe_starts import ProbeStarts, Start
from retrace_pl.attacks.probes import Climber, CoordinateAdam, Probes, SignedAscent, climb
from retrace_pl.envs import random_stream
from retrace_pl.errors import InputError
from retrace_pl.traces import ModelPair

__all__ = ["LabelInference"]


class LabelInference(InferenceAttack):
    """Infers the unlearned class: the one whose certain inputs f- is least certain of any more.

    ``Delta_c = mean over the probes of class c of p-_c(x) - p+_c(x)``, and the inferred class has the smallest one.
    Source: Hu et al., "Learn What You Want to Unlearn" (IEEE S&P 2024, arXiv 2404.03233), label inference. Classifiers
    only. White-box access ascends input gradients of f+; below that, coordinates are estimated from probabilities.

    An evaluation of a probe, by one model or by both, is one query. Where the budget does not bring a class to the
    asked-for confidence, its most confident inputs are used. Their Delta is not comparable with the others', since less
    certain predictions move more easily; the answer then says ``confident: false``, and ``reached`` counts by class.

    Args:
        confidence: Probability under f+ at which a probe is good, in (0, 1).
        probes: Probes to find for every class, at most.
        used: How many of them, the most confident, enter Delta.
        start: Where the ascents begin. ``public``: public inputs that f+ assigns to other classes, the nearest first;
            so all classes are treated alike, whether or not public data shows them. ``noise``: N(0, 1), moved into the
            box.
        steps: Most steps of one ascent.
        lr: Step size of an ascent in white-box access, in the inputs' units.
        black_lr: The same where slopes are estimated.
        coordinates: Coordinates estimated in one step, at two queries each; all of them where there are fewer.
        block: Side of the squares of pixels that make up one coordinate of an image.
        difference: h of the symmetric differences.
        box: Bounds of the inputs; None for none.

    Raises:
        InputError: A setting is out of range.
    """

    name: ClassVar[str] = "label_inference"

    def __init__(
        self,
        confidence: float = 0.9995,
        probes: int = 20,
        used: int = 10,
        start: Start = "public",
        steps: int = 60,
        lr: float = 0.05,
        black_lr: float = 0.1,
        coordinates: int = 64,
        block: int = 2,
        difference: float = 1e-4,
        box: Box = (0.0, 1.0),
    ) -> None:
        if not 0 < confidence < 1:
            raise InputError(f"label_inference.confidence must lie in (0, 1), got {confidence}")
        counts = (("probes", probes), ("used", used), ("steps", steps), ("coordinates", coordinates), ("block", block))
        for setting, count in counts:
            if count < 1:
                raise InputError(f"label_inference.{setting} must be at least 1, got {count}")
        for setting, value in (("lr", lr), ("black_lr", black_lr), ("difference", difference)):
            if not 0 < value < float("inf"):
                raise InputError(f"label_inference.{setting} must be positive, got {value}")
        if start not in get_args(Start):
            raise InputError(f"label_inference.start must be one of {', '.join(get_args(Start))}, got {start!r}")
        self.confidence = confidence
        self.probes = probes
        self.used = used
        self.start: Start = start
        self.steps = steps
        self.lr = lr
        self.black_lr = black_lr
        self.coordinates = coordinates
        self.block = block
        self.difference = difference
        self.box = check_box("label_inference", box)

    def infer(self, context: AttackContext) -> Finding:
        """Find probes for every class and compare both models on them.

        Raises:
            InputError: There is no pair, or no public inputs although the ascents should start there.
            NotApplicable: No classifiers over floating-point tensors, a budget too small for the number of classes, or
                models that answer alike on all probes.
        """
        pair = classifier_pair(context)
        random = random_stream(context.seed, "label inference")
        starts = ProbeStarts(self.start, pair, context, random, self.box)
        classes, left = starts.classes, context.budget - starts.queries
        found = Probes.none(starts.shape, pair.device)
        climber = self._climber(pair, starts.shape, random)
        reserve = self.used * classes if isinstance(climber, SignedAscent) else 0  # f- is asked at the end
        left -= reserve
        if left < climber.cost * classes:
            needed = context.budget - left + climber.cost * classes
            raise NotApplicable(
                f"label inference needs at least {needed} queries for {classes} classes at {pair.access} access, and "
                f"many times that for confident probes; it has {context.budget}"
            )
        while True:
            reached = found.classes[found.confidence >= self.confidence].bincount(minlength=classes)
            wanting = (reached < self.probes).nonzero().flatten()
            if len(wanting) == 0 or left < climber.cost * len(wanting):
                break
            # Class by class in turn, so that a budget that ends within a step ends for all classes alike.
            each = min(self.probes, max(1, left // (len(wanting) * climber.cost * self.steps)))
            aims = wanting.repeat(each)
            climbed, spent = climb(
                climber, starts.draw(aims), aims, confidence=self.confidence, steps=self.steps, budget=left
            )
            left -= spent
            found = found.joined(climbed)
        chosen = found.subset(torch.cat([self._choose(found, label) for label in range(classes)]))
        if reserve:
            left += reserve - len(chosen.classes)
            outputs = pair.outputs(chosen.inputs)
            rows = torch.arange(len(chosen.classes), device=pair.device), chosen.classes
            chosen.confidence, chosen.unlearned = outputs.original[rows], outputs.unlearned[rows]
        return self._finding(pair, chosen, classes, context.budget - left)

    def judge(self, finding: Finding, pair: ModelPair, truth: Truth) -> dict[str, Any]:
        """Whether the inferred class is the deleted one.

        After a deletion of single records the right answer is the class that f+ assigns to most of them.

        Returns:
            ``correct``; ``rank``, the place of the best deleted class in the order of Delta (1: inferred); and
            ``found``, the share of the deleted classes (or, after a deletion of single records, of these records) that
            the lowest Deltas, as many as there are deleted classes, name.
        """
        order = sorted(range(len(finding.answer["delta"])), key=lambda label: finding.answer["delta"][label])
        if truth.deleted_classes:
            right = set(truth.deleted_classes)
            found = len(right.intersection(order[: len(right)])) / len(right)
        else:
            labels = pair.behaviour.pseudo_labels(pair.outputs(truth.deleted).original)
            counts = labels.bincount(minlength=len(order))
            right = set((counts == counts.max()).nonzero().flatten().tolist())
            found = int(counts[finding.answer["label"]]) / len(labels)
        return {
            "correct": finding.answer["label"] in right,
            "rank": 1 + min(order.index(label) for label in right),
            "found": found,
        }

    def _climber(self, pair: ModelPair, shape: tuple[int, ...], random: torch.Generator) -> Climber:
        if pair.access.allows("gradient"):
            return SignedAscent(pair.networks()[0], pair.behaviour, self.lr, self.box)
        return CoordinateAdam(
            pair, shape, self.coordinates, self.block, self.difference, self.black_lr, self.box, random
        )

    def _choose(self, found: Probes, label: int) -> Tensor:
        """Rows of the probes that count for a class: of the good ones, or of all if none is, the most confident."""
        rows = (found.classes == label).nonzero().flatten()
        rows = rows[found.confidence[rows].argsort(descending=True, stable=True)][: self.used]
        good = rows[found.confidence[rows] >= self.confidence]
        return good if len(good) else rows

    def _finding(self, pair: ModelPair, chosen: Probes, classes: int, queries: int) -> Finding:
        change = (chosen.unlearned - chosen.confidence).double()
        if not bool(change.any()):
            raise NotApplicable("both models give every probe the same probability: nothing tells the classes apart")
        good = chosen.confidence >= self.confidence
        delta, confidence, reached = [], [], []
        for label in range(classes):
            mine = chosen.classes == label
            delta.append(float(change[mine].mean()))
            confidence.append(float(chosen.confidence[mine].mean()))
            reached.append(int(good[mine].sum()))
        lowest, second = sorted(delta)[:2]
        answer = {
            "label": delta.index(lowest),
            "delta": delta,
            "margin": second - lowest,
            "confidence": confidence,
            "reached": reached,
            "confident": min(reached) > 0,
            "access": str(pair.access),
            "start": self.start,
        }
        return Finding(answer, queries)
