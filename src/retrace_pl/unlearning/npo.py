"""Negative preference optimisation: forgetting whose pull fades where the model has left its old answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from retrace_pl.errors import InputError
from retrace_pl.unlearning.base import Batch, OptimizerName, UnlearningMethod, at_least
from retrace_pl.unlearning.joint import joint_logits
from retrace_pl.unlearning.search_space import Choice, Span
from retrace_pl.unlearning.teachers import frozen_copy, prepared


class NPO(UnlearningMethod):
    """Treats the true label of a record to forget as a dispreferred answer, relative to the original model.

    Rule: `min gamma L(D_r) + strength mean over D_f of (2 / beta) log(1 + (p(y|x) / p_theta0(y|x))^beta)`, L the mean
    cross-entropy, theta_0 the original weights, frozen; one batch of each per step, passed through the model together,
    one optimiser step. Needs the retained and the forget records.
    Source: Zhang et al. (2024), "Negative preference optimization: from catastrophic collapse to effective unlearning",
    equation 3, with the retain term of their NPO+RT; written there for the answer y of a language model to a prompt x,
    which here is the class of an input.

    The gradient is that of gradient ascent times `2 r / (1 + r)`, `r = (p(y | x) / p_theta0(y | x))^beta`: 1 at the
    start, and vanishing as the model leaves the label. So the loss has the lower bound 0 and the run slows down where
    ascent would go on; for beta to 0 it is gradient ascent.

    Args:
        epochs: Passes over the longer of the two streams.
        lr: Learning rate.
        optimizer: "adam", "adamw" or "sgd".
        beta: Inverse temperature beta, above 0; published: 0.1. A larger one stops earlier.
        gamma: Weight of the retained records, 0 or more; 0 is plain NPO.
        kwargs: The other settings of `UnlearningMethod`; `strength` multiplies the loss of the forget records.

    Raises:
        InputError: A setting is out of range.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"retain", "forget"})
    weighs_forget: ClassVar[bool] = True
    search_space: ClassVar[Mapping[str, Span | Choice]] = {
        "lr": Span(1e-5, 1e-2, log=True),
        "epochs": Span(1, 15),
        "strength": Span(0.1, 10.0, log=True),
        "beta": Span(0.05, 1.0, log=True),
        "batch_size": Choice((64, 128)),
    }

    def __init__(
        self,
        epochs: int = 5,
        lr: float = 1e-4,
        optimizer: OptimizerName = "adam",
        beta: float = 0.1,
        gamma: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(epochs=epochs, lr=lr, optimizer=optimizer, **kwargs)
        if not 0 < beta < float("inf"):
            raise InputError(f"{self.name}.beta is {beta}; set it to a number above 0.")
        at_least("gamma", gamma, 0, self.name)
        self.beta = beta
        self.gamma = gamma
        self._original: nn.Module | None = None

    def prepare(self, model: nn.Module) -> None:
        """Keeps the original model as the reference."""
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
        """One step on the sum; see `UnlearningMethod.unlearn_step`."""
        inputs, labels = forget_batch
        with torch.no_grad():
            reference = prepared(self._original, self.name)(inputs)
        retain_logits, forget_logits = joint_logits(model, retain_batch[0], inputs)
        retain_loss = functional.cross_entropy(retain_logits, retain_batch[1])
        losses = negative_preference_losses(forget_logits, reference, labels, self.beta)
        forget_loss = self.forget_mean(losses, forget_batch)
        loss = self.gamma * retain_loss + self.strength * forget_loss
        optimizer.zero_grad()
        self.backward(loss)
        optimizer.step()
        return {"loss": loss.detach(), "retain_loss": retain_loss.detach(), "forget_npo": forget_loss.detach()}


def negative_preference_losses(logits: Tensor, reference: Tensor, labels: Tensor, beta: float) -> Tensor:
    """`-(2 / beta) log sigmoid(-beta log(p(y | x) / p_ref(y | x)))` of every record.

    Args:
        logits: `[n, K]`.
        reference: Logits of the reference model, `[n, K]`; no gradient flows into them.
        labels: Classes y `[n]`, int64.
        beta: Inverse temperature, above 0.

    Returns:
        `[n]`, 0 or more; `2 log 2 / beta` where both models agree.
    """
    columns = labels[:, None]
    own = logits.log_softmax(1).gather(1, columns).squeeze(1)
    theirs = reference.detach().log_softmax(1).gather(1, columns).squeeze(1)
    return -(2 / beta) * functional.logsigmoid(-beta * (own - theirs))
