"""Traces with a gradient: what a white-box auditor needs to move an input uphill instead of asking again and again."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from retrace_pl.errors import InputError, RunError
from retrace_pl.traces.pair import ModelPair, PairResponse, PairValues

__all__ = ["DifferentiableScorer", "differentiable_response"]


@runtime_checkable
class DifferentiableScorer(Protocol):
    """A scorer that can also say in which direction its score rises; white-box access only."""

    def differentiable_score(self, inputs: Tensor, *, second_order: bool = True) -> Tensor:
        """Score inputs so that the result can be differentiated with respect to them.

        Args:
            inputs: ``[n, ...]`` with ``requires_grad``, a leaf or computed from one.
            second_order: Whether the gradient signal takes part; its derivative needs the models' second derivatives.

        Returns:
            Values ``[n]`` with autograd history that rise with the score. They need not equal it: where the score is
            flat (clipped, a rank) a smooth monotone function stands in for it.

        Raises:
            AccessError: Black- or gray-box access.
            InputError: ``inputs`` carries no gradient, or nothing of the score is left to differentiate.
        """
        ...


class _Half(NamedTuple):
    """One model's part of a response."""

    probabilities: Tensor
    losses: Tensor
    gradients: Tensor | None
    finite: Tensor


def differentiable_response(
    pair: ModelPair,
    inputs: Tensor,
    signals: Collection[str],
    label_by: Callable[[Tensor], Tensor] | None = None,
) -> PairResponse:
    """Run each model of a white-box pair once and keep the autograd history from ``inputs`` to every result.

    The labels y^ are taken as constants. ReLU networks have a second derivative of zero almost everywhere, so the
    gradient signal's derivative comes from the layers around the ReLUs; that is exact, not an approximation.

    Args:
        pair: The two models, with white-box access.
        inputs: ``[n, ...]``, floating-point, with ``requires_grad``, on the pair's device. Gradients are taken at
            these inputs themselves, so only modalities whose inputs are continuous are served.
        signals: Signals the result must serve; ``gradient`` is differentiable once more.
        label_by: As in ``ModelPair.respond``.

    Raises:
        AccessError: Black- or gray-box access.
        InputError: ``inputs`` is not a tensor with ``requires_grad``.
        RunError: A model cuts the autograd history (``no_grad`` or ``detach`` in its forward).
    """
    networks = pair.networks()
    if not isinstance(inputs, Tensor) or not inputs.requires_grad:
        raise InputError(
            "inputs: a differentiable trace needs a tensor with requires_grad; a generator of discrete inputs, or one"
            " that runs under no_grad, gives none"
        )
    with torch.inference_mode(False), torch.enable_grad():
        labels: Tensor | None = None
        halves: list[_Half] = []
        for name, network in zip(("original", "unlearned"), networks, strict=True):
            outputs = pair.behaviour.forward(network, inputs)
            if not outputs.requires_grad:
                raise RunError(
                    f"models: the outputs of the {name} model have no gradient at its input (does its forward use"
                    " no_grad or detach?); use a searcher that needs none"
                )
            probabilities = pair.behaviour.probabilities(outputs)
            if labels is None:
                labels = (label_by or pair.behaviour.pseudo_labels)(probabilities.detach())
            halves.append(_half(pair, outputs, probabilities, labels, inputs if "gradient" in signals else None))
    assert labels is not None
    first, second = halves
    gradients = None
    if first.gradients is not None and second.gradients is not None:
        gradients = PairValues(first.gradients, second.gradients)
    return PairResponse(
        labels=labels,
        probabilities=PairValues(first.probabilities, second.probabilities),
        losses=PairValues(first.losses, second.losses),
        gradients=gradients,
        finite=PairValues(first.finite, second.finite),
    )


def _half(pair: ModelPair, outputs: Tensor, probabilities: Tensor, labels: Tensor, at: Tensor | None) -> _Half:
    losses = pair.behaviour.losses(outputs, labels)
    finite = outputs.detach().isfinite().all() & losses.detach().isfinite().all()
    gradients = None
    if at is not None:
        # Samples do not interact in eval mode, so the gradient of the sum is each sample's own gradient.
        (gradients,) = torch.autograd.grad(losses.sum(), at, create_graph=True)
    return _Half(probabilities, losses, gradients, finite)
