"""RelaxLoss: training towards a loss level that members and non-members share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from retrace_pl.unlearning.base import Batch, UnlearningMethod, at_least
from retrace_pl.unlearning.search_space import Choice, Span


class RelaxLoss(UnlearningMethod):
    """Fine-tunes on the retained records towards a loss level instead of zero, against membership inference.

    Rule, L the mean cross-entropy of a retained batch and a the level: in even epochs descend `|L - a|`; in odd epochs
    descend `L` where `L > a`, else flatten the posteriors: descend `mean(1[argmax p != y] CE(t, p) - CE(y, p))` with
    `t_y = p_y` and `t_k = (1 - p_y) / (K - 1)` for every other class, t held constant. Needs the retained records.
    Source: Chen et al., "RelaxLoss" (ICLR 2022), algorithm 1, the flattening step as in the authors' code.

    Made as a finish: it narrows the gap between the losses of training and unseen records. To put it after another
    method, run that one first and this one on its result. Nothing in the rule mentions the forget records; what it
    forgets by itself goes with the ascent below the level, which the retained records alone correct, so that depends
    on `lr`, `a` and the epochs. After an even epoch the model has just been at the level, after an odd one it may
    have been pushed past it: compare both before choosing `epochs`.

    Args:
        epochs: Passes over the retained records; even and odd ones alternate.
        lr: Learning rate.
        batch_size: Records per batch.
        a: Level of the loss in nats, 0 or more, multiplied by `strength`; 0.4 to 3 are published, by data set. It
            must stay well under log K, the loss of a guess.
        kwargs: The other settings of `UnlearningMethod`; `strength` multiplies `a`, so that 0 is plain fine-tuning.

    Raises:
        InputError: A setting is out of range.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"retain"})
    search_space: ClassVar[Mapping[str, Span | Choice]] = {
        "lr": Span(1e-3, 3e-1, log=True),
        "epochs": Span(2, 20),
        "a": Span(0.01, 1.0, log=True),
        "batch_size": Choice((32, 64, 128)),
    }

    def __init__(
        self, epochs: int = 10, lr: float = 1e-2, batch_size: int = 128, a: float = 1.0, **kwargs: Any
    ) -> None:
        super().__init__(epochs=epochs, lr=lr, batch_size=batch_size, **kwargs)
        at_least("a", a, 0, self.name)
        self.a = a

    def loss(self, logits: Tensor, labels: Tensor, epoch: int) -> Tensor:
        """The loss that a step descends.

        Args:
            logits: `[n, K]`.
            labels: `[n]`.
            epoch: Epochs done so far.

        Returns:
            A scalar.
        """
        level = self.strength * self.a
        losses = functional.cross_entropy(logits, labels, reduction="none")
        mean = losses.mean()
        if epoch % 2 == 0:
            return (mean - level).abs()
        if float(mean.detach()) > level:
            return mean
        wrong = logits.argmax(1) != labels
        own = logits.detach().softmax(1).gather(1, labels[:, None])
        soft = ((1 - own) / (logits.shape[1] - 1)).expand_as(logits).scatter(1, labels[:, None], own)
        flattening = functional.cross_entropy(logits, soft, reduction="none")
        return (wrong * flattening - losses).mean()

    def unlearn_step(
        self,
        model: nn.Module,
        retain_batch: Batch,
        forget_batch: Batch,
        optimizer: torch.optim.Optimizer,
        step: int,
        epoch: int,
    ) -> dict[str, Any]:
        """One step of the epoch's kind; see `UnlearningMethod.unlearn_step`."""
        inputs, labels = retain_batch
        loss = self.loss(model(inputs), labels, epoch)
        optimizer.zero_grad()
        self.backward(loss)
        optimizer.step()
        return {"loss": loss.detach()}
