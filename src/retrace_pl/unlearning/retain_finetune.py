"""Fine-tuning on the retained records: what the paper calls exact unlearning."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional

from retrace_pl.unlearning.base import Batch, UnlearningMethod


class RetainFineTune(UnlearningMethod):
    """Fine-tunes on the retained records and hopes that the rest fades (the paper's "exact" unlearning).

    Rule: descend `L(D_r)`, L the mean cross-entropy, from the original weights. Needs the retained records.
    Source: ReTrace, section on experimental settings ("exact"); Warnecke et al. (2023) and others as "fine-tuning".

    Nothing in the rule mentions the forget records, so whether they fade depends on the learning rate and the epochs
    alone: do not mistake it for retraining, which is `Retrain`.

    Args:
        epochs: Passes over the retained records; 5 to 20 are usual (the paper: as many as pretraining).
        lr: Learning rate, multiplied by `strength`; 1e-3 to 1e-1 are usual.
        kwargs: The other settings of `UnlearningMethod`; `strength` multiplies the learning rate.

    Raises:
        InputError: A setting is out of range.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"retain"})
    strength_scales_lr: ClassVar[bool] = True

    def __init__(self, epochs: int = 10, lr: float = 1e-2, **kwargs: Any) -> None:
        super().__init__(epochs=epochs, lr=lr, **kwargs)

    def unlearn_step(
        self,
        model: nn.Module,
        retain_batch: Batch,
        forget_batch: Batch,
        optimizer: torch.optim.Optimizer,
        step: int,
        epoch: int,
    ) -> dict[str, Any]:
        """Descends L(D_r); see `UnlearningMethod.unlearn_step`."""
        inputs, labels = retain_batch
        loss = functional.cross_entropy(model(inputs), labels)
        optimizer.zero_grad()
        self.backward(loss)
        optimizer.step()
        return {"loss": loss.detach()}
