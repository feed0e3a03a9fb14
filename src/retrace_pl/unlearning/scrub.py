"""A student that leaves its teacher on the records to forget and stays with it on the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from retrace_pl.errors import InputError
from retrace_pl.unlearning.base import Batch, UnlearningMethod, at_least
from retrace_pl.unlearning.search_space import Choice, Span
from retrace_pl.unlearning.teachers import distillation_losses, frozen_copy, prepared


class SCRUB(UnlearningMethod):
    """Moves away from the original model on the records to forget, and stays close to it on the retained ones.

    Rule: in the first `msteps` epochs, ascend `strength T^2 KL(p_theta0 || p)` on the forget batch with an optimiser
    step of its own (max step); in every epoch, descend `gamma L(D_r) + alpha T^2 KL(p_theta0 || p)` on the retain batch
    (min step), L the mean cross-entropy, both predictions at temperature T, KL as a batch mean. Needs the retained and
    the forget records.
    Source: Kurmanji et al. (2023), "Towards unbounded machine unlearning"; `configs/unlearning/scrub_mls_bench.yaml` is
    the scrub baseline of MLS-Bench. Both carry the factor T^2 in both terms.

    The authors alternate whole epochs of max and min steps; here, as in MLS-Bench, every pair of batches gets one of
    each, which sees the few records to forget many times an epoch; `max_every` takes that back. The divergence has no
    upper bound. Batch normalisation in train mode, as published, holds the logits of the
    forget batch within bounds, and the min steps bring its running statistics back to the retained records; with
    "freeze" nothing does the first, so that `lr` and `strength` must be far lower. There too the first max step does
    nothing, because the teacher still equals the student and the divergence has no gradient. Under Adam, which divides
    by the size of the gradient, `strength` matters less than `msteps`; 0 leaves the max steps out.

    Args:
        epochs: Passes over the longer of the two streams, max epochs included.
        lr: Learning rate; 5e-4 with SGD is published.
        temperature: T, above 0.
        alpha: Weight of the divergence in the min step, 0 or more; 0.001 to 0.01 are published.
        gamma: Weight of the cross-entropy in the min step, 0 or more.
        msteps: Number of epochs with max steps.
        max_every: In those epochs, one max step for so many pairs of batches, 1 or more. Retained over forget records
            gives the authors' one pass over the records to forget an epoch.
        kwargs: The other settings of `UnlearningMethod`; `strength` multiplies the divergence that the max step
            ascends.

    Raises:
        InputError: A setting is out of range.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"retain", "forget"})
    weighs_forget: ClassVar[bool] = True
    search_space: ClassVar[Mapping[str, Span | Choice]] = {
        "lr": Span(1e-3, 2e-2, log=True),
        "epochs": Span(5, 15),
        "msteps": Span(1, 3),
        "max_every": Span(1, 32, log=True),
        "strength": Span(0.05, 1.0, log=True),
    }

    def __init__(
        self,
        epochs: int = 3,
        lr: float = 5e-4,
        temperature: float = 4.0,
        alpha: float = 0.001,
        gamma: float = 0.99,
        msteps: int = 2,
        max_every: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(epochs=epochs, lr=lr, **kwargs)
        if not 0 < temperature < float("inf"):
            raise InputError(f"{self.name}.temperature is {temperature}; set it to a number above 0.")
        at_least("alpha", alpha, 0, self.name)
        at_least("gamma", gamma, 0, self.name)
        at_least("msteps", msteps, 0, self.name)
        at_least("max_every", max_every, 1, self.name)
        self.temperature = temperature
        self.alpha = alpha
        self.gamma = gamma
        self.msteps = msteps
        self.max_every = max_every
        self.teacher: nn.Module | None = None

    def prepare(self, model: nn.Module) -> None:
        """Keeps the original model as the teacher."""
        self.teacher = frozen_copy(model)

    def unlearn_step(
        self,
        model: nn.Module,
        retain_batch: Batch,
        forget_batch: Batch,
        optimizer: torch.optim.Optimizer,
        step: int,
        epoch: int,
    ) -> dict[str, Any]:
        """A max step in the first epochs, then a min step; "loss" is that of the min step."""
        result: dict[str, Any] = {}
        if epoch < self.msteps and step % self.max_every == 0 and self.strength > 0:
            _, divergences = self._divergences(model, forget_batch)
            away = self.forget_mean(divergences, forget_batch)
            optimizer.zero_grad()
            self.backward(-self.strength * away)
            optimizer.step()
            result["forget_kl"] = away.detach()

        logits, divergences = self._divergences(model, retain_batch)
        cross_entropy = functional.cross_entropy(logits, retain_batch[1])
        close = divergences.mean()
        loss = self.gamma * cross_entropy + self.alpha * close
        optimizer.zero_grad()
        self.backward(loss)
        optimizer.step()
        return result | {"loss": loss.detach(), "retain_loss": cross_entropy.detach(), "retain_kl": close.detach()}

    def _divergences(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """The student's logits, and its divergence from the teacher record by record."""
        with torch.no_grad():
            targets = prepared(self.teacher, self.name)(batch[0])
        logits = model(batch[0])
        return logits, distillation_losses(logits, targets, self.temperature)
