"""Noise on the weights: a sanity anchor that changes a model without aiming at anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn

from retrace_pl.unlearning.base import Batches, UnlearningMethod, at_least
from retrace_pl.unlearning.search_space import Choice, Span


class WeightNoise(UnlearningMethod):
    """Adds Gaussian noise to every weight, whatever is to be forgotten: an anchor, not an unlearning method.

    Rule: each parameter tensor becomes `theta + strength sigma rms(theta) N(0, I)`, `rms(theta)` its root mean square.
    Needs no data. Source: the usual random-perturbation baseline; no paper claims that it unlearns.

    An audit that finds the deleted records after this method finds them by chance: its trace comes from changes that
    know nothing of the deletion. Tensors that are all zero, such as fresh biases, and batch-norm statistics stay as
    they are.

    Args:
        sigma: Standard deviation of the noise relative to each tensor's root mean square, 0 or more.
        epochs: 0; the method only edits.
        kwargs: The other settings of `UnlearningMethod`; `strength` multiplies `sigma`.

    Raises:
        InputError: A setting is out of range.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    search_space: ClassVar[Mapping[str, Span | Choice]] = {"sigma": Span(1e-3, 1.0, log=True)}

    def __init__(self, sigma: float = 0.1, epochs: int = 0, **kwargs: Any) -> None:
        super().__init__(epochs=epochs, **kwargs)
        at_least("sigma", sigma, 0, self.name)
        self.sigma = sigma

    @torch.no_grad()
    def edit(self, model: nn.Module, retain_loader: Batches, forget_loader: Batches) -> None:
        """Adds the noise, drawn from torch's global generator.

        Args:
            model: The original model, changed in place.
            retain_loader: Not read.
            forget_loader: Not read.
        """
        for weight in model.parameters():
            rms = weight.square().mean().sqrt()
            weight.add_(self.strength * self.sigma * rms * torch.randn_like(weight))
