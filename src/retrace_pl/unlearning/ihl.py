"""A hinge on the probability of the true class: forgetting with a bounded loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from retrace_pl.unlearning.base import Batch, OptimizerName, UnlearningMethod
from retrace_pl.unlearning.joint import joint_logits
from retrace_pl.unlearning.search_space import Choice, Span


class InvertedHinge(UnlearningMethod):
    """Lowers the probability of the true class below that of the runner-up, and no further than that needs.

    Rule: `min L(D_r) + strength mean over D_f of max(0, 1 + p_y - max_{v != y} p_v)`, p the softmax probabilities, L
    the mean cross-entropy; one batch of each per step, passed through the model together, one optimiser step. Needs the
    retained and the forget records.
    Source: the inverted hinge loss (IHL) of LoKU, Cha et al. (2025), written there for the next token of a language
    model; here the token is the class.

    The hinge lies between 0 (all mass on one other class) and 2 (all mass on the true one), so unlike gradient ascent
    it cannot run away. Its gradient is that of a probability: it vanishes where the model is certain, also where it is
    certain of what it should forget. So a model that fits its training records perfectly forgets slowly at first.

    Args:
        epochs: Passes over the longer of the two streams.
        lr: Learning rate.
        optimizer: "adam", "adamw" or "sgd".
        kwargs: The other settings of `UnlearningMethod`; `strength` multiplies the hinge.

    Raises:
        InputError: A setting is out of range.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"retain", "forget"})
    weighs_forget: ClassVar[bool] = True
    search_space: ClassVar[Mapping[str, Span | Choice]] = {
        "lr": Span(1e-4, 1e-2, log=True),
        "epochs": Span(1, 15),
        "strength": Span(0.1, 10.0, log=True),
        "batch_size": Choice((64, 128)),
        "batch_norm": Choice(("update", "freeze")),
    }

    def __init__(self, epochs: int = 5, lr: float = 1e-3, optimizer: OptimizerName = "adam", **kwargs: Any) -> None:
        super().__init__(epochs=epochs, lr=lr, optimizer=optimizer, **kwargs)

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
        retain_logits, forget_logits = joint_logits(model, retain_batch[0], forget_batch[0])
        retain_loss = functional.cross_entropy(retain_logits, retain_batch[1])
        hinge = self.forget_mean(inverted_hinge(forget_logits, forget_batch[1]), forget_batch)
        loss = retain_loss + self.strength * hinge
        optimizer.zero_grad()
        self.backward(loss)
        optimizer.step()
        return {"loss": loss.detach(), "retain_loss": retain_loss.detach(), "forget_hinge": hinge.detach()}


def inverted_hinge(logits: Tensor, labels: Tensor) -> Tensor:
    """The hinge `1 + p_y - max_{v != y} p_v` of every record; it is never negative, so the cut at 0 needs no code.

    Args:
        logits: `[n, K]`, K 2 or more.
        labels: Classes y `[n]`, int64.

    Returns:
        `[n]`, in [0, 2].
    """
    probabilities = logits.softmax(1)
    true = probabilities.gather(1, labels[:, None]).squeeze(1)
    others = probabilities.scatter(1, labels[:, None], float("-inf")).amax(1)
    return 1 + true - others
