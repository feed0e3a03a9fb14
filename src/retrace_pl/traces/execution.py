"""How a pair runs its models: ways that save time and change results by rounding alone, which is checked."""

from __future__ import annotations

import os
import shutil
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from retrace_pl.errors import InputError, RunError

__all__ = ["Autocast", "Execution", "MemoryFormat", "require_compiler"]

MemoryFormat = Literal["contiguous", "channels_last"]
Autocast = Literal["none", "bfloat16", "float16"]

_TOLERANCES: dict[Autocast, float] = {"none": 1e-4, "bfloat16": 0.05, "float16": 0.01}
"""Largest difference of a probability from that of the plain models. Numbers keep 8 bits in bfloat16 and 11 in float16:
a logit of 10 is off by up to 0.02 or 0.0025 in the last layer alone."""


@dataclass(frozen=True)
class Execution:
    """How the models of a pair are run; the defaults run them as they are.

    Args:
        memory_format: `channels_last` runs copies whose convolution weights store the channels of a pixel side by
            side: on a CPU, small convolutional networks answer up to twice as fast and large ones as before.
            Probabilities agree with those of `contiguous` to 1e-5.
        autocast: Runs matrix products and convolutions in `bfloat16` or `float16`, the rest in single precision.
            Probabilities agree to 0.05 or 0.01.
        compile: Runs copies through `torch.compile`; the first batches take up to minutes. Probabilities agree to
            1e-4.

    Raises:
        InputError: A setting is unknown.
    """

    memory_format: MemoryFormat = "contiguous"
    autocast: Autocast = "none"
    compile: bool = False

    def __post_init__(self) -> None:
        for name, choices, value in (
            ("memory_format", MemoryFormat, self.memory_format),
            ("autocast", Autocast, self.autocast),
        ):
            if value not in get_args(choices):
                known = ", ".join(get_args(choices))
                raise InputError(f"{name}: {value!r} is unknown; choose one of {known}")

    @property
    def rounds(self) -> bool:
        """Whether results may differ by more than the order of additions, so that they are checked once."""
        return self.compile or self.autocast != "none"

    @property
    def tolerance(self) -> float:
        """Largest difference of a probability that passes for rounding."""
        return _TOLERANCES[self.autocast]

    def prepared(self, model: nn.Module, device: torch.device) -> nn.Module:
        """The model itself, or a copy to run in its place; models without parameters are left alone.

        Raises:
            InputError: torch cannot compile here.
        """
        packed = self.memory_format == "channels_last" and any(weight.ndim == 4 for weight in model.parameters())
        compiled = self.compile and next(model.parameters(), None) is not None
        if not packed and not compiled:
            return model
        model = deepcopy(model)
        if packed:
            model.to(memory_format=torch.channels_last)
        if compiled:
            require_compiler("traces.compile", device)
            model.compile()
        return model

    def running(self, device: torch.device) -> AbstractContextManager[object]:
        """The context that a forward pass takes place in."""
        if self.autocast == "none":
            return nullcontext()
        return torch.autocast(device.type, dtype=getattr(torch, self.autocast))

    def check(self, name: str, expected: Tensor, found: Tensor) -> None:
        """Compares probabilities of the plain model with those of the faster way; where NaN are, others say so.

        Args:
            name: Which model, for the message.
            expected: Probabilities ``[n, ...]`` of the model as it is.
            found: The same inputs' probabilities.

        Raises:
            RunError: They differ by more than rounding.
        """
        worst = float((found - expected).abs().max())
        if worst > self.tolerance:
            way = f"traces.autocast={self.autocast}" if self.autocast != "none" else "traces.compile"
            raise RunError(
                f"{way} changes probabilities of the {name} model by up to {worst:.2g}, where {self.tolerance:g} passes"
                " for rounding; leave it out"
            )


def require_compiler(setting: str, device: torch.device) -> None:
    """Refuses `torch.compile` for a CPU on a machine without a C++ compiler.

    Args:
        setting: The setting that asks for it, for the message.
        device: Where the models run.

    Raises:
        InputError: There is no compiler.
    """
    compiler = os.environ.get("CXX", "g++")
    if device.type == "cpu" and shutil.which(compiler) is None:
        raise InputError(f"{setting}: torch needs a C++ compiler and there is no {compiler} here; leave it out")
