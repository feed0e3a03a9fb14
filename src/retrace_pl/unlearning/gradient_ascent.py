"""Gradient ascent on the records to forget: what the paper calls approximate unlearning."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional

from retrace_pl.errors import InputError
from retrace_pl.unlearning.base import Batch, BatchNorm, OptimizerName, UnlearningMethod, at_least, in_unit_interval
from retrace_pl.unlearning.search_space import Choice, Span


class GradientAscent(UnlearningMethod):
    """Ascends the loss of the records to forget, with clipped gradients and a stop at a target accuracy.

    Rule: `theta += lr * clip(grad L(D_f))`, L the mean cross-entropy, the norm of the gradient of all parameters
    clipped to `clip_norm`; the run stops once the accuracy on the latest `window` forget batches (measured in the
    forward pass of the step itself, labels as given) is at most `target_accuracy`. Needs the forget records alone.
    Source: ReTrace, section on experimental settings ("approximate"); Thudi et al. (2022); the clipping and the stop
    are the usual guards against a run that destroys the whole model.

    That is the rule with `optimizer="sgd"`; with "adam", the default, the clipped gradient goes through Adam. In train
    mode the stop would go by the wrong accuracy: batch statistics of the deleted class alone hide it from the model
    before it has forgotten. Nothing in the rule protects the retained records: look at `retain_acc` of every run.

    Args:
        epochs: Upper bound on the passes over the data.
        lr: Learning rate, multiplied by `strength`; 1e-5 to 1e-1 are usual.
        optimizer: "adam", "adamw" or "sgd".
        momentum: Momentum of SGD; 0 by default, because momentum carries the ascent on after the target.
        clip_norm: Largest norm of the gradient, above 0.
        target_accuracy: Accuracy on the records to forget at which the run stops, in [0, 1]; unseen images of a deleted
            class end up lower, because the model knew them less well.
        window: Number of latest forget batches over which that accuracy is taken.
        batch_norm: "freeze" by default, because batches of the deleted class alone would take over the statistics.
        kwargs: The other settings of `UnlearningMethod`; `strength` multiplies the learning rate.

    Raises:
        InputError: A setting is out of range.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"forget"})
    strength_scales_lr: ClassVar[bool] = True
    weighs_forget: ClassVar[bool] = True
    search_space: ClassVar[Mapping[str, Span | Choice]] = {
        "lr": Span(1e-6, 1e-2, log=True),
        "epochs": Span(5, 100),
        "target_accuracy": Span(0.0, 0.5),
        "batch_size": Choice((32, 64, 128)),
    }

    def __init__(
        self,
        epochs: int = 40,
        lr: float = 2e-5,
        optimizer: OptimizerName = "adam",
        momentum: float = 0.0,
        clip_norm: float = 1.0,
        target_accuracy: float = 0.2,
        window: int = 1,
        batch_norm: BatchNorm = "freeze",
        **kwargs: Any,
    ) -> None:
        super().__init__(epochs=epochs, lr=lr, optimizer=optimizer, momentum=momentum, batch_norm=batch_norm, **kwargs)
        if not 0 < clip_norm < float("inf"):
            raise InputError(f"{self.name}.clip_norm is {clip_norm}; set it to a number above 0.")
        in_unit_interval("target_accuracy", target_accuracy, self.name)
        at_least("window", window, 1, self.name)
        self.clip_norm = clip_norm
        self.target_accuracy = target_accuracy
        self.window = window
        self._recent: deque[tuple[int, int]] = deque(maxlen=window)

    def prepare(self, model: nn.Module) -> None:
        """Forgets the accuracies of an earlier run."""
        self._recent.clear()

    def unlearn_step(
        self,
        model: nn.Module,
        retain_batch: Batch,
        forget_batch: Batch,
        optimizer: torch.optim.Optimizer,
        step: int,
        epoch: int,
    ) -> dict[str, Any]:
        """Ascends L(D_f); "loss" is -L(D_f), "forget_batch_acc" the accuracy that the stop goes by."""
        inputs, labels = forget_batch
        logits = model(inputs)
        self._recent.append((int((logits.argmax(1) == labels).sum()), len(labels)))
        loss = -self.forget_mean(functional.cross_entropy(logits, labels, reduction="none"), forget_batch)
        optimizer.zero_grad()
        self.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), self.clip_norm)
        optimizer.step()
        accuracy = sum(correct for correct, _ in self._recent) / sum(count for _, count in self._recent)
        reached = len(self._recent) == self.window and accuracy <= self.target_accuracy
        return {"loss": loss.detach(), "forget_batch_acc": accuracy, "stop": reached}

    def state_dict(self) -> dict[str, Any]:
        """The counts of the latest forget batches."""
        return {"recent": [list(pair) for pair in self._recent]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes the counts back."""
        self._recent.clear()
        self._recent.extend((int(correct), int(count)) for correct, count in state["recent"])
