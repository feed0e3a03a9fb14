"""Random-label forgetting in the weights that matter most to the records to forget (SalUn)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from retrace_pl.errors import InputError, RunError
from retrace_pl.unlearning.base import Batch, Batches, OptimizerName, at_least, in_unit_interval
from retrace_pl.unlearning.random_label import RandomLabel
from retrace_pl.unlearning.search_space import Choice, Span


class SalUn(RandomLabel):
    """Relabels the records to forget at random, and lets only the weights with the largest forget gradient learn it.

    Rule: `m = 1 for the share "keep" of all weights with the largest |grad L(D_f)| at theta_0, else 0`; then
    `min a L(D_r) + strength L({(x, y~) : (x, y) in D_f})` over `m * theta`, L the mean cross-entropy, y~ as in
    `RandomLabel`. Needs the retained and the forget records, and the forget ones once beforehand ("cache").
    Source: Fan et al. (2024), "SalUn: empowering machine unlearning via gradient-based weight saliency".

    The ranking is over all parameters together, batch-norm weights and biases included, with the gradient of the
    original model in eval mode. Weights outside the mask keep their bits: the gradient is masked, and what momentum,
    weight decay or Adam would still add is taken back after the step. Running statistics of batch normalisation are no
    weights and follow `batch_norm`.

    Args:
        keep: Share of the weights that may change, in [0, 1]; 0.5 is published.
        a: Weight of the retained records, 0 or more.
        epochs: Passes over the longer of the two streams.
        lr: Learning rate; 0.013 with SGD is published.
        optimizer: "sgd", "adam" or "adamw".
        redraw: Draw the wrong labels anew at every step.
        seed: Seed of labels that stay the same.
        kwargs: The other settings of `UnlearningMethod`; `strength` multiplies the loss of the wrong labels.

    Raises:
        InputError: A setting is out of range.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"retain", "forget", "cache"})
    search_space: ClassVar[Mapping[str, Span | Choice]] = {
        "lr": Span(3e-3, 1e-1, log=True),
        "epochs": Span(5, 15),
        "keep": Span(0.1, 0.9),
        "strength": Span(0.1, 2.0, log=True),
        "batch_size": Choice((64, 128)),
    }

    def __init__(
        self,
        keep: float = 0.5,
        a: float = 1.0,
        epochs: int = 10,
        lr: float = 0.013,
        optimizer: OptimizerName = "sgd",
        redraw: bool = False,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(epochs=epochs, lr=lr, optimizer=optimizer, redraw=redraw, seed=seed, **kwargs)
        in_unit_interval("keep", keep, self.name)
        at_least("a", a, 0, self.name)
        self.keep = keep
        self.a = a
        self.mask: dict[str, Tensor] = {}

    def prepare(self, model: nn.Module) -> None:
        """Forgets the mask of an earlier run."""
        self.mask = {}

    def edit(self, model: nn.Module, retain_loader: Batches, forget_loader: Batches) -> None:
        """Computes the mask; the model stays as it is.

        Args:
            model: The original model.
            retain_loader: Not used.
            forget_loader: The records to forget.

        Raises:
            InputError: There is no record to forget.
        """
        self.mask = saliency_mask(model, forget_loader, self.keep, self.name)

    def unlearn_step(
        self,
        model: nn.Module,
        retain_batch: Batch,
        forget_batch: Batch,
        optimizer: torch.optim.Optimizer,
        step: int,
        epoch: int,
    ) -> dict[str, Any]:
        """One step inside the mask; see `UnlearningMethod.unlearn_step`.

        Raises:
            RunError: The driver left out `edit`.
        """
        if not self.mask:
            raise RunError(f"{self.name} has no mask yet; call edit(model, retain_loader, forget_loader) before.")
        retain_loss, forget_loss = self.losses(model, retain_batch, forget_batch)
        loss = self.a * retain_loss + self.strength * forget_loss
        optimizer.zero_grad()
        self.backward(loss)
        learning = [
            (parameter, self.mask[name].to(parameter.device), parameter.detach().clone())
            for name, parameter in model.named_parameters()
            if parameter.grad is not None
        ]
        for parameter, inside, _ in learning:
            parameter.grad = torch.where(inside, torch.as_tensor(parameter.grad), 0)
        optimizer.step()
        with torch.no_grad():
            for parameter, inside, before in learning:
                parameter.copy_(torch.where(inside, parameter, before))
        return {"loss": loss.detach(), "retain_loss": retain_loss.detach(), "wrong_label_loss": forget_loss.detach()}

    def state_dict(self) -> dict[str, Any]:
        """The mask, by the name of the parameter."""
        return {"mask": self.mask}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes the mask back."""
        self.mask = dict(state["mask"])


def saliency_mask(model: nn.Module, forget_loader: Batches, keep: float, owner: str) -> dict[str, Tensor]:
    """Marks the weights with the largest gradient of the forget loss.

    Args:
        model: Any classifier, in the mode that the gradient is to be taken in; it is not changed.
        forget_loader: The records to forget.
        keep: Share of all weights to mark, in [0, 1]; their number is rounded.
        owner: Whose wish it is, for the message.

    Returns:
        For every parameter that requires gradients a boolean tensor of its shape.

    Raises:
        InputError: There is no record to forget.
    """
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    total, records = [torch.zeros_like(parameter) for parameter in parameters.values()], 0
    for inputs, labels in forget_loader:
        loss = functional.cross_entropy(model(inputs), labels, reduction="sum")
        gradients = torch.autograd.grad(loss, list(parameters.values()), materialize_grads=True)
        total = [before + gradient for before, gradient in zip(total, gradients, strict=True)]
        records += len(labels)
    if not records:
        raise InputError(f"{owner} needs records to forget for its mask and the data has none.")
    size = torch.cat([gradient.abs().flatten() for gradient in total])
    chosen = torch.zeros_like(size, dtype=torch.bool)
    chosen[size.topk(round(keep * len(size))).indices] = True
    parts = torch.split(chosen, [parameter.numel() for parameter in parameters.values()])
    return {name: part.view_as(parameters[name]) for name, part in zip(parameters, parts, strict=True)}
