"""Fisher forgetting: noise where the retained records do not mind it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn

from retrace_pl.errors import InputError
from retrace_pl.unlearning.base import Batches, UnlearningMethod, at_least
from retrace_pl.unlearning.gradients import first, fisher_diagonal
from retrace_pl.unlearning.search_space import Choice, Span


class FisherForgetting(UnlearningMethod):
    """Adds noise to every weight, the more the less the retained records depend on it (no training).

    Rule: `theta_i += N(0, strength alpha min(1 / (F_r,i + 1e-8), clamp))`, F_r the diagonal of the Fisher information
    of the retained records, with the expectation over the label under the model's own prediction. Needs the retained
    records, for one pass that costs as much as K backward passes.
    Source: Golatkar et al. (2020), "Eternal sunshine of the spotless net", equation 8 and section 4; clamp as in
    their code.

    Their code also sets the output weights of a deleted class to 0 and scales the noise of some layers by hand; neither
    is done here. The rule never looks at the forget records: it forgets them no faster than anything else the retained
    records do not hold on to, and usually pays for it in retained accuracy. Batch-norm statistics stay as they are.

    Args:
        alpha: Scale of the variance, 0 or more; 1e-9 to 1e-6 are usual.
        clamp: Largest inverse of the Fisher information, above 0; so the noise has at most the variance
            `strength * alpha * clamp`.
        records: How many retained records to measure on, taken from the start of the (shuffled) pass; None: all.
        epochs: 0; the method only edits.
        kwargs: The other settings of `UnlearningMethod`; `strength` multiplies `alpha`.

    Raises:
        InputError: A setting is out of range.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"retain", "cache"})
    search_space: ClassVar[Mapping[str, Span | Choice]] = {
        "alpha": Span(1e-9, 1e-4, log=True),
        "clamp": Span(1e2, 1e6, log=True),
    }

    def __init__(
        self, alpha: float = 1e-6, clamp: float = 1e3, records: int | None = None, epochs: int = 0, **kwargs: Any
    ) -> None:
        super().__init__(epochs=epochs, **kwargs)
        at_least("alpha", alpha, 0, self.name)
        if not 0 < clamp < float("inf"):
            raise InputError(f"{self.name}.clamp is {clamp}; set it to a number above 0.")
        if records is not None:
            at_least("records", records, 1, self.name)
        self.alpha = alpha
        self.clamp = clamp
        self.records = records

    @torch.no_grad()
    def edit(self, model: nn.Module, retain_loader: Batches, forget_loader: Batches) -> None:
        """Measures the Fisher information and adds the noise, drawn from torch's global generator.

        Args:
            model: The original model, changed in place.
            retain_loader: One pass over the retained records.
            forget_loader: Not read.
        """
        batches = retain_loader if self.records is None else list(first(retain_loader, self.records))
        diagonal, _ = fisher_diagonal(model, batches)
        for name, weight in model.named_parameters():
            if name in diagonal:
                variance = self.strength * self.alpha * (1 / (diagonal[name] + 1e-8)).clamp(max=self.clamp)
                weight.add_(variance.sqrt() * torch.randn_like(weight))
