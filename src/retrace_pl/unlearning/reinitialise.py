"""Fresh weights for a model that exists already."""

from __future__ import annotations

import torch
from torch import nn

from retrace_pl.errors import InputError


def reinitialise(model: nn.Module, seed: int, owner: str) -> None:
    """Draws all parameters anew: `reset_parameters` of every layer, then of the modules around them.

    Torch's global generator is left as it was.

    Args:
        model: The model or a part of one, changed in place.
        seed: Seed of the fresh weights.
        owner: Whose wish it is, for the message.

    Raises:
        InputError: A module holds parameters of its own and has no `reset_parameters`.
    """
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        for name, module in reversed(list(model.named_modules())):  # a model's own scheme overrides its layers'
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
            elif next(module.parameters(recurse=False), None) is not None:
                raise InputError(
                    f"{owner} cannot re-initialise {name or 'the model'} ({type(module).__name__}); give it a "
                    "reset_parameters() method or train a fresh model with ClassifierTask."
                )
