"""Fine-tuning on wrong labels for the records to forget (Amnesiac unlearning, SRL)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from retrace_pl.models import behaviour_of
from retrace_pl.unlearning.base import Batch, OptimizerName, UnlearningMethod
from retrace_pl.unlearning.joint import joint_logits
from retrace_pl.unlearning.labels import fixed_labels, redrawn_labels
from retrace_pl.unlearning.search_space import Choice, Span


class RandomLabel(UnlearningMethod):
    """Trains on the retained records as they are and on the records to forget with random other labels.

    Rule: `min L(D_r) + strength L({(x, y~) : (x, y) in D_f})`, L the mean cross-entropy, y~ uniform over the classes
    other than y; one batch of each per step, passed through the model together, one optimiser step. Needs the retained
    and the forget records.
    Source: Amnesiac unlearning of Graves et al. (2021); known as "random label" or SRL in later comparisons.

    Batches do not say which records they hold, so a label that stays the same is drawn from the record's own input and
    `seed` (see `retrace_pl.unlearning.labels.fixed_labels`): one that is seen again gets it again, in a resumed run
    too. Augmentation makes a new record of every view, and of its label.

    Args:
        epochs: Passes over the longer of the two streams.
        lr: Learning rate; 1e-4 is published.
        optimizer: "adam", "adamw" or "sgd".
        redraw: Draw the labels anew at every step, from torch's global generator, instead of once for every record.
        seed: Seed of labels that stay the same.
        kwargs: The other settings of `UnlearningMethod`; `strength` multiplies the loss of the wrong labels.

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

    def __init__(
        self,
        epochs: int = 3,
        lr: float = 1e-4,
        optimizer: OptimizerName = "adam",
        redraw: bool = False,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(epochs=epochs, lr=lr, optimizer=optimizer, **kwargs)
        self.redraw = redraw
        self.seed = seed

    def losses(self, model: nn.Module, retain_batch: Batch, forget_batch: Batch) -> tuple[Tensor, Tensor]:
        """L(D_r) and the loss of the wrong labels, from one pass over both batches.

        Args:
            model: The model that is unlearning.
            retain_batch: Retained records.
            forget_batch: Records to forget, with their true labels.

        Returns:
            Two scalars; `strength` is not in them.
        """
        retain_logits, forget_logits = joint_logits(model, retain_batch[0], forget_batch[0])
        words = behaviour_of(model).words(forget_batch[0])  # the same however far the batch is padded
        wrong = self.wrong_labels((words, forget_batch[1]), forget_logits.shape[1])
        forget_losses = functional.cross_entropy(forget_logits, wrong, reduction="none")
        return functional.cross_entropy(retain_logits, retain_batch[1]), self.forget_mean(forget_losses, forget_batch)

    def wrong_labels(self, forget_batch: Batch, num_classes: int) -> Tensor:
        """Another class for every record of the batch, `[n]`; inputs or their `Behaviour.words`, with true labels."""
        inputs, labels = forget_batch
        if self.redraw:
            return redrawn_labels(labels, num_classes)
        return fixed_labels(inputs, labels, num_classes, self.seed)

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
        retain_loss, forget_loss = self.losses(model, retain_batch, forget_batch)
        loss = retain_loss + self.strength * forget_loss
        optimizer.zero_grad()
        self.backward(loss)
        optimizer.step()
        return {"loss": loss.detach(), "retain_loss": retain_loss.detach(), "wrong_label_loss": forget_loss.detach()}
