"""The linear layer that ends a classifier, found by what it does, and the features that it reads."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from retrace_pl.attacks.base import NotApplicable
from retrace_pl.models.behaviour import Behaviour, RegroupingBehaviour

__all__ = ["HeadReader", "find_head", "head_matrix"]


def find_head(model: nn.Module, behaviour: Behaviour, inputs: Any) -> str:
    """Name of the linear layer whose output is the model's output; "" for the model itself.

    The layer is found by running the model, not by its name or place, so that models from elsewhere work too. Of
    several that fit, the last to run is taken.

    Args:
        model: A classifier in eval mode.
        behaviour: How to run it.
        inputs: At least one sample; every one is a query.

    Raises:
        NotApplicable: The model does not end in a linear layer.
    """
    seen: list[tuple[str, Tensor, Tensor]] = []
    handles = [
        module.register_forward_hook(
            lambda module, arguments, output, name=name: seen.append((name, arguments[0], output))
        )
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
    ]
    try:
        with torch.no_grad():
            outputs = behaviour.forward(model, inputs)
            probabilities = behaviour.probabilities(outputs)
            for name, features, logits in reversed(seen):
                fits = features.ndim == 2 and logits.shape == outputs.shape
                if fits and torch.allclose(behaviour.probabilities(logits), probabilities, atol=1e-5):
                    return name
    finally:
        for handle in handles:
            handle.remove()
    raise NotApplicable(f"{type(model).__name__} does not end in a linear layer whose input is one vector per record")


def head_matrix(head: nn.Linear) -> Tensor:
    """Weights of a linear layer as ``[F, K]``, with the bias as a last row where there is one; float64 on the CPU."""
    weight = head.weight.detach().double().cpu().T
    return weight if head.bias is None else torch.cat([weight, head.bias.detach().double().cpu()[None]])


class HeadReader:
    """Runs a model and hands out what its head reads and what the model returns.

    Args:
        model: A classifier in eval mode.
        behaviour: How to run it.
        name: Name of the head, see :func:`find_head`.
    """

    def __init__(self, model: nn.Module, behaviour: Behaviour, name: str) -> None:
        self.model = model
        self.behaviour = behaviour
        head = model.get_submodule(name)
        assert isinstance(head, nn.Linear)
        self.head = head

    def __call__(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Features ``[n, F]`` and outputs ``[n, K]``; differentiable in continuous inputs where autograd is on.

        Args:
            inputs: ``[n, ...]`` on the model's device.
        """
        read: list[Tensor] = []
        handle = self.head.register_forward_pre_hook(lambda module, arguments: read.append(arguments[0]))
        try:
            # As its own representation, an input keeps the history that leads back to a latent.
            own = inputs.to(self.head.weight.dtype) if inputs.is_floating_point() else None
            outputs = self.behaviour.forward(self.model, inputs, own)
        finally:
            handle.remove()
        if isinstance(self.behaviour, RegroupingBehaviour):
            return torch.cat(read)[self.behaviour.run_order(inputs).argsort()], outputs
        return read[-1], outputs

    @torch.no_grad()
    def read(self, inputs: Tensor, batch_size: int) -> tuple[Tensor, Tensor]:
        """The same for many inputs, a batch at a time; float64 on the CPU."""
        device = self.head.weight.device
        parts = [self(part.to(device)) for part in torch.split(inputs, batch_size)]
        return (
            torch.cat([features.double().cpu() for features, _ in parts]),
            torch.cat([outputs.double().cpu() for _, outputs in parts]),
        )
