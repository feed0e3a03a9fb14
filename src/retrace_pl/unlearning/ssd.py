"""Selective synaptic dampening: weights that matter to the forget records alone shrink."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn

from retrace_pl.errors import InputError
from retrace_pl.unlearning.base import Batches, UnlearningMethod
from retrace_pl.unlearning.gradients import squared_gradients
from retrace_pl.unlearning.search_space import Choice, Span

_log = logging.getLogger(__name__)


class SSD(UnlearningMethod):
    """Shrinks the weights that are more important to the forget records than to all records (no training).

    Rule: with the importances `I_S,i = E_S[(d l / d theta_i)^2]`, l the cross-entropy of one record, every weight with
    `I_f,i > (alpha / strength) I_D,i` becomes `theta_i min(lam I_D,i / I_f,i, 1)`; the others stay. D is retained and
    forget records together. Needs both, for one pass each.
    Source: Foster et al. (2024), "Fast machine unlearning without retraining through selective synaptic dampening",
    equations 4 to 7.

    The square is taken of each record's gradient, as the equation has it. Then `I_D >= (n_f / n) I_f`, so nothing is
    selected where `alpha / strength` is `n / n_f` or more: one class of ten needs an `alpha` below 10. The published
    code squares the mean gradient of each batch, which for a batch of one class is larger relative to a mixed one; its
    thresholds do not carry over. Batch-norm statistics stay as they are.

    Args:
        alpha: Threshold of selection, above 0; published: 10 (ResNet-18, a hundred classes). The default is half of
            that, because 10 selects nothing where one class of ten goes. The window in which the class goes and the
            rest stays may be narrow: 8.5 to 9 for one digit of ten.
        lam: Dampening constant lambda, above 0: how much of a selected weight is left; published: 1.
        epochs: 0; the method only edits.
        kwargs: The other settings of `UnlearningMethod`; `strength` divides `alpha`, so that more selects more weights
            and 0 selects none.

    Raises:
        InputError: A setting is out of range.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"retain", "forget", "cache"})
    search_space: ClassVar[Mapping[str, Span | Choice]] = {
        "alpha": Span(0.1, 20.0, log=True),
        "lam": Span(0.1, 5.0, log=True),
    }

    def __init__(self, alpha: float = 5.0, lam: float = 1.0, epochs: int = 0, **kwargs: Any) -> None:
        super().__init__(epochs=epochs, **kwargs)
        for setting, value in (("alpha", alpha), ("lam", lam)):
            if not 0 < value < float("inf"):
                raise InputError(f"{self.name}.{setting} is {value}; set it to a number above 0.")
        self.alpha = alpha
        self.lam = lam

    @torch.no_grad()
    def edit(self, model: nn.Module, retain_loader: Batches, forget_loader: Batches) -> None:
        """Measures both importances and dampens the selected weights.

        Args:
            model: The original model, changed in place.
            retain_loader: One pass over the retained records.
            forget_loader: One pass over the records to forget.
        """
        of_forget, forget_count = squared_gradients(model, forget_loader)
        of_retain, retain_count = squared_gradients(model, retain_loader)
        share = forget_count / max(1, forget_count + retain_count)
        chosen = 0
        for name, weight in model.named_parameters():
            if name not in of_forget:
                continue
            forget = of_forget[name]
            everything = share * forget + (1 - share) * of_retain[name]
            selected = self.strength * forget > self.alpha * everything
            factor = (self.lam * everything / forget).clamp(max=1.0)  # 0 / 0 only where nothing is selected
            weight.copy_(torch.where(selected, weight * factor, weight))
            chosen += int(selected.sum())
        if chosen == 0:
            limit = f"alpha / strength below {1 / share:.3g} (n / n_f)" if share else "forget records"
            _log.warning("%s selected no weight and changes nothing; it needs %s.", self.name, limit)
