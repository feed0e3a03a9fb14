"""Parameter initialisation shared by the classifiers."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def initialise(model: nn.Module, generator: torch.Generator | None = None) -> None:
    """Draw a model's parameters anew: Kaiming-normal, as in MLS-Bench.

    Convolutions use fan_out, linear layers fan_in, biases are 0; normalisation layers start at scale 1, shift 0 and
    fresh running statistics. Other parameters stay as they are.

    Args:
        model: The model, changed in place. It must lie on the generator's device.
        generator: Random generator to draw from; torch's global one when absent.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=generator)
        elif isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu", generator=generator)
        elif isinstance(module, _BatchNorm | nn.LayerNorm | nn.GroupNorm):
            if isinstance(module, _BatchNorm):
                module.reset_running_stats()
            if module.weight is not None:
                nn.init.ones_(module.weight)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)
