"""UIA, feature recovery: inputs whose training gradient explains how unlearning moved the parameters."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from retrace_pl.attacks.base import Attack, AttackContext, NotApplicable, Reconstruction
from retrace_pl.attacks.class_inference import infer_classes
from retrace_pl.attacks.gradient_matching import Match, Plan, match_gradients, plan_descents
from retrace_pl.attacks.input_space import InputSpace, input_space
from retrace_pl.attacks.inputs import Box, check_box
from retrace_pl.attacks.label_inference import LabelInference
from retrace_pl.attacks.parameter_difference import ParameterDifference, exact_direction, parameter_difference
from retrace_pl.envs import CandidatePool, random_stream
from retrace_pl.errors import InputError, RunError
from retrace_pl.files import read_tensors
from retrace_pl.searchers import NullObserver, SearchObserver

__all__ = ["UIA"]

GradientsAt = Literal["original", "initial"]

_LABEL_SHARE = 4
"""Inferring the label may take the budget over this."""

_CURVE_POINTS = 100

_CLEARLY = 2.0
"""From this multiple of ``random_cosine`` on, a cosine is called above random: a rule of thumb."""


class UIA(Attack):
    """Unlearning inversion: the deleted records are the inputs whose gradient is the direction of unlearning.

    ``x* = argmin_x 1 - cos(grad_theta L(f(x; theta+), y), g*) + tv_weight * TV(x)``, L the mean cross-entropy of
    ``images`` inputs that are recovered jointly, one cosine over all parameters, ``g* = theta- - theta+`` (a step of
    gradient ascent on the deleted records moves the parameters along their gradient). White-box; no generator.
    Classifiers over floating-point inputs, or over tokens: then embeddings are sought, without TV and box, and read as
    the nearest tokens, whose own cosine is the score; see `EmbeddingSpace`. Models stay in eval mode, and batch-norm
    statistics are not part of g*.
    Source: Hu et al., "Learn What You Want to Unlearn: Unlearning Inversion Attacks against Machine Unlearning" (IEEE
    S&P 2024, arXiv 2404.03233).

    How well it works depends on what theta- - theta+ is: the forget gradient after one step of gradient ascent, an
    integral over a path after many, mixed with retained gradients after most methods, and no gradient after retraining
    from scratch. The attack runs wherever parameters differ, and reports the cosine that it reached beside
    ``random_cosine``: what a linear subspace with as many dimensions as the inputs shares with a random direction, the
    square root of numbers in the inputs over parameters. ``above_random`` says whether the cosine is twice that.

    A query is one input shown to f+ for one step. Where the settings exceed the budget, restarts are cut first and then
    steps; ``reduction`` among the facts says so.

    Args:
        steps: Steps of each restart; 500, 2,000 and 10,000 (the paper's) are presets.
        restarts: Independent starts from N(0, 1), of which the one with the highest cosine wins.
        images: Inputs recovered jointly, u.
        label: Label of the deleted records, or one for each of the ``images``. Inferred where it is not given, with a
            quarter of the budget at most; then all have the same. For tokens, `ClassInference` names it.
        lr: Learning rate of AdamW, in the inputs' units, or the root mean square of the embeddings.
        tv_weight: Weight of the total variation; it is 0 for inputs that are no images ``[C, H, W]``.
        box: Bounds that every step is clamped to; None for none.
        label_inference: How the label is inferred.
        initial_weights: A safetensors file with the weights theta_0 that both models were trained from. With
            ``records`` and ``deleted_records`` it replaces g* by the exact sum of the deleted records' gradients; see
            `exact_direction`.
        records: N, the records that f+ was trained on; only with ``initial_weights``.
        deleted_records: How many of them were deleted; only with ``initial_weights``.
        gradients_at: Where the candidates' gradients are taken: at theta+, as published, or at theta_0 (``initial``,
            needs ``initial_weights``), where the exact direction is that of a single step.

    Raises:
        InputError: A setting is out of range.
    """

    name: ClassVar[str] = "uia"

    def __init__(
        self,
        steps: int = 2000,
        restarts: int = 5,
        images: int = 1,
        label: int | list[int] | None = None,
        lr: float = 0.04,
        tv_weight: float = 1e-2,
        box: Box = (0.0, 1.0),
        label_inference: LabelInference | None = None,
        initial_weights: str | None = None,
        records: int | None = None,
        deleted_records: int | None = None,
        gradients_at: GradientsAt = "original",
    ) -> None:
        for setting, count, least in (("steps", steps, 8), ("restarts", restarts, 1), ("images", images, 1)):
            if count < least:
                raise InputError(f"uia.{setting} must be at least {least}, got {count}")
        if not 0 < lr < math.inf or not 0 <= tv_weight < math.inf:
            raise InputError(f"uia: lr must be positive and tv_weight not negative, got {lr} and {tv_weight}")
        if isinstance(label, list) and len(label) != images:
            raise InputError(f"uia.label has {len(label)} labels for {images} images; give one, or one for each")
        given = [value is not None for value in (initial_weights, records, deleted_records)]
        if any(given) and not all(given):
            raise InputError(
                "uia: initial_weights, records and deleted_records belong together; give all three or none"
            )
        if gradients_at not in get_args(GradientsAt):
            raise InputError(
                f"uia.gradients_at must be one of {', '.join(get_args(GradientsAt))}, got {gradients_at!r}"
            )
        if gradients_at == "initial" and initial_weights is None:
            raise InputError("uia.gradients_at: initial needs uia.initial_weights")
        self.steps = steps
        self.restarts = restarts
        self.images = images
        self.label = label
        self.lr = lr
        self.tv_weight = tv_weight
        self.box = check_box("uia", box)
        self.label_inference = label_inference
        self.initial_weights = initial_weights
        self.records = records
        self.deleted_records = deleted_records
        self.gradients_at: GradientsAt = gradients_at

    def reconstruct(self, context: AttackContext) -> Reconstruction:
        """Infer the label if need be, then descend from every start.

        Returns:
            All recovered inputs, those of the best restart first; each has its restart's cosine as its score.

        Raises:
            AccessError: Black- or gray-box access.
            InputError: ``label`` is no class of the models, or ``initial_weights`` do not fit them.
            NotApplicable: The models are no classifiers over floating-point inputs or tokens, differ in architecture
                or do not differ in their parameters; the change is a dampening; or the budget is too small.
        """
        space = input_space(context, self.images, self.box)
        network, _ = space.pair.networks()
        difference = parameter_difference(space.pair)
        if difference.dampened:
            raise NotApplicable(
                "every changed parameter shrank towards zero without changing its sign: a multiplicative dampening, as "
                "by SSD, pruning or weight decay alone, which follows no gradient of the deleted records"
            )
        direction, start = difference.changes, dict[str, Tensor]()
        if self.initial_weights is not None:
            start = _read(self.initial_weights)
            direction = exact_direction(difference, start, self.records or 0, self.deleted_records or 0)
        labels, facts, spent = self._labels(context, space)
        left = context.budget - spent - space.reserved(self.restarts)
        plan = plan_descents(left, self.steps, self.restarts, self.images)
        model = _with_weights(network, start) if self.gradients_at == "initial" else network
        matcher = space.matcher(model, direction)
        curve = _Curve(spent + space.reserved(plan.restarts), self.images, plan, context.observer or NullObserver())
        random = random_stream(context.seed, "uia")
        matches = []
        try:
            for _ in range(plan.restarts):
                match = match_gradients(
                    matcher,
                    space.start(random),
                    labels,
                    steps=plan.steps,
                    lr=self.lr * space.unit,
                    tv_weight=self.tv_weight,
                    box=space.box,
                    on_step=curve.step,
                )
                curve.end(match.cosine)
                matches.append(space.read(match, matcher, labels))
        finally:
            curve.close()
        random_cosine = math.sqrt(min(1.0, space.numbers(match) / matcher.size))
        matches.sort(key=lambda match: -match.cosine)
        facts |= self._facts(matches, plan, difference, random_cosine, labels) | {"parameters": matcher.size}
        return self._result(matches, curve, facts | space.facts())

    def _labels(self, context: AttackContext, space: InputSpace) -> tuple[Tensor, dict[str, Any], int]:
        """Labels ``[images]``, facts about them, and the queries that they took."""
        if self.label is not None:
            labels = self.label if isinstance(self.label, list) else [self.label] * self.images
            if min(labels) < 0:
                raise InputError(f"uia.label must not be negative, got {min(labels)}")
            return torch.tensor(labels), {"label_given": True}, 0
        if space.discrete and self.label_inference is None:
            part = replace(context, budget=context.budget // _LABEL_SHARE)
            classes, named, queries = infer_classes(part, self.name)
            return torch.tensor(classes[:1] * self.images), {"label_given": False, "class_inference": named}, queries
        inference = self.label_inference if self.label_inference is not None else LabelInference(box=self.box)
        finding = inference.infer(replace(context, budget=context.budget // _LABEL_SHARE))
        facts = {name: finding.answer[name] for name in ("delta", "margin", "reached")}
        labels = [int(finding.answer["label"])] * self.images
        return torch.tensor(labels), {"label_given": False, "label_inference": facts}, finding.queries

    def _facts(
        self,
        matches: list[Match],
        plan: Plan,
        difference: ParameterDifference,
        random_cosine: float,
        labels: Tensor,
    ) -> dict[str, Any]:
        best = matches[0]
        return {
            "labels": labels.tolist(),
            "cosine": best.cosine,
            "cosines": [match.cosine for match in matches],
            "random_cosine": random_cosine,
            "above_random": best.cosine > _CLEARLY * random_cosine,
            "total_variation": best.variation,
            "relative_difference": difference.relative_norm,
            "exact_direction": self.initial_weights is not None,
            "images": self.images,
            "steps": plan.steps,
            "restarts": plan.restarts,
            "reduction": plan.reduction,
        }

    def _result(self, matches: list[Match], curve: _Curve, facts: dict[str, Any]) -> Reconstruction:
        inputs = torch.cat([match.inputs for match in matches])
        scores = torch.tensor([match.cosine for match in matches]).repeat_interleave(self.images)
        return Reconstruction(
            instance=inputs[:1].clone(),
            instance_score=matches[0].cosine,
            inputs=inputs,
            scores=scores,
            queries=curve.queries,
            curve=curve.points,
            facts=facts,
        )


class _Curve:
    """Queries, the best cosine so far, and the mean over the restarts of each one's last, at about 100 points.

    The observer is told at the same points. There are no latents, so the pool that it is shown stays empty.
    """

    def __init__(self, queries: int, images: int, plan: Plan, observer: SearchObserver) -> None:
        self.queries = queries
        self.points: list[tuple[int, float, float]] = []
        self._images = images
        self._every = max(1, plan.steps * plan.restarts // _CURVE_POINTS)
        self._last = plan.steps * plan.restarts
        self._taken = 0
        self._best = -math.inf
        self._ended: list[float] = []
        self._observer = observer
        self._no_latents = CandidatePool(1)
        observer.on_start(queries + images * self._last)

    def step(self, cosine: float) -> None:
        self.queries += self._images
        self._taken += 1
        self._best = max(self._best, cosine)
        if self._taken % self._every == 0 or self._taken == self._last:
            reached = [*self._ended, cosine]
            mean = math.fsum(reached) / len(reached)
            self.points.append((self.queries, self._best, mean))
            scalars = {"score/best": self._best, "score/top64": mean, "score/batch": cosine}
            self._observer.on_update(self.queries, self._no_latents, scalars)

    def end(self, cosine: float) -> None:
        self._ended.append(cosine)

    def close(self) -> None:
        self._observer.on_end()


def _read(path: str) -> dict[str, Tensor]:
    if not Path(path).is_file():
        raise InputError(f"uia.initial_weights: there is no file {path}")
    try:
        return read_tensors(Path(path))
    except RunError as error:
        raise InputError(f"uia.initial_weights: {path} is no whole safetensors file") from error


def _with_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> nn.Module:
    """A copy of a model with other parameters and, as far as there are any, other buffers."""
    model = copy.deepcopy(model)
    state = model.state_dict()
    with torch.no_grad():
        for name, value in weights.items():
            if name in state and state[name].shape == value.shape:
                state[name].copy_(value)
    return model
