"""Impair with noise that stands for a class, then repair with what stays (UNSIR)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from retrace_pl.errors import InputError, RunError
from retrace_pl.unlearning.base import Batch, Batches, OptimizerName, UnlearningMethod, at_least
from retrace_pl.unlearning.joint import joint_logits
from retrace_pl.unlearning.search_space import Choice, Span


class UNSIR(UnlearningMethod):
    """Trains the deleted class onto noise that the original model finds most unlike it, then repairs the others.

    Rule: before the first step, for each class y to forget, `noise_steps` steps of Adam on
    `min over N of -L(N, y) + noise_penalty mean ||N||^2` from N ~ N(0, 1), L the mean cross-entropy, of the original
    model in eval mode. In the first `impair_epochs` epochs descend `L(D_r) + strength L(N, y)`, retained records and as
    many noisy ones (or all there are) in one pass; in the other epochs descend `L(D_r)`. Needs the retained records,
    and of those to forget the classes and the shape, once beforehand ("cache"); their contents are not used.
    Source: Tarun et al. (2023), "Fast yet effective machine unlearning".

    Made for whole classes: where single records of all classes are deleted, noise for all classes impairs all of them.
    The authors impair and repair with different learning rates (0.02 and 0.01); a scheduler can do that.

    Args:
        epochs: Passes over the retained records, impairing and repairing together.
        impair_epochs: How many of them impair.
        lr: Learning rate.
        optimizer: "adam", "adamw" or "sgd".
        noise_per_class: Noisy inputs for every class to forget.
        noise_steps: Steps of the optimiser that makes them.
        noise_lr: Its learning rate, above 0.
        noise_penalty: Weight lambda of their squared norm, 0 or more.
        kwargs: The other settings of `UnlearningMethod`; `strength` multiplies the loss on noise.

    Raises:
        InputError: A setting is out of range.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"retain", "forget", "cache"})
    search_space: ClassVar[Mapping[str, Span | Choice]] = {
        "lr": Span(5e-3, 3e-2, log=True),
        "epochs": Span(7, 15),
        "impair_epochs": Span(1, 2),
        "strength": Span(0.3, 5.0, log=True),
        "batch_size": Choice((64, 128)),
    }

    def __init__(
        self,
        epochs: int = 2,
        impair_epochs: int = 1,
        lr: float = 1e-4,
        optimizer: OptimizerName = "adam",
        noise_per_class: int = 64,
        noise_steps: int = 40,
        noise_lr: float = 0.1,
        noise_penalty: float = 0.1,
        **kwargs: Any,
    ) -> None:
        super().__init__(epochs=epochs, lr=lr, optimizer=optimizer, **kwargs)
        at_least("impair_epochs", impair_epochs, 0, self.name)
        at_least("noise_per_class", noise_per_class, 1, self.name)
        at_least("noise_steps", noise_steps, 0, self.name)
        at_least("noise_penalty", noise_penalty, 0, self.name)
        if not 0 < noise_lr < float("inf"):
            raise InputError(f"{self.name}.noise_lr is {noise_lr}; set it to a number above 0.")
        self.impair_epochs = impair_epochs
        self.noise_per_class = noise_per_class
        self.noise_steps = noise_steps
        self.noise_lr = noise_lr
        self.noise_penalty = noise_penalty
        self.noise: Batch | None = None

    def prepare(self, model: nn.Module) -> None:
        """Forgets the noise of an earlier run."""
        self.noise = None

    def edit(self, model: nn.Module, retain_loader: Batches, forget_loader: Batches) -> None:
        """Makes the noise; the model stays as it is.

        Args:
            model: The original model.
            retain_loader: Not used.
            forget_loader: The records to forget; only their classes and their shape are read.

        Raises:
            InputError: There is no record to forget, or inputs are no floating-point numbers.
        """
        classes: set[int] = set()
        example: Tensor | None = None
        for inputs, labels in forget_loader:
            example = inputs
            classes.update(labels.tolist())
        if example is None:
            raise InputError(f"{self.name} needs records to forget for its noise and the data has none.")
        if not example.is_floating_point():
            raise InputError(f"{self.name} optimises its inputs and these are {example.dtype}; use another method.")
        labels = torch.tensor(sorted(classes), device=example.device).repeat_interleave(self.noise_per_class)
        start = torch.randn(len(labels), *example.shape[1:]).to(example)
        self.noise = self._maximise_error(model, start, labels), labels

    def _maximise_error(self, model: nn.Module, start: Tensor, labels: Tensor) -> Tensor:
        noise = start.requires_grad_()
        optimizer = torch.optim.Adam([noise], lr=self.noise_lr)
        for _ in range(self.noise_steps):
            loss = -functional.cross_entropy(model(noise), labels)
            loss = loss + self.noise_penalty * noise.square().flatten(1).sum(1).mean()
            (noise.grad,) = torch.autograd.grad(loss, [noise])  # the model's own gradients stay as they are
            optimizer.step()
        return noise.detach()

    def unlearn_step(
        self,
        model: nn.Module,
        retain_batch: Batch,
        forget_batch: Batch,
        optimizer: torch.optim.Optimizer,
        step: int,
        epoch: int,
    ) -> dict[str, Any]:
        """A step that impairs in the first epochs and repairs in the others; see `UnlearningMethod.unlearn_step`.

        Raises:
            RunError: The driver left out `edit`.
        """
        if self.noise is None:
            raise RunError(f"{self.name} has no noise yet; call edit(model, retain_loader, forget_loader) before.")
        inputs, labels = retain_batch
        result: dict[str, Any] = {}
        if epoch < self.impair_epochs:
            noise, noise_labels = (part.to(inputs.device) for part in self.noise)
            # drawn on the CPU, so that the choice does not depend on the device
            chosen = torch.randperm(len(noise_labels))[: len(labels)].to(noise.device)
            logits, noise_logits = joint_logits(model, inputs, noise[chosen])
            noise_loss = functional.cross_entropy(noise_logits, noise_labels[chosen])
            loss = functional.cross_entropy(logits, labels) + self.strength * noise_loss
            result["noise_loss"] = noise_loss.detach()
        else:
            loss = functional.cross_entropy(model(inputs), labels)
        optimizer.zero_grad()
        self.backward(loss)
        optimizer.step()
        return result | {"loss": loss.detach()}

    def state_dict(self) -> dict[str, Any]:
        """The noise and its classes."""
        return {} if self.noise is None else {"noise": self.noise[0], "labels": self.noise[1]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes them back."""
        self.noise = (state["noise"], state["labels"]) if "noise" in state else None
