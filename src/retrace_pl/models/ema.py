"""Exponential moving average of a model."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from retrace_pl.errors import InputError


class ExponentialMovingAverage(nn.Module):
    """Exponential moving average of a model's parameters and buffers, itself a model that always runs in eval mode.

    After update t = 1, 2, ... of a model theta the average is m = b m + (1 - b) theta with
    b = min(decay, t / (t + 9)), so that the random start is forgotten at once. Floating-point buffers, which hold the
    statistics of batch normalisation, are averaged in the same way; counters are copied.

    Args:
        model: The model to follow; the average starts as a copy of it.
        decay: Weight b of the old average in [0, 1).

    Raises:
        InputError: The decay is out of range.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__()
        if not 0 <= decay < 1:
            raise InputError(f"ema_decay must lie in [0, 1), got {decay}")
        self.decay = decay
        self.module = copy.deepcopy(model).requires_grad_(False)
        self.updates: Tensor
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards `model`, which must have the architecture given to the constructor."""
        self.updates += 1
        count = int(self.updates)
        decay = min(self.decay, count / (count + 9))
        averages = [*self.module.parameters(), *self.module.buffers()]
        currents = [*model.parameters(), *model.buffers()]
        for average, current in zip(averages, currents, strict=True):
            if average.is_floating_point():
                average.lerp_(current.detach(), 1 - decay)
            else:
                average.copy_(current)

    def averaged(self) -> nn.Module:
        """Return the averaged model itself, in eval mode and without gradients of its parameters."""
        return self.module.eval()

    def forward(self, *args: Tensor) -> Tensor:
        """Call the averaged model in eval mode; its flag is left as it was, since trainers warn of modules in eval."""
        training = self.module.training
        output = torch.as_tensor(self.module.eval()(*args))
        self.module.train(training)
        return output
