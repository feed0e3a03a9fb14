"""DELETE: distillation from the original model with the deleted class masked out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn

from retrace_pl.unlearning.base import Batch, BatchNorm, UnlearningMethod
from retrace_pl.unlearning.search_space import Choice, Span
from retrace_pl.unlearning.teachers import distillation_losses, frozen_copy, prepared


class Delete(UnlearningMethod):
    """Distils, on the records to forget, the original model's opinion about all other classes (DELETE).

    Rule: descend `KL(q || p)` over D_f, `q = softmax(z+ with z+_y = -inf)`, z+ the logits of the original model, y the
    record's own class, p the model's softmax. Needs the forget records alone.
    Source: "Decoupled Distillation to Erase" (CVPR 2025), the loss on the forget set.

    The mask takes the probability of the own class to 0 and leaves the ratios of the others as they were; these
    "dark" ratios are all that holds the retained classes, because no retained record is seen.

    Args:
        epochs: Passes over the records to forget.
        lr: Learning rate, multiplied by `strength`; 5e-5 to 1e-4 are published.
        batch_size: Records per batch.
        batch_norm: "freeze" by default, because batches of the deleted class alone would take over the statistics.
        kwargs: The other settings of `UnlearningMethod`; `strength` multiplies the learning rate.

    Raises:
        InputError: A setting is out of range.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"forget"})
    strength_scales_lr: ClassVar[bool] = True
    weighs_forget: ClassVar[bool] = True
    search_space: ClassVar[Mapping[str, Span | Choice]] = {
        "lr": Span(1e-5, 1e-2, log=True),
        "epochs": Span(1, 30),
        "batch_size": Choice((16, 32, 64)),
    }

    def __init__(
        self,
        epochs: int = 20,
        lr: float = 1e-4,
        batch_size: int = 64,
        batch_norm: BatchNorm = "freeze",
        **kwargs: Any,
    ) -> None:
        super().__init__(epochs=epochs, lr=lr, batch_size=batch_size, batch_norm=batch_norm, **kwargs)
        self._original: nn.Module | None = None

    def prepare(self, model: nn.Module) -> None:
        """Keeps the original model as the teacher."""
        self._original = frozen_copy(model)

    def unlearn_step(
        self,
        model: nn.Module,
        retain_batch: Batch,
        forget_batch: Batch,
        optimizer: torch.optim.Optimizer,
        step: int,
        epoch: int,
    ) -> dict[str, Any]:
        """Descends the divergence from the masked teacher; see `UnlearningMethod.unlearn_step`."""
        inputs, labels = forget_batch
        with torch.no_grad():
            others = prepared(self._original, self.name)(inputs).scatter(1, labels[:, None], float("-inf"))
        loss = self.forget_mean(distillation_losses(model(inputs), others), forget_batch)
        optimizer.zero_grad()
        self.backward(loss)
        optimizer.step()
        return {"loss": loss.detach()}
