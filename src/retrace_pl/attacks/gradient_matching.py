"""Gradient matching: inputs whose parameter gradient points in a given direction."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from retrace_pl.attacks.base import NotApplicable
from retrace_pl.errors import InputError, RunError
from retrace_pl.models import Behaviour

__all__ = [
    "GradientMatcher",
    "Match",
    "Plan",
    "Template",
    "learning_rate_drops",
    "match_gradients",
    "plan_descents",
    "total_variation",
]

_DROPS = (3, 5, 7)
"""Eighths of the steps after which the learning rate halves."""

_FEWEST_STEPS = 8


@dataclass(frozen=True)
class Match:
    """Where one descent ended.

    Args:
        inputs: ``[u, ...]``.
        cosine: Cosine between the parameter gradient at these inputs and the direction, in [-1, 1].
        variation: Total variation of the inputs; 0 for inputs that have no neighbours.
    """

    inputs: Tensor
    cosine: float
    variation: float


@dataclass(frozen=True)
class Plan:
    """How a budget is spent: ``steps * restarts * images`` queries.

    Args:
        steps: Evaluations of each input of each restart.
        restarts: Independent starts.
        reduction: What was cut to fit the budget, in words; None where nothing was.
    """

    steps: int
    restarts: int
    reduction: str | None


def plan_descents(budget: int, steps: int, restarts: int, images: int) -> Plan:
    """Fit the descents into a budget: first fewer restarts, then, with a single one, fewer steps.

    The learning rate falls at fixed parts of the steps, so one whole descent reaches more than several short ones.

    Raises:
        NotApplicable: The budget does not allow eight steps.
    """
    fitting = min(restarts, budget // (steps * images))
    if fitting == restarts:
        return Plan(steps, restarts, None)
    if fitting >= 1:
        return Plan(steps, fitting, f"restarts {restarts} -> {fitting} to fit {budget} queries")
    fewer = budget // images
    if fewer < _FEWEST_STEPS:
        raise NotApplicable(
            f"gradient matching of {images} joint images needs at least {_FEWEST_STEPS * images} queries"
            f", and has {budget}"
        )
    text = f"steps {steps} -> {fewer}" + (f" and restarts {restarts} -> 1" if restarts > 1 else "")
    return Plan(fewer, 1, f"{text} to fit {budget} queries")


@dataclass(frozen=True)
class Template:
    """Discrete inputs whose representation is sought in part.

    Args:
        inputs: ``[u, L]``, names at every place; those at free places do not count.
        free: Which places are sought, bool ``[u, L]``.
        representation: Of the inputs, ``[u, L, E]``; it holds at the other places.
    """

    inputs: Tensor
    free: Tensor
    representation: Tensor


class GradientMatcher:
    """Compares the parameter gradient of a batch with a direction: one cosine over all parameters together.

    Works on a copy of the model in eval mode, so batch normalisation uses its stored statistics; half-precision
    models are copied to single precision.

    Args:
        model: The model at which gradients are taken.
        behaviour: How the model is run and its loss read.
        direction: By parameter name; parameters without an entry are left out of the comparison.
        template: For discrete inputs, whose representations are compared instead. Parameters before the representation
            (the embeddings of tokens) have no gradient there and are left out as well.
    """

    def __init__(
        self,
        model: nn.Module,
        behaviour: Behaviour,
        direction: Mapping[str, Tensor],
        template: Template | None = None,
    ) -> None:
        # A model that was loaded or frozen under inference mode would not take part in autograd.
        with torch.inference_mode(False):
            self.model = copy.deepcopy(model).eval().requires_grad_(False)
            if any(value.dtype in (torch.float16, torch.bfloat16) for value in self.model.parameters()):
                self.model.float()
        self.behaviour = behaviour
        self.template = template
        if template is not None:
            direction = self._reached(direction, template)
        self.parameters = [value for name, value in self.model.named_parameters() if name in direction]
        for value in self.parameters:
            value.requires_grad_(True)
        self.direction = torch.cat(
            [direction[name].to(value).flatten() for name, value in self.model.named_parameters() if name in direction]
        )

    def _reached(self, direction: Mapping[str, Tensor], template: Template) -> dict[str, Tensor]:
        """The part of a direction whose parameters the outputs depend on; one evaluation of the template."""
        values = {name: value for name, value in self.model.named_parameters() if name in direction}
        with torch.inference_mode(False), torch.enable_grad():
            for value in values.values():
                value.requires_grad_(True)
            outputs = self.behaviour.forward(self.model, template.inputs, template.representation)
            if not outputs.requires_grad:
                raise NotApplicable("only embeddings changed, and those have no gradient at the embedding level")
            gradients = torch.autograd.grad(outputs.sum(), list(values.values()), allow_unused=True)
        self.model.requires_grad_(False)
        return {name: direction[name] for name, found in zip(values, gradients, strict=True) if found is not None}

    @property
    def size(self) -> int:
        """Numbers that are compared."""
        return self.direction.numel()

    @property
    def dtype(self) -> torch.dtype:
        """Type of the inputs that the model takes."""
        return self.direction.dtype

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        return self.direction.device

    def cosine(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Cosine between the direction and the gradient of the mean cross-entropy; differentiable in the inputs.

        Args:
            inputs: ``[u, ...]``, one joint guess; representations ``[u, L, E]`` where there is a template.
            labels: ``[u]``, int64.

        Returns:
            A scalar in [-1, 1]; 0 where the gradient vanishes.

        Raises:
            InputError: A label is no class of the model.
        """
        if self.template is None:
            outputs = self.behaviour.forward(self.model, inputs, inputs)
        else:
            filled = torch.where(self.template.free[..., None], inputs, self.template.representation)
            outputs = self.behaviour.forward(self.model, self.template.inputs, filled)
        if int(labels.max()) >= outputs.shape[1]:
            raise InputError(f"uia.label: {int(labels.max())} is no class of a model with {outputs.shape[1]} outputs")
        loss = self.behaviour.losses(outputs, labels).mean()
        gradients = torch.autograd.grad(
            loss, self.parameters, create_graph=True, allow_unused=True, materialize_grads=True
        )
        gradient = torch.cat([value.flatten() for value in gradients])
        return torch.nn.functional.cosine_similarity(gradient, self.direction, dim=0, eps=1e-20)


def total_variation(inputs: Tensor) -> Tensor:
    """Mean absolute difference of vertical plus that of horizontal neighbours.

    Args:
        inputs: Images ``[u, C, H, W]``. Anything else has no neighbours, and a variation of 0.

    Returns:
        A scalar; a side of one pixel has no neighbours and counts as 0.
    """
    total = inputs.new_zeros(())
    if inputs.ndim != 4:
        return total
    for dim in (2, 3):
        if inputs.shape[dim] > 1:
            total = total + inputs.diff(dim=dim).abs().mean()
    return total


def learning_rate_drops(steps: int) -> list[int]:
    """Steps after which the learning rate halves: 3/8, 5/8 and 7/8 of them."""
    return [steps * eighths // 8 for eighths in _DROPS]


def match_gradients(
    matcher: GradientMatcher,
    start: Tensor,
    labels: Tensor,
    *,
    steps: int,
    lr: float,
    tv_weight: float,
    box: tuple[float, float] | None,
    on_step: Callable[[float], None] | None = None,
) -> Match:
    """Descend ``1 - cosine + tv_weight * TV`` from one start, with signed gradients and AdamW without weight decay.

    Source: Hu et al. (IEEE S&P 2024), feature recovery.

    Args:
        matcher: Model and direction.
        start: ``[u, ...]``, moved into the box first.
        labels: ``[u]``, int64.
        steps: Evaluations of the u inputs. The last one only measures where the descent ended, so there are
            ``steps - 1`` updates.
        lr: Learning rate, halved at `learning_rate_drops`.
        tv_weight: Weight of the total variation.
        box: Bounds that every update is clamped to; None for none.
        on_step: Is told the cosine of every evaluation.

    Raises:
        NotApplicable: The model has an operation without a second derivative.
        RunError: The cosine is not finite.
    """
    with torch.inference_mode(False), torch.enable_grad():
        inputs = start.detach().to(matcher.device, matcher.dtype).clone()
        if box is not None:
            inputs.clamp_(*box)
        inputs.requires_grad_(True)
        labels = labels.to(matcher.device)
        optimizer = torch.optim.AdamW([inputs], lr=lr, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, learning_rate_drops(steps), gamma=0.5)
        for step in range(steps):
            cosine = matcher.cosine(inputs, labels)
            variation = total_variation(inputs)
            reached = float(cosine.detach())
            if reached != reached:
                raise RunError("uia: the gradient of the original model is not finite; look at its training")
            if on_step is not None:
                on_step(reached)
            if step == steps - 1:
                break
            inputs.grad = _gradient(1 - cosine + tv_weight * variation, inputs).sign()
            optimizer.step()
            schedule.step()
            if box is not None:
                inputs.data.clamp_(*box)
    return Match(inputs.detach(), reached, float(variation.detach()))


def _gradient(cost: Tensor, inputs: Tensor) -> Tensor:
    try:
        (gradient,) = torch.autograd.grad(cost, inputs)
    except RuntimeError as error:
        if "not implemented" not in str(error):
            raise
        raise NotApplicable(f"gradient matching needs second derivatives: {str(error).splitlines()[0]}") from error
    return gradient
