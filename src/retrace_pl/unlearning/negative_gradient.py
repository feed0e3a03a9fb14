"""Descent on the retained and ascent on the forgotten records at once (NegGrad+)."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import nn
from torch.nn import functional

from retrace_pl.unlearning.base import Batch, UnlearningMethod, in_unit_interval, one_of


class NegativeGradient(UnlearningMethod):
    """Descends the loss of the retained records while ascending that of the forgotten ones (NegGrad+).

    Rule: `min a L(D_r) - strength (1 - a) L(D_f)` (form "neggrad+"), or `min L(D_r) - strength 0.5 L(D_f)`
    (form "mls_bench"), L the mean cross-entropy, one batch of each per step, two forward passes, one optimiser step.
    Needs the retained and the forget records.
    Source: NegGrad+ of Kurmanji et al. (2023); the second form is the negative_gradient baseline of MLS-Bench.

    The second term has no lower bound. Where the run diverges, lower `lr` or `strength`, or raise `a`. Batch
    normalisation is in train mode, as published: with `batch_norm="freeze"` nothing holds the logits of the forget
    batch, so that the same settings may diverge.

    Args:
        epochs: Passes over the longer of the two streams.
        lr: Learning rate.
        batch_size: Examples per batch of each stream.
        a: Weight of the retained records in form "neggrad+", in [0, 1].
        form: "neggrad+" or "mls_bench".
        kwargs: The other settings of `UnlearningMethod`; `strength` multiplies the weight of the forget loss.

    Raises:
        InputError: A setting is out of range.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"retain", "forget"})
    weighs_forget: ClassVar[bool] = True

    def __init__(
        self,
        epochs: int = 5,
        lr: float = 1e-2,
        batch_size: int = 64,
        a: float = 0.95,
        form: Literal["neggrad+", "mls_bench"] = "neggrad+",
        **kwargs: Any,
    ) -> None:
        super().__init__(epochs=epochs, lr=lr, batch_size=batch_size, **kwargs)
        in_unit_interval("a", a, self.name)
        one_of("form", form, ("neggrad+", "mls_bench"), self.name)
        self.a = a
        self.form = form

    def weights(self) -> tuple[float, float]:
        """The weights of L(D_r) and of L(D_f) in the loss; the second is not positive."""
        retain, forget = (self.a, 1 - self.a) if self.form == "neggrad+" else (1.0, 0.5)
        return retain, -self.strength * forget

    def unlearn_step(
        self,
        model: nn.Module,
        retain_batch: Batch,
        forget_batch: Batch,
        optimizer: torch.optim.Optimizer,
        step: int,
        epoch: int,
    ) -> dict[str, Any]:
        """One step on the weighted sum; see `UnlearningMethod.unlearn_step`."""
        retain_loss = functional.cross_entropy(model(retain_batch[0]), retain_batch[1])
        forget_losses = functional.cross_entropy(model(forget_batch[0]), forget_batch[1], reduction="none")
        forget_loss = self.forget_mean(forget_losses, forget_batch)
        retain_weight, forget_weight = self.weights()
        loss = retain_weight * retain_loss + forget_weight * forget_loss
        optimizer.zero_grad()
        self.backward(loss)
        optimizer.step()
        return {"loss": loss.detach(), "retain_loss": retain_loss.detach(), "forget_loss": forget_loss.detach()}
